"""A layer of neurons and the 2x2 average pooling behind it as one: full-size spikes are never written to memory."""

from __future__ import annotations

from torch import Tensor, nn

from snnrobust.spiking import kernels
from snnrobust.spiking.neuron import Neuron


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
        if rule is None or not kernels.pools(self.neuron.dynamics, current):
            result: Tensor = self.pool(self.neuron(current))
            return result
        return self.neuron.fire(current, rule, kernels.fire_pooled)
