"""The layers of a classifier: what each turns into what, and with how many parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import Tensor, nn

from snnrobust.attacks.guard import untouched
from snnrobust.experiment import Experiment
from snnrobust.randomness import isolated
from snnrobust.spiking.neuron import Neuron


@dataclass(frozen=True)
class Layer:
    """One layer; `shape` is that of its output for one sample."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int


def layers(model: nn.Module, shape: tuple[int, ...], device: torch.device) -> Iterator[Layer]:
    """Neurons and leaf modules in the order in which they run on one input of the given shape."""
    found: list[Layer] = []
    neurons = [module for module in model.modules() if isinstance(module, Neuron)]
    inside = {part for neuron in neurons for part in neuron.modules() if part is not neuron}
    names = {
        module: name
        for name, module in model.named_modules()
        if module not in inside and (isinstance(module, Neuron) or not [*module.children()])
    }

    def record(module: nn.Module, _inputs: object, output: Tensor) -> None:
        count = sum(p.numel() for p in module.parameters())
        found.append(Layer(names[module], type(module).__name__, tuple(output.shape), count))

    handles = [module.register_forward_hook(record) for module in names]
    try:
        with untouched(model), torch.no_grad(), isolated("describe"):
            model(torch.zeros(1, *shape, device=device))
    finally:
        for handle in handles:
            handle.remove()
    yield from found


def layers_table(experiment: Experiment) -> Table:
    """For the terminal; shapes are `T x N x ...` with one sample."""
    model = experiment.classifier()
    total = sum(p.numel() for p in model.parameters())
    shape = experiment.dataset.shape
    table = Table(title=f"input {'x'.join(map(str, shape))}, {total:,} parameters", title_justify="left")
    for column in ("layer", "kind"):
        table.add_column(column)
    for column in ("output", "parameters"):
        table.add_column(column, justify="right")
    for layer in layers(model, shape, experiment.device):
        output = " x ".join(map(str, layer.shape))
        table.add_row(layer.name, layer.kind, output, f"{layer.parameters:,}" if layer.parameters else "")
    return table
