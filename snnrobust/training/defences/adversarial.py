"""Adversarial training (Goodfellow et al. 2015; Madry et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from snnrobust.attacks.base import Attack
from snnrobust.data.dataset import Batch
from snnrobust.regularizers.base import Pass
from snnrobust.settings import NonNegative, ShareBelowOne
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.training.defences.base import Defence, Look, Moment
from snnrobust.training.defences.crafting import crafted, refuse


@dataclass(frozen=True)
class Adversarial(Defence):
    """`(1 - clean_weight) CE(model(x'), y) + clean_weight CE(model(x), y)` with adversarial inputs `x'`.

    `x'` is crafted in eval mode. The regularizer is added to the pass of `x'`.

    Args:
        attack: makes `x'`; any attack on inputs, with any estimator and budget.
        clean_weight: share of the clean loss; 0: clean samples are not seen (Madry), 0.5: half and half (Goodfellow).
        warmup: epochs over which the budget of the attack rises linearly from 0.

    Raises:
        ValueError: if the attack can be no part of a training (`crafting.refuse`).
    """

    attack: Attack
    clean_weight: ShareBelowOne = 0.0
    warmup: NonNegative = 0.0

    def __post_init__(self) -> None:
        refuse(self.attack, self.warmup)

    def step(self, model: SpikingClassifier, batch: Batch, look: Look, moment: Moment) -> tuple[Tensor, Pass]:
        at = look(crafted(self.attack, model, batch, moment, self.warmup))
        loss = F.cross_entropy(at.logits, batch.y)
        if self.clean_weight > 0:
            clean = F.cross_entropy(model(batch.x), batch.y)
            loss = (1 - self.clean_weight) * loss + self.clean_weight * clean
        return loss, at
