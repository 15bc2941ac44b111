"""Spiking networks in the Neuromorphic Intermediate Representation (Pedersen et al. 2024, arXiv 2311.14641).

NIR's neurons live in continuous time: `dv/dt = r i` (IF) and `tau dv/dt = (v_leak - v) + r i` (LIF). Our steps are
those of forward Euler with a step of `DT` seconds, `v + DT dv/dt`, for these parameters:

    IF                            r = 1/DT
    LIF, decay_input: false       tau = DT * tau in steps, r = tau in steps
    LIF, decay_input: true        the same tau, r = 1

`v_leak` and `v_reset` are 0. Two things NIR leaves open, or sees in another way, stand in the metadata of the graph: a
neuron here fires where `v >= v_threshold`, by NIR's definition where it is above, which is the same but for potentials
that are exactly there; and the output of the graph is that of the read-out at every step, whose mean over `steps` steps
is the logits.

Batch norm is folded into the layer before it. Where there is none it is a 1x1 convolution with a diagonal matrix, since
NIR's types know no groups of channels; so is the normalisation of the input. Values that are added are edges into one
node. Average pooling counts padded zeros, as torch's does.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import nir
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from snnrobust.exporting.dataflow import INPUT, Step, steps
from snnrobust.models.residual import ConvexCombination, Sum
from snnrobust.spiking.activation import ReLU
from snnrobust.spiking.classifier import Normalize, SpikingClassifier
from snnrobust.spiking.dynamics import IntegrateAndFire, ParametricLeak
from snnrobust.spiking.encoder import Direct, Encoder, Frames
from snnrobust.spiking.fuse import folded
from snnrobust.spiking.neuron import IF, LIF, Neuron
from snnrobust.spiking.neurons.plif import PLIF
from snnrobust.spiking.neurons.trainable_threshold import TrainableThreshold

DT = 1e-4
"""Seconds; the step that programs which read NIR assume unless told otherwise."""
NEURONS = {IF: "if", LIF: "lif", PLIF: "plif", TrainableThreshold: "trainable_threshold"}
OUTPUT, NORMALISED = "output", "normalised"
Shape = tuple[int, ...]


def graph_of(model: SpikingClassifier, shape: tuple[int, int, int], about: Mapping[str, str]) -> nir.NIRGraph:
    """The network as a graph, from inputs within the classifier's bounds to what the read-out says at every step.

    Args:
        model: with weights on the CPU; left as it was.
        shape: `(C, H, W)` of one step of the input.
        about: goes into the metadata.

    Raises:
        ValueError: in one line that begins with the setting, if NIR has no counterpart of a part of the model.
    """
    metadata = {"dt": DT, "steps": model.encoder.steps, "input": _input(model.encoder), **about}
    metadata |= {"fires": "v >= v_threshold", "logits": "mean of the output over the steps"}
    made = _Made(shape)
    backbone = folded(model).backbone
    made.normalise(model.normalize)
    for step in steps(backbone, shape):
        made.add(step)
    made.end(step)
    return nir.NIRGraph(nodes=made.nodes, edges=made.edges, metadata=metadata)


def _input(encoder: Encoder) -> str:
    """What is shown to the network."""
    kinds = {Direct: "the same picture at every step", Frames: "one frame of events per step"}
    if type(encoder) not in kinds:
        raise ValueError(f"encoder: got {type(encoder).__name__}; allowed for nir: direct, frames")
    return kinds[type(encoder)]


class _Made:
    """The graph as far as it is made.

    `sources` says of the result of a step which nodes it is the sum of.
    """

    def __init__(self, shape: Shape) -> None:
        self.nodes: dict[str, nir.NIRNode] = {INPUT: nir.Input(input_type={"input": np.array(shape)})}
        self.edges: list[tuple[str, str]] = []
        self.sources: dict[str, tuple[str, ...]] = {INPUT: (INPUT,)}
        self.shapes: dict[str, Shape] = {INPUT: shape}

    def normalise(self, normalize: Normalize) -> None:
        if (normalize.mean == 0).all() and (normalize.std == 1).all():
            return
        scale = 1 / normalize.std.flatten()
        self._node(NORMALISED, _scaled(scale, -normalize.mean.flatten() * scale, self.shapes[INPUT]), (INPUT,))
        self.sources[INPUT] = (NORMALISED,)

    def add(self, step: Step) -> None:
        inputs = [self.sources[name] for name in step.inputs]
        self.shapes[step.name] = step.shape
        if isinstance(step.layer, Sum):
            self.sources[step.name] = _added(step.name, inputs)
        elif isinstance(step.layer, ConvexCombination):
            shares = [float(share) for share in step.layer.shares]
            names = [f"{step.name}_{number}" for number in range(len(shares))]
            for name, share, sources in zip(names, shares, inputs, strict=True):
                self._node(name, nir.Scale(np.full(step.shape, share, np.float32)), sources)
            self.sources[step.name] = tuple(names)
        elif isinstance(step.layer, nn.Identity | nn.Dropout):
            (self.sources[step.name],) = inputs
        else:
            (sources,), (before,) = inputs, step.inputs
            self._node(step.name, _node_of(step.layer, self.shapes[before], step.shape), sources)
            self.sources[step.name] = (step.name,)

    def end(self, last: Step) -> None:
        self._node(OUTPUT, nir.Output(output_type={"output": np.array(last.shape)}), self.sources[last.name])

    def _node(self, name: str, node: nir.NIRNode, sources: Sequence[str]) -> None:
        assert name not in self.nodes, name
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]


def _added(name: str, inputs: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    sources = tuple(source for several in inputs for source in several)
    if len({*sources}) < len(sources):
        raise ValueError(f"model: {name} adds something to itself, which no edges say")
    return sources


def _node_of(layer: nn.Module, before: Shape, after: Shape) -> nir.NIRNode:
    match layer:
        case Neuron() | ReLU():
            return _neuron(layer, after)
        case nn.Conv2d():
            return _convolution(layer, before)
        case nn.Linear(bias=None):
            return nir.Linear(_array(layer.weight))
        case nn.Linear():
            return nir.Affine(_array(layer.weight), _array(layer.bias))
        case nn.BatchNorm2d():
            return _batch_norm(layer, before)
        case nn.AvgPool2d(ceil_mode=False, count_include_pad=True, divisor_override=None):
            return nir.AvgPool2d(_pair(layer.kernel_size), _pair(layer.stride), _pair(layer.padding))
        case nn.AdaptiveAvgPool2d(output_size=1):
            return nir.AvgPool2d(_pair(before[1:]), _pair(before[1:]), _pair(0))
        case nn.Flatten(start_dim=1, end_dim=-1):
            return nir.Flatten(input_type={"input": np.array(before)}, start_dim=0, end_dim=-1)
        case nn.MaxPool2d():
            raise ValueError("model.pool: got max, which NIR lacks; allowed for nir: avg")
    raise ValueError(f"model: has a layer {type(layer).__name__}, which NIR lacks")


def _neuron(neuron: nn.Module, shape: Shape) -> nir.NIRNode:
    if type(neuron) not in NEURONS:
        raise ValueError(f"neuron: got {type(neuron).__name__}; allowed for nir: {', '.join(NEURONS.values())}")
    its = neuron.dynamics
    assert isinstance(its, IntegrateAndFire | ParametricLeak)
    if its.reset != "hard":
        raise ValueError(f"neuron.reset: got {its.reset}, which NIR lacks; allowed for nir: hard")

    def everywhere(value: float) -> npt.NDArray[np.float64]:
        return np.full(shape, value, np.float64)  # so that tau / DT is what it was

    fired = {"v_threshold": everywhere(float(its.threshold)), "v_reset": everywhere(0.0)}
    tau = its.tau if isinstance(its, IntegrateAndFire) else 1 / float(its.decay)
    if tau is None:
        return nir.IF(r=everywhere(1 / DT), **fired)
    resistance = 1.0 if its.decay_input else tau
    return nir.LIF(tau=everywhere(tau * DT), r=everywhere(resistance), v_leak=everywhere(0.0), **fired)


def _convolution(layer: nn.Conv2d, before: Shape) -> nir.NIRNode:
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise ValueError("model: has a convolution that pads with something else than a number of zeros")
    bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias
    sizes = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    shown = {"input_shape": before[1:], "weight": _array(layer.weight), "bias": _array(bias)}
    return nir.Conv2d(**shown, **{name: _pair(size) for name, size in sizes.items()}, groups=layer.groups)


def _batch_norm(layer: nn.BatchNorm2d, before: Shape) -> nir.NIRNode:
    """That of evaluation, which no convolution comes before."""
    if layer.running_mean is None or layer.running_var is None:
        raise ValueError("model: has a batch norm without running statistics, which NIR lacks")
    scale = (layer.running_var + layer.eps).rsqrt()
    scale = scale if layer.weight is None else scale * layer.weight
    shift = -layer.running_mean * scale
    shift = shift if layer.bias is None else shift + layer.bias
    return _scaled(scale, shift, before)


def _scaled(scale: Tensor, shift: Tensor, before: Shape) -> nir.NIRNode:
    """Each channel times a number, and another number added: a convolution."""
    one, none, weight = _pair(1), _pair(0), torch.diag(scale)[:, :, None, None]
    return nir.Conv2d(before[1:], _array(weight), one, none, one, 1, _array(shift))


def _pair(size: int | Sequence[int]) -> npt.NDArray[np.int64]:
    return np.broadcast_to(np.asarray(size), 2).copy()


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.detach().float().contiguous().numpy()
    return array


def content_of(graph: nir.NIRGraph) -> bytes:
    """The graph as the content of a file, which reads back as the same.

    Raises:
        ValueError: if it does not.
    """
    file = io.BytesIO()
    nir.write(file, graph)
    content = file.getvalue()
    if not same_graph(nir.read(io.BytesIO(content)), graph):
        raise ValueError("format: nir reads back another graph than it was given")
    return content


def same_graph(a: nir.NIRGraph, b: nir.NIRGraph) -> bool:
    """True if nodes, edges, metadata and every entry of every array are the same."""
    return _same(a.to_dict(), b.to_dict())


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    first, second = np.asarray(a), np.asarray(b)
    if first.dtype.kind == "f" and first.dtype == second.dtype and first.shape == second.shape:
        return first.tobytes() == second.tobytes()
    return np.array_equal(first, second)
