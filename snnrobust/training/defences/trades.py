"""TRADES: clean accuracy traded for the constancy of the output (Zhang et al., ICML 2019, arXiv 1901.08573)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from snnrobust.attacks.base import Attack
from snnrobust.data.dataset import Batch
from snnrobust.regularizers.base import Pass
from snnrobust.settings import NonNegative
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.training.defences.base import Defence, Look, Moment
from snnrobust.training.defences.crafting import crafted, refuse
from snnrobust.training.defences.departure import Direction, departing, divergence, refuse_without_slope


@dataclass(frozen=True)
class Trades(Defence):
    """`CE(model(x), y) + beta mean KL(model(x) || model(x'))`, where `x'` increases the same divergence.

    The gradient flows through both outputs. `x'` is crafted in eval mode, before both passes. The regularizer is added
    to the clean pass.

    Args:
        attack: makes `x'`; it sees the divergence in the place of its loss.
        beta: weight of the divergence: 6 in the authors' code, 2 for spiking networks made of ANNs (CPAL 2025).
        kl: `KL(clean || adversarial)`, as in the paper and its code, or the other way round, as CPAL 2025 writes it.
        warmup: epochs over which the budget of the attack rises linearly from 0.

    Raises:
        ValueError: if the attack can be no part of a training, or cannot increase a divergence.
    """

    attack: Attack
    beta: NonNegative = 6.0
    kl: Literal["clean_to_adversarial", "adversarial_to_clean"] = "clean_to_adversarial"
    warmup: NonNegative = 0.0

    def __post_init__(self) -> None:
        refuse(self.attack, self.warmup)
        refuse_without_slope(self.attack)

    def step(self, model: SpikingClassifier, batch: Batch, look: Look, moment: Moment) -> tuple[Tensor, Pass]:
        x = crafted(self.attack, model, batch, moment, self.warmup, partial(departing, kl=self.kl))
        at = look(batch.x)
        return trades_loss(at.logits, model(x), batch.y, self.beta, self.kl), at


def trades_loss(clean: Tensor, other: Tensor, y: Tensor, beta: float, kl: Direction = "clean_to_adversarial") -> Tensor:
    """The loss, a scalar, from the logits `[B, K]` on clean and on adversarial samples and the true classes `[B]`."""
    far = divergence(clean.log_softmax(1), other.log_softmax(1), kl)
    return F.cross_entropy(clean, y) + beta * far.mean()
