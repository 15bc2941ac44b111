"""SA-PGD: gradient ascent with first and second moments, for gradients that change from step to step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from snnrobust.attacks.base import Attack
from snnrobust.attacks.iterate import column, look, outermost
from snnrobust.attacks.losses import LOSSES
from snnrobust.attacks.schedule import checkpoints
from snnrobust.estimators.base import Estimator
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.settings import Fraction, NonNegativeInt, PositiveInt
from snnrobust.spiking.classifier import Classifier
from snnrobust.threat import Linf, Threat


@dataclass(frozen=True)
class SAPGD(Attack):
    """`x <- project(x + clip(h m / sqrt(w), -h, h))` with `m <- b1 m + g / mean|g|`, `w <- b2 w + g^2 / mean(g^2)`.

    As the published code of adaptive sharpness surrogate gradients (ASSG) has it: means per sample over all entries, no
    bias correction, steps of h = eps that halve at the checkpoints of APGD for all samples alike. Returns the last
    misclassified point or, where none was met, that of the largest loss. A sample whose gradient is 0 stays in place.

    Args:
        threat: l_inf alone, since steps are clipped entry by entry.
        estimator: how the model is differentiated.
        steps: per restart.
        loss: what is increased.
        momentum: b1, what remains of earlier gradients.
        square_momentum: b2, what remains of earlier squares.
        restarts: independent searches.
        samples: gradients averaged per step (expectation over transformation), for stochastic models.
        seed: of the random starts.

    Raises:
        ValueError: if the threat is another than l_inf.
    """

    threat: Threat
    estimator: Estimator = TRAINED
    steps: PositiveInt = 100
    loss: Literal["cross_entropy", "margin", "dlr"] = "cross_entropy"
    momentum: Fraction = 0.5
    square_momentum: Fraction = 0.8
    restarts: PositiveInt = 1
    samples: PositiveInt = 1
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        if not isinstance(self.threat, Linf):
            raise ValueError(f"threat: SAPGD clips its steps entry by entry; allowed: linf, got {self.threat}")

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        loss = LOSSES[self.loss]
        start = outermost(self.threat, x, index, model.bounds, "start", self.seed, restart)
        now = best = hit = look(model, start, y, loss, self.samples)
        size, halvings = self.threat.size, checkpoints(self.steps)
        first, second = torch.zeros_like(x), torch.zeros_like(x)
        for number in range(1, self.steps + 1):
            g, some = _scaled(now.slope)
            first = self.momentum * first + _over_mean(g, g.abs())
            second = self.square_momentum * second + _over_mean(g.square(), g.square())
            move = (size * first / (second.sqrt() + 1e-12)).clamp(-size, size)
            at = self.threat.project(now.x + torch.where(some, move, 0), x, model.bounds)
            now = look(model, at, y, loss, self.samples)
            best, hit = now.where(now.loss > best.loss, best), now.where(now.wrong, hit)
            if number in halvings:
                size /= 2
        return hit.where(hit.wrong, best).x


def _scaled(slope: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of which each sample's largest entry is 1, so that no square vanishes; and which are not 0."""
    largest = column(slope.abs().flatten(1).amax(1), slope)
    return slope / largest.clamp_min(torch.finfo(slope.dtype).tiny), largest > 0


def _over_mean(values: Tensor, sizes: Tensor) -> Tensor:
    """`values` by the mean of `sizes` per sample; 0 where that is 0."""
    return values / column(sizes.flatten(1).mean(1), sizes).clamp_min(torch.finfo(sizes.dtype).tiny)
