"""ASSG: a surrogate derivative whose sharpness follows every potential from one gradient to the next."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from snnrobust.estimators.base import REPEATING, LayerEstimator, Rule, Trace, View, neurons_of
from snnrobust.settings import BelowHalf, Fraction, NonNegative
from snnrobust.spiking.classifier import Classifier


@dataclass(frozen=True)
class ASSG(LayerEstimator):
    """Backpropagation through time with an arctangent of sharpness `alpha = k / (M + rho D + 1e-4)` at every potential
    (Wang et al. 2026).

    M and D follow `|q|` and its deviation from M, by step, sample and neuron, beginning with 1 and 0:
    `M <- beta1 M + (1 - beta1) |q|`; `D <- beta2 D + (1 - beta2) | |q| - M |`; once per gradient, not during its
    repetitions at the same point. A batch of another shape than the last one begins anew.

    Args:
        a: half the integral of the derivative over `|q| <= M + rho D`, below 0.5; the larger, the sharper.
        beta1: memory of M.
        beta2: memory of D.
        rho: weight of D.

    Raises:
        ValueError: if `a` is not below 0.5.
    """

    a: BelowHalf = 0.43
    beta1: Fraction = 0.9
    beta2: Fraction = 0.9
    rho: NonNegative = 1.5

    def __post_init__(self) -> None:
        if not 0 < self.a < 0.5:
            raise ValueError(f"a: got {self.a:g}; allowed: above 0 and below 0.5")

    @property
    def sharpness(self) -> float:
        """`k = (2 / pi) tan(pi a)`."""
        return 2 / math.pi * math.tan(math.pi * self.a)

    def rule(self) -> _Memory:
        return _Memory(self)

    @contextmanager
    def applied(self, model: Classifier) -> Iterator[Classifier]:
        with super().applied(model) as view:
            rules = [neuron.rule for neuron in neurons_of(model, type(self).__name__)]
            memories = [rule for rule in rules if isinstance(rule, _Memory)]

            def call(x: Tensor) -> Tensor:
                # Read here, since backward passes may run on other threads, which do not see the variable.
                for memory in memories:
                    memory.fixed = REPEATING.get()
                return view(x)

            yield View(model, call)


class _Memory(Rule):
    """M and D of one layer, `[T, N, ...]` each."""

    def __init__(self, settings: ASSG) -> None:
        self.settings = settings
        self.fixed = False
        self.mean: Tensor | None = None
        self.deviation: Tensor | None = None

    def backward(self, grad: Tensor, trace: Trace) -> Tensor:
        q, its = trace.distance, self.settings
        mean, deviation = self._followed(q)
        alpha = torch.add(mean, deviation, alpha=its.rho).add_(1e-4).reciprocal_().mul_(its.sharpness)
        slope = alpha / q.mul_(alpha).mul_(math.pi / 2).square_().add_(1).mul_(2)
        return trace.through_time(grad, slope=slope)

    def _followed(self, q: Tensor) -> tuple[Tensor, Tensor]:
        if self.mean is None or self.deviation is None or self.mean.shape != q.shape:
            self.mean, self.deviation = torch.ones_like(q), torch.zeros_like(q)
        if not self.fixed:
            size = q.abs()
            self.mean.lerp_(size, 1 - self.settings.beta1)
            self.deviation.lerp_(size.sub_(self.mean).abs_(), 1 - self.settings.beta2)
        return self.mean, self.deviation
