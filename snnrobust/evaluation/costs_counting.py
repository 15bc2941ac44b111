"""Synaptic operations: how many connections the spikes of a network run along, counted exactly.

A neuron's outgoing synapses are the pairs of it and an output that a weight other than zero joins: borders, strides,
groups and the pooling in between are all in the count. It is made with a copy of the network that knows no time. Its
neurons send the totals that were recorded of them, its convolutions and linear layers count and send nothing, since
currents are no spikes:

- a max pooling passes on the totals recorded of it; so does a gate that is drawn;
- an average pooling adds: a spike reaches the cell it is averaged into, and goes on from there;
- sums add: where the spikes of a block and of its shortcut coincide, there are two;
- normalisation, dropout, and gates that only scale pass on what they get.

Not counted are what has no weights, as identity shortcuts and pooling, and the connections inside a layer of neurons.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snnrobust.evaluation.costs_traffic import Traffic, leading_dimensions
from snnrobust.models.residual import ConvexCombination, Sum
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.drawing import Drawing
from snnrobust.spiking.neuron import Neuron
from snnrobust.spiking.neurons.shaped import ShapedParameter
from snnrobust.spiking.synapses import weighted

PASSING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, Drawing, ShapedParameter)
"""What has parameters, or draws, and passes on what it gets; neurons and drawn gates are among the last two."""


@dataclass
class Count:
    """Of one convolution or linear layer.

    Args:
        spiking: spikes arrive, at least they could; otherwise its input is analog.
        operations: pairs of a spike and a weight other than zero, over all samples and steps.
        dense_operations: the same, were no weight zero.
        pairs: pairs of an input entry and a weight other than zero, at one step of one sample.
        entries: of its input, at one step of one sample.
    """

    spiking: bool = False
    operations: float = 0.0
    dense_operations: float = 0.0
    pairs: int = 0
    entries: int = 0


def uncounted(model: SpikingClassifier) -> list[str]:
    """Modules with parameters that nobody here knows how to count; those inside neurons are no synapses."""
    inside = {id(part) for neuron in model.modules() if isinstance(neuron, Neuron) for part in neuron.modules()}
    known = (nn.Conv2d, nn.Linear, ConvexCombination, *PASSING)
    return [
        f"{name} ({type(module).__name__})"
        for name, module in model.backbone.named_modules()
        if id(module) not in inside and not isinstance(module, known) and [*module.parameters(recurse=False)]
    ]


def counts(model: SpikingClassifier, found: Traffic) -> Mapping[str, Count]:
    """By convolution or linear layer, from what was sent through the network in eval mode.

    Computed on the CPU, in double precision; every sum is one of integers, and exact up to 2^53.
    """
    made = {name: Count() for name, _ in weighted(model)}
    instead = {id(layer): _Counting(layer, made[name]) for name, layer in weighted(model)}
    inner = (
        (name, module) for name, module in model.named_modules() if id(module) not in instead and module is not model
    )
    replaced: dict[int, nn.Module] = {id(module): new for name, module in inner if (new := _new(name, module, found))}
    network: nn.Module = copy.deepcopy(model.backbone, {**replaced, **instead})
    one = torch.ones(found.shape, dtype=torch.float64)
    rows = torch.zeros(2, *found.shape, dtype=torch.float64)
    if found.code is not None:
        rows = torch.stack([found.code, one])
    with torch.no_grad():
        network(rows.unsqueeze(0))
    return made


def _new(name: str, module: nn.Module, found: Traffic) -> nn.Module | None:
    """What stands for a module in the copy that counts; None if the module itself does."""
    leading = leading_dimensions(module)
    if leading is not None:
        return _Sending(found.sent.get(name, ()), leading, always=isinstance(module, Neuron))
    if isinstance(module, nn.AvgPool2d):
        return _SumPool(module)
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return _AdaptiveSumPool(module)
    if isinstance(module, ConvexCombination):
        return Sum()
    return nn.Identity() if isinstance(module, PASSING) else None


class _Sending(nn.Module):
    """Two rows, whatever arrives: the recorded totals, and ones, which show where spikes can get to.

    Args:
        totals: for each call in a forward pass.
        leading: see `leading_dimensions`.
        always: it makes the spikes itself; otherwise it sends nothing where none can arrive.
    """

    def __init__(self, totals: Sequence[Tensor], leading: int, always: bool) -> None:
        super().__init__()
        self.totals = iter(totals)
        self.leading = leading
        self.always = always

    def forward(self, x: Tensor) -> Tensor:
        total = next(self.totals)
        rows = torch.stack([total, torch.ones_like(total)])
        if not (self.always or x.any()):
            rows = torch.zeros_like(rows)
        return rows.view(*x.shape[: self.leading], *total.shape)


class _Counting(nn.Module):
    """A convolution or linear layer that counts what arrives, and sends zeros."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, count: Count) -> None:
        super().__init__()
        self.layer = layer
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        place = -3 if isinstance(self.layer, nn.Conv2d) else -1
        recorded, reached = x.reshape(2, -1, *x.shape[place:])
        count, mask = self.count, (self.layer.weight.detach() != 0).cpu().double()
        count.spiking |= bool(reached.any())
        sent = self._passed(recorded, mask)
        count.operations += float(sent.sum())
        count.dense_operations += float(self._passed(recorded, torch.ones_like(mask)).sum())
        count.pairs += int(self._passed(torch.ones_like(recorded), mask).sum())
        count.entries += recorded.numel()
        return x.new_zeros(*x.shape[:place], *sent.shape[1:])

    def _passed(self, x: Tensor, weight: Tensor) -> Tensor:
        if isinstance(self.layer, nn.Conv2d):
            passed: Tensor = self.layer._conv_forward(x, weight, None)  # with its padding, whatever the mode
            return passed
        return F.linear(x, weight)


class _SumPool(nn.Module):
    """The sum in the place of the average."""

    def __init__(self, pool: nn.AvgPool2d) -> None:
        super().__init__()
        self.settings = (pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)

    def forward(self, x: Tensor) -> Tensor:
        size, stride, padding, ceil = self.settings
        pooled = F.avg_pool2d(x.flatten(0, -4), size, stride, padding, ceil, divisor_override=1)
        return pooled.view(*x.shape[:-3], *pooled.shape[1:])


class _AdaptiveSumPool(nn.Module):
    """The sum in the place of the average, over windows that may overlap by one."""

    def __init__(self, pool: nn.AdaptiveAvgPool2d) -> None:
        super().__init__()
        size = pool.output_size
        self.size = size if isinstance(size, tuple) else (size, size)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (_windows(n, out or n).to(x) for n, out in zip(x.shape[-2:], self.size, strict=True))
        return rows @ x @ columns.T


def _windows(size: int, out: int) -> Tensor:
    """`[out, size]`: 1 where an entry belongs to a window, as torch's adaptive pooling has them."""
    place, window = torch.arange(size), torch.arange(out).unsqueeze(1)
    first, after = window * size // out, -(-(window + 1) * size // out)
    return (place >= first) & (place < after)
