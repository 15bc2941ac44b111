"""PDSG: a surrogate derivative whose width follows the potentials."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from snnrobust.estimators.base import LayerEstimator, Rule, Trace

_Over = Literal["sample", "batch"]
SHIFT = 0.5
"""Of the mean from the threshold, in units of sigma."""


@dataclass(frozen=True)
class _FollowingPotential(Rule):
    over: _Over

    def backward(self, grad: Tensor, trace: Trace) -> Tensor:
        sigma = spread(trace.potential, self.over)
        z = (trace.distance - SHIFT * sigma).div_(sigma)
        slope = z.square_().mul_(-0.5).exp_().mul_(1 / (math.sqrt(2 * math.pi) * sigma))
        return trace.through_time(grad, slope=slope)


@dataclass(frozen=True)
class PDSG(LayerEstimator):
    """Backpropagation through time, `g` the density of a normal distribution `N(sigma / 2, sigma^2)` (Lun et al. 2025).

    `sigma` is the standard deviation of the potentials up to the step: see `spread`.

    Args:
        over: `sample`: of each sample by itself; `batch`: of all samples together, as published, which makes the
            gradient of a sample depend on its neighbours.
    """

    over: Literal["sample", "batch"] = "sample"

    def rule(self) -> Rule:
        return _FollowingPotential(self.over)


def spread(potential: Tensor, over: _Over) -> Tensor:
    """Standard deviation (unbiased) of the potentials `[T, N, ...]` up to each step; broadcasts over them.

    Taken over time and space, per channel (`[T, N, C, ...]`); in layers without space, `[T, N, K]`, over time and
    features per sample, or over time and batch per feature. 1 where it is zero up to rounding, or of a single value.
    """
    spatial = [*range(3, potential.dim())]
    dims = [*([1] if over == "batch" else []), *(spatial or ([2] if over == "sample" else []))]
    values = math.prod(potential.shape[d] for d in dims)
    # Each step by itself, then put together: nothing large is summed up and subtracted again.
    variance, mean = torch.var_mean(potential, dims, correction=0, keepdim=True)
    variance, mean = variance.double(), mean.double()
    steps = torch.arange(1, len(potential) + 1, device=potential.device).view(-1, *[1] * (mean.dim() - 1))
    centre = mean.cumsum(0) / steps
    between = (mean.square().cumsum(0) - steps * centre.square()).clamp_min(0)
    count = values * steps
    sigma = ((variance.cumsum(0) + between) * values / (count - 1).clamp_min(1)).sqrt().to(potential.dtype)
    rounding = torch.finfo(potential.dtype).eps * (1 + centre.abs())
    return torch.where(sigma > rounding, sigma, 1.0)
