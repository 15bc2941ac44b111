"""Gradients of the firing rate, without a path through time: BPTR and the rate gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snnrobust.estimators.base import LayerEstimator, Rule, Trace
from snnrobust.settings import Fraction
from snnrobust.spiking.dynamics import Number


class _Fired(Rule):
    needs_membrane = True

    def backward(self, grad: Tensor, trace: Trace) -> Tensor:
        its = trace.membrane
        fired = trace.potential.amax(0) >= its.threshold
        return _summed(grad, trace) * fired.to(grad.dtype).mul_(its.gain)


@dataclass(frozen=True)
class BPTR(LayerEstimator):
    """`di_t = gain ds_t [the neuron fired at any step]` (Ding et al. 2022, "backpropagation through rate")."""

    def rule(self) -> Rule:
        return _Fired()


@dataclass(frozen=True)
class _RateSlope(Rule):
    needs_current = True
    needs_membrane = True
    gamma: float

    def backward(self, grad: Tensor, trace: Trace) -> Tensor:
        assert trace.mean_current is not None
        its = trace.membrane
        # Divided by the threshold, the neuron has threshold one and the current (gain / threshold) i.
        scale = its.gain / its.threshold
        slope = rate_slope(trace.mean_current * scale, its.leak, self.gamma)
        return _summed(grad, trace) * slope.mul_(scale)


@dataclass(frozen=True)
class RateGradient(LayerEstimator):
    """`di_t = ds_t phi'(mean_k i_k)`, `phi` the rate of a neuron as a function of its mean current.

    Bu et al. 2023 (RGA). `phi` runs linearly from (0, 0) over (1 - leak, gamma (1 - leak)) to (2, 1), in units of
    `threshold / gain`. A leak that changes from step to step counts by its mean, limited to [0, 1]; connections between
    the neurons of a layer do not count.

    Args:
        gamma: slope of the first piece, where a current is too small to reach the threshold.
    """

    gamma: Fraction = 0.2

    def rule(self) -> Rule:
        return _RateSlope(self.gamma)


def rate_slope(current: Tensor, leak: Number, gamma: float) -> Tensor:
    """`phi'` of a neuron with threshold and gain 1: gamma on [0, 1 - leak), then up to 2 what makes its integral 1."""
    knee = 1.0 - leak
    steep = (1.0 - gamma * knee) / (1.0 + leak)
    slope = torch.zeros_like(current).add_(steep).masked_fill_(current < knee, gamma)
    return slope.mul_((current >= 0) & (current < 2))


def _summed(grad: Tensor, trace: Trace) -> Tensor:
    """The gradient, summed over time where that is all that is asked for."""
    return grad.sum(0, keepdim=True) if trace.summed else grad
