"""HART: the surrogate gradient of each step alone, averaged over time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from snnrobust.estimators.base import LayerEstimator, Rule, Trace
from snnrobust.settings import Positive
from snnrobust.spiking import surrogate as shapes
from snnrobust.spiking.dynamics import IntegrateAndFire


@dataclass(frozen=True)
class _Averaged(Rule):
    needs_membrane = True

    surrogate: shapes.Surrogate

    def backward(self, grad: Tensor, trace: Trace) -> Tensor:
        its = trace.membrane
        # With tau = 1 nothing is carried from step to step: backpropagation through time is then ds_k g(q_k).
        alone = replace(trace, dynamics=IntegrateAndFire(its.threshold, tau=1.0, detach_reset=True), summed=True)
        total = alone.through_time(grad, self.surrogate).sum(0, keepdim=True).mul_(its.gain)
        return total if trace.summed else total.div_(len(grad)).expand_as(grad)


@dataclass(frozen=True)
class HART(LayerEstimator):
    """`di_t = gain (1/T) sum_k ds_k g(u_k - threshold)` at every step, `g` the triangle (Hao et al. 2024).

    Args:
        width: of the triangle (the paper's gamma, which it tunes per model from 0.1 to 2.45).
    """

    width: Positive = 1.0

    def rule(self) -> Rule:
        return _Averaged(shapes.triangle(self.width))
