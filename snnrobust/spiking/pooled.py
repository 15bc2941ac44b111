"""A layer of neurons and the 2x2 average pooling behind it as one: full-size spikes are never written to memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snnrobust.spiking import kernels
from snnrobust.spiking.neuron import Neuron, Rule, Trace


class _FirePooled(torch.autograd.Function):
    """Current `[T or 1, N, C, H, W]` to pooled spikes `[T, N, C, H / 2, W / 2]`, differentiated by a rule."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, steps: int, neuron: Neuron, rule: Rule) -> Tensor:
        potential, pooled = kernels.fire_pooled(current, steps, neuron.dynamics)
        ctx.save_for_backward(potential, current.mean(0) if rule.needs_current else None)
        ctx.neuron, ctx.rule, ctx.summed = neuron, rule, len(current) == 1 < steps
        return pooled

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        potential, mean_current = ctx.saved_tensors
        trace = Trace(potential, mean_current, ctx.neuron.dynamics, ctx.neuron.surrogate, ctx.summed)
        result = ctx.rule.backward(grad if ctx.rule.pooled else _spread(grad), trace).to(grad.dtype)
        if ctx.summed and len(result) > 1:
            result = result.sum(0, keepdim=True)
        return result, None, None, None


def _spread(grad: Tensor) -> Tensor:
    """The gradient of average pooling: a quarter for each of the four entries."""
    spread: Tensor = F.interpolate(grad.flatten(0, 1) * 0.25, scale_factor=2.0, mode="nearest")
    full: Tensor = spread.unflatten(0, grad.shape[:2])
    return full


class Pooled(nn.Module):
    """`pool(neuron(current))` for a 2x2 average pooling; as one kernel while a rule is applied and the shape allows it.

    Args:
        neuron: whose rule decides.
        pool: what follows it, on `[T, N, C, H, W]`.
    """

    def __init__(self, neuron: Neuron, pool: nn.Module) -> None:
        super().__init__()
        self.neuron = neuron
        self.pool = pool

    def forward(self, current: Tensor) -> Tensor:
        # An estimator may have put another module in the neuron's place.
        rule = self.neuron.rule if isinstance(self.neuron, Neuron) else None
        if rule is None or not kernels.pools(current):
            result: Tensor = self.pool(self.neuron(current))
            return result
        steps = len(current)
        constant = steps > 1 and current.stride(0) == 0
        pooled: Tensor = _FirePooled.apply(current[:1] if constant else current, steps, self.neuron, rule)
        return pooled
