"""Projected gradient ascent: FGSM, R-FGSM, BIM, PGD and MI-FGSM are yaml files of this one class."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from snnrobust.attacks.base import Stepwise
from snnrobust.attacks.losses import LOSSES
from snnrobust.estimators.base import Estimator, repeating
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.randomness import normal, uniform
from snnrobust.settings import NonNegative, NonNegativeInt, PositiveInt
from snnrobust.spiking.classifier import Classifier
from snnrobust.threat import Threat

Loss = Callable[[Tensor, Tensor], Tensor]


def gradient(model: Classifier, x: Tensor, y: Tensor, loss: Loss, samples: int = 1) -> tuple[Tensor, Tensor]:
    """Gradient of the loss with respect to the input, and the logits, both averaged over `samples` forwards.

    Args:
        loss: per sample, from logits and labels.
        samples: forwards at the same point (expectation over transformation), for stochastic models.
    """
    x = x.detach().requires_grad_()
    total, logits = torch.zeros_like(x), torch.zeros(())
    for number in range(samples):
        with repeating(number):
            z = model(x)
            total += torch.autograd.grad(loss(z, y).sum(), x)[0]
            logits = logits + z.detach()
    # An entry that is not finite points nowhere; in a momentum it would stay for ever.
    return torch.nan_to_num(total / samples, nan=0.0, posinf=0.0, neginf=0.0), logits / samples


@dataclass(frozen=True)
class ProjectedGradient(Stepwise):
    """`x <- project(x + step_size * ascend(grad_x loss))`, `steps` times (Goodfellow 2015; Madry 2018).

    With `momentum` mu, the direction is that of `m <- mu m + g / mean|g|` (Dong et al. 2018, MI-FGSM).

    Args:
        threat: norm and budget.
        estimator: how the model is differentiated.
        steps: gradient steps per restart.
        step_size: in units of the input; None means `2.5 threat.size / steps`.
        momentum: weight of earlier gradients; 0 for none.
        start: at the input; at a uniformly random point of the threat set; as R-FGSM does, at
            `x + start_size * sign(N(0, 1))`; or, as TRADES does, at `x + start_size * N(0, 1)`.
        start_size: of the `sign` and `normal` starts, in units of the input; None means `threat.size`.
        restarts: independent searches.
        samples: gradients averaged per step (expectation over transformation), for stochastic models.
        loss: what is increased.
        seed: of the random starts.
    """

    threat: Threat
    estimator: Estimator = TRAINED
    steps: PositiveInt = 10
    step_size: NonNegative | None = None
    momentum: NonNegative = 0.0
    start: Literal["input", "uniform", "sign", "normal"] = "uniform"
    start_size: NonNegative | None = None
    restarts: PositiveInt = 1
    samples: PositiveInt = 1
    loss: Literal["cross_entropy", "margin", "dlr"] = "cross_entropy"
    seed: NonNegativeInt = 0

    @property
    def step(self) -> float:
        """The step size in units of the input."""
        return 2.5 * self.threat.size / self.steps if self.step_size is None else self.step_size

    def family(self) -> Hashable:
        return replace(self, steps=1, step_size=self.step)

    def search_at(
        self, steps: Sequence[int], model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int
    ) -> list[Tensor]:
        at = self._start(model, x, index, restart)
        memory = torch.zeros_like(x)
        found = {}
        for number in range(1, max(steps) + 1):
            direction, _ = gradient(model, at, y, LOSSES[self.loss], self.samples)
            if self.momentum > 0:
                size = direction.flatten(1).abs().mean(1).clamp_min(torch.finfo(x.dtype).tiny)
                memory = self.momentum * memory + direction / size.view(-1, *[1] * (x.dim() - 1))
                direction = memory
            at = self.threat.project(at + self.step * self.threat.ascend(direction), x, model.bounds)
            if number in steps:
                found[number] = at
        return [found[number] for number in steps]

    def _start(self, model: Classifier, x: Tensor, index: Tensor, restart: int) -> Tensor:
        if self.start == "uniform":
            return self.threat.start(x, uniform(x, index, "start", self.seed, restart), model.bounds)
        if self.start == "input":
            return x
        size = self.threat.size if self.start_size is None else self.start_size
        drawn = normal(x, index, "start", self.seed, restart)
        move = drawn.sign() if self.start == "sign" else drawn
        return self.threat.project(x + size * move, x, model.bounds)
