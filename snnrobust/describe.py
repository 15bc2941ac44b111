"""What a classifier consists of and what it costs: layers, parameters, neurons, operations, memory.

Nothing is computed: networks are built and run on torch's meta device, where tensors have shapes and no content.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import torch
from rich.table import Table
from torch import Tensor, nn

from snnrobust.attacks.guard import untouched
from snnrobust.experiment import Experiment, untrained
from snnrobust.randomness import isolated
from snnrobust.spiking.activation import ReLU
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.neuron import Neuron
from snnrobust.training.settings import MakeOptimizer, TrainingSettings
from snnrobust.training.trial import refuse_unusable

META = torch.device("meta")
KERNELS = ("fused", "foreach", "capturable")
"""Settings of optimizers that need a device with content."""


@dataclass(frozen=True)
class Layer:
    """One layer.

    Args:
        name: dotted path of the module.
        kind: its class.
        shape: of its output for one sample.
        parameters: its own.
        neurons: spiking neurons, or activations in their place.
        macs: multiply-accumulate operations of a convolution or linear layer, per step and sample.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    neurons: int
    macs: int


def layers(model: nn.Module, shape: tuple[int, ...], device: torch.device) -> Iterator[Layer]:
    """Neurons and leaf modules in the order in which they run on one input of the given shape."""
    found: list[Layer] = []
    neurons = [module for module in model.modules() if isinstance(module, Neuron)]
    inside = {part for neuron in neurons for part in neuron.modules() if part is not neuron}
    names = {
        module: name
        for name, module in model.named_modules()
        if module not in inside and (isinstance(module, Neuron) or not [*module.children()])
        if not isinstance(module, nn.Sequential | nn.Identity)  # an empty one passes its input on
    }

    def record(module: nn.Module, _inputs: object, output: Tensor) -> None:
        count = sum(p.numel() for p in module.parameters())
        entries = output[0].numel()  # of one step of one sample
        fires = isinstance(module, Neuron | ReLU)
        macs = entries * _macs_per_entry(module)
        kind = type(module).__name__
        found.append(Layer(names[module], kind, tuple(output.shape), count, entries if fires else 0, macs))

    handles = [module.register_forward_hook(record) for module in names]
    try:
        with untouched(model), torch.no_grad(), isolated("describe"):
            model(torch.zeros(1, *shape, device=device))
    finally:
        for handle in handles:
            handle.remove()
    yield from found


def _macs_per_entry(module: nn.Module) -> int:
    """Of the output; what batch norm, pooling and neurons compute is not counted."""
    return module.weight[0].numel() if isinstance(module, nn.Conv2d | nn.Linear) else 0


@dataclass(frozen=True)
class Memory:
    """Bytes of a training step.

    Args:
        weights: parameters and buffers, twice where their average is kept as well.
        updates: gradients of the parameters and what the optimiser keeps.
        activations: what the forward pass keeps for the backward pass.
    """

    weights: int
    updates: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.updates + self.activations


def memory(model: nn.Module, shape: tuple[int, ...], settings: TrainingSettings, device: torch.device) -> Memory:
    """Memory of one training step on the clean inputs of a batch.

    What is kept is what autograd saves, each storage once: exact, but for passing results (the largest are of the size
    of one layer), for what the libraries need for themselves, and for further passes of defences and regularizers.
    Activations are counted in float32, with neurons of plain operations: compiled ones, on the CPU, keep less.

    Args:
        model: whose forward pass is run in training mode.
        shape: of one input.
        settings: batch size, optimizer and average.
        device: where the model lies.
    """
    parameters, buffers = sum(map(_size, model.parameters())), sum(map(_size, model.buffers()))
    own = {_place(tensor) for tensor in [*model.parameters(), *model.buffers()]}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _place(tensor) not in own:
            saved[_place(tensor)] = tensor  # which keeps its place from being given to another one
        return tensor

    probe = copy.deepcopy(model).requires_grad_()
    own |= {_place(tensor) for tensor in [*probe.parameters(), *probe.buffers()]}
    with isolated("describe"), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = probe.train()(torch.zeros(settings.batch_size, *shape, device=device))
    assert logits.requires_grad
    activations = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    copies = 1 if settings.ema is None else 2
    states = [value for state in _stepped(settings.optimizer, model).state.values() for value in state.values()]
    kept = sum(_size(value) for value in states if isinstance(value, Tensor) and value.dim())
    return Memory(copies * (parameters + buffers), parameters + kept, activations)


def _stepped(make: MakeOptimizer, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer after a first step, on the meta device: it keeps by then what it will keep."""
    if isinstance(make, partial):  # the same state, whatever the step is computed by
        make = partial(make.func, *make.args, **{k: v for k, v in make.keywords.items() if k not in KERNELS})
    parameters = [nn.Parameter(torch.empty_like(p, device=META)) for p in model.parameters()]
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    optimizer = make(parameters)
    with suppress(RuntimeError):  # of those that ask for the value of an entry, once the state is made
        optimizer.step()
    return optimizer


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _place(tensor: Tensor) -> int:
    """Which storage a tensor lies in; on the meta device there are no addresses to tell."""
    place: int = tensor.untyped_storage()._cdata
    return place


def without_content(experiment: Experiment) -> SpikingClassifier:
    """The classifier of an experiment on the meta device.

    Raises:
        ValueError: if the model does not fit the data.
    """
    with META:
        encoder = copy.deepcopy(experiment.encoder)
        return untrained(experiment.dataset, encoder, experiment.neuron, experiment.model, experiment.seed).to(META)


def layers_table(experiment: Experiment) -> Table:
    """For the terminal; shapes are those of one sample.

    Raises:
        ValueError: if the model does not fit the data, or cannot be trained by the optimizer and the schedule.
    """
    model = without_content(experiment)
    shape, settings = experiment.dataset.shape, experiment.training
    assert isinstance(settings, TrainingSettings)
    refuse_unusable(settings, model, experiment.device)
    found = [*layers(model, shape, META)]
    total = sum(p.numel() for p in model.parameters())
    need = memory(model, shape, settings, META)
    optimizer = type(_stepped(settings.optimizer, model)).__name__
    table = Table(
        title=f"input {'x'.join(map(str, shape))}, T = {experiment.encoder.steps}, {total:,} parameters",
        title_justify="left",
        caption=(
            f"neurons and multiply-accumulates (MAC) of one step. A training step on {settings.batch_size} samples "
            f"({optimizer}) takes about {_bytes(need.total)}: weights {_bytes(need.weights)}, gradients and "
            f"optimiser {_bytes(need.updates)}, activations {_bytes(need.activations)}"
        ),
        caption_justify="left",
        show_footer=True,
    )
    table.add_column("layer", "total", overflow="fold")
    table.add_column("kind")
    for column, footer in (
        ("output", ""),
        ("parameters", f"{total:,}"),
        ("neurons", f"{sum(layer.neurons for layer in found):,}"),
        ("MAC", _millions(sum(layer.macs for layer in found))),
    ):
        table.add_column(column, footer, justify="right")
    for layer in found:
        sample = 0 if layer.name == "normalize" else 1  # the dimension that counts samples
        output = "x".join(str(n) for place, n in enumerate(layer.shape) if place != sample)
        numbers = (f"{n:,}" if n else "" for n in (layer.parameters, layer.neurons))
        macs = _millions(layer.macs) if layer.macs else ""
        table.add_row(layer.name.removeprefix("backbone."), layer.kind, output, *numbers, macs)
    return table


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 1e5 else f"{count:,}"


def _bytes(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
