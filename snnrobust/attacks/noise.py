"""Random perturbations: what an adversary that knows nothing would do, and the baseline to compare attacks with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from snnrobust.attacks.base import Attack
from snnrobust.randomness import normal, uniform
from snnrobust.settings import Fraction, NonNegative, NonNegativeInt
from snnrobust.spiking.classifier import Classifier
from snnrobust.threat import Threat


@dataclass(frozen=True)
class UniformNoise(Attack):
    """A uniformly random point of the threat set: for l_inf, `clip(x + eps U(-1, 1))`; for l_2, of the ball."""

    threat: Threat
    seed: NonNegativeInt = 0

    adversarial: ClassVar[bool] = False

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        return self.threat.start(x, uniform(x, index, "noise", self.seed), model.bounds)


@dataclass(frozen=True)
class GaussianNoise(Attack):
    """`clip(x + std N(0, 1))`. Not bounded in l_inf, hence no part of a worst case over a threat.

    Args:
        std: standard deviation, in units of the input.
        seed: of the draws.
    """

    std: NonNegative
    seed: NonNegativeInt = 0

    threat = None
    adversarial: ClassVar[bool] = False

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        return x + self.std * normal(x, index, "noise", self.seed)


@dataclass(frozen=True)
class SaltAndPepper(Attack):
    """Entries at the lowest or the highest input, at random, the others as they were. Not bounded, as `GaussianNoise`.

    Args:
        share: probability of an entry (of a pixel, channel and time step) to be replaced; half of them are high.
        seed: of the draws.
    """

    share: Fraction
    seed: NonNegativeInt = 0

    threat = None
    adversarial: ClassVar[bool] = False

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        unit = uniform(x, index, "noise", self.seed)
        extreme = torch.where(unit < self.share / 2, model.bounds.low, model.bounds.high).to(x.dtype)
        return torch.where(unit < self.share, extreme, x)
