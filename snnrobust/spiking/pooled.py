"""A layer of neurons and the 2x2 average pooling behind it as one: full-size spikes are never written to memory."""

from __future__ import annotations

from itertools import zip_longest

from torch import Tensor, nn

from snnrobust.spiking import kernels
from snnrobust.spiking.neuron import Neuron


def halves(layer: nn.Module | None) -> bool:
    """True for plain average pooling over 2x2 entries."""
    if not isinstance(layer, nn.AvgPool2d) or layer.divisor_override is not None:
        return False
    two = (2, (2, 2))
    return layer.kernel_size in two and layer.stride in two and layer.padding in (0, (0, 0))


def joined(neuron: nn.Module, current: Tensor) -> Tensor | None:
    """The spikes of a layer, averaged over 2x2 entries, by one kernel; None where there is none that fits."""
    if not isinstance(neuron, Neuron):
        return None
    rule = neuron.rule_for(current)
    if rule is None or not kernels.pools(neuron.dynamics, current):
        return None
    return neuron.fire(current, rule, kernels.fire_pooled)


class Pooled(nn.Module):
    """`pool(neuron(current))` for a 2x2 average pooling; as one kernel where there is one that fits.

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
        spikes = joined(self.neuron, current)
        if spikes is None:
            pooled: Tensor = self.pool(self.neuron(current))
            return pooled
        return spikes


class Chain(nn.Sequential):
    """Layers one after the other; neurons and the pooling behind them as in `Pooled`, under names of their own.

    Layers that somebody watches (forward hooks) run by themselves.
    """

    def forward(self, sequence: Tensor) -> Tensor:
        done = False
        for layer, following in zip_longest(self, [*self][1:]):
            if done:
                done = False
                continue
            both = joined(layer, sequence) if halves(following) and not _watched(layer, following) else None
            done = both is not None
            sequence = layer(sequence) if both is None else both
        return sequence


def _watched(*layers: nn.Module) -> bool:
    return any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)
