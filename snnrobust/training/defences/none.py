"""No defence: cross-entropy on the clean samples."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from snnrobust.data.dataset import Batch
from snnrobust.regularizers.base import Pass
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.training.defences.base import Defence, Look, Moment


@dataclass(frozen=True)
class NoDefence(Defence):
    """`CE(model(x), y)`."""

    def step(self, model: SpikingClassifier, batch: Batch, look: Look, moment: Moment) -> tuple[Tensor, Pass]:
        at = look(batch.x)
        return F.cross_entropy(at.logits, batch.y), at
