"""A forward pass on record: what every spiking layer received, held and sent, with the graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snnrobust.spiking.neuron import Neuron, Observer

NO_LAYERS = "regularizer: got a model without spiking layers; allowed: networks of snnrobust's own neurons"


@dataclass(frozen=True)
class Layer:
    """What one spiking layer did, `[T, N, ...]` each.

    Args:
        neuron: the layer.
        current: what charged its membranes.
        potential: `u`, before the reset.
        spikes: in {0, 1}.
    """

    neuron: Neuron
    current: Tensor
    potential: Tensor
    spikes: Tensor

    @property
    def distance(self) -> Tensor:
        """`u - threshold`."""
        return self.potential - self.neuron.dynamics.threshold


def per_layer(measure: Callable[..., Tensor], *passes: Sequence[Layer]) -> Tensor:
    """`[L]`: a number for every layer, from what it did in one pass, or in several passes of the same network.

    Raises:
        ValueError: if there is no layer.
    """
    if not passes[0]:
        raise ValueError(NO_LAYERS)
    return torch.stack([measure(*layers) for layers in zip(*passes, strict=True)])


@contextmanager
def recorded(model: object) -> Iterator[list[Layer]]:
    """Collects the spiking layers of every forward pass of `model` in its body, in the order in which they run.

    Such a pass consists of plain torch operations: slower than the compiled one, the same spikes, and what depends on
    it can be differentiated twice. A model without spiking layers leaves the list empty.
    """
    neurons = [m for m in model.modules() if isinstance(m, Neuron)] if isinstance(model, nn.Module) else []
    layers: list[Layer] = []
    before = [neuron.observer for neuron in neurons]
    try:
        for neuron in neurons:
            neuron.observer = _noting(neuron, layers)
        yield layers
    finally:
        for neuron, earlier in zip(neurons, before, strict=True):
            neuron.observer = earlier


def _noting(neuron: Neuron, layers: list[Layer]) -> Observer:
    return lambda current, potential, spikes: layers.append(Layer(neuron, current, potential, spikes))
