"""The synapses of a network: the weights of its convolutions and linear layers, which connectivity is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from snnrobust.spiking.neuron import Neuron


def weighted(model: nn.Module) -> Iterator[tuple[str, nn.Conv2d | nn.Linear]]:
    """Convolutions and linear layers with their names, in the order of the model; those inside neurons are left out."""
    inside = {id(part) for neuron in model.modules() if isinstance(neuron, Neuron) for part in neuron.modules()}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and id(module) not in inside:
            yield name, module


def synapses(model: nn.Module) -> dict[str, Tensor]:
    """The weights by the names of their layers; biases, batch norm and thresholds are no synapses."""
    return {name: module.weight for name, module in weighted(model)}


def densities(weights: Mapping[str, Tensor]) -> dict[str, float]:
    """By layer, the share of weights that are not zero."""
    return {name: int(weight.count_nonzero()) / weight.numel() for name, weight in weights.items()}


def sparsity(weights: Mapping[str, Tensor]) -> float:
    """The share of all weights together that are exactly zero; 0 for a network without synapses."""
    total = sum(weight.numel() for weight in weights.values())
    return 1 - sum(int(weight.count_nonzero()) for weight in weights.values()) / total if total else 0.0
