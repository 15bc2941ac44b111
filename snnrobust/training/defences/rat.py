"""RAT: regularized adversarial training (Ding et al., SNN-RAT, NeurIPS 2022)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from snnrobust.attacks.base import Attack
from snnrobust.data.dataset import Batch
from snnrobust.regularizers.base import Pass
from snnrobust.settings import Fraction, NonNegative, ShareBelowOne
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.training.defences.adversarial import Adversarial
from snnrobust.training.defences.base import Defence, Look, Moment
from snnrobust.training.defences.crafting import refuse
from snnrobust.training.defences.retraction import make_convex, retract


@dataclass(frozen=True)
class Rat(Defence):
    """Adversarial training, with the rows of all weights pulled towards orthogonality after every step.

    `W <- (1 + beta) W - beta W W^T W`, which bounds how much a layer amplifies; shares of residual sums are kept
    convex. The loss is that of `Adversarial`; the published recipe has no weight decay.

    Args:
        attack: makes the adversarial samples; any attack on inputs, with any estimator and budget.
        beta: strength of the retraction: 5e-4 is the default of the published code, the paper's value is not known.
        clean_weight: share of the clean loss.
        warmup: epochs over which the budget of the attack rises linearly from 0.

    Raises:
        ValueError: if the attack can be no part of a training.
    """

    attack: Attack
    beta: Fraction = 0.0005
    clean_weight: ShareBelowOne = 0.0
    warmup: NonNegative = 0.0

    def __post_init__(self) -> None:
        refuse(self.attack, self.warmup)

    @property
    def training(self) -> Adversarial:
        """Where the loss comes from."""
        return Adversarial(self.attack, self.clean_weight, self.warmup)

    def step(self, model: SpikingClassifier, batch: Batch, look: Look, moment: Moment) -> tuple[Tensor, Pass]:
        return self.training.step(model, batch, look, moment)

    def after_step(self, model: SpikingClassifier) -> None:
        retract(model, self.beta)
        make_convex(model)
