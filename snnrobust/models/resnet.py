"""Residual networks (He et al. 2016) of spiking neurons for small pictures, as several papers lay them out."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from snnrobust.models.layers import (
    BatchNorm1d,
    Flatten,
    Linear,
    average_read_out,
    begin_convolutions,
    begin_linear_biases,
    normalised,
    pooling,
)
from snnrobust.models.residual import ConvexCombination, Place, Residual, Sum, basic, places, projection
from snnrobust.settings import PositiveInt
from snnrobust.spiking.neuron import NeuronFactory


class ResNet(nn.Module):
    """3x3 convolution, batch norm, neuron; basic blocks, each with a neuron after the sum; a read-out.

    `[T, N, C, H, W]` to logits `[T, N, K]`. The default is the ResNet-18 of PDSG (11,173,962 parameters on 3x32x32
    and 10 classes). Weights begin as `layers.py` says.

    Args:
        shape: `(C, H, W)` of one step of the input.
        classes: K.
        neuron: called once per spiking layer.
        blocks: of each stage.
        strides: of the first block of each stage.
        width: channels of the first convolution and the first stage; each stage has twice as many as the one before.
        join: of a block and its shortcut: their sum, or a convex combination with learnable shares.
        projection: 1x1 convolution and batch norm in the shortcut where shapes change, or of the first block of every
            stage.
        hidden: None: the average over the picture is read out; else 2x2 average pooling and a linear layer of that size
            with batch norm and without neurons come before the read-out (RGA, HART).
        bias: whether the linear layers have biases.

    Raises:
        ValueError: if `strides` does not belong to `blocks`, or the input is too small for the last pooling.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        neuron: NeuronFactory,
        blocks: tuple[PositiveInt, ...] = (2, 2, 2, 2),
        strides: tuple[PositiveInt, ...] = (1, 2, 2, 2),
        width: PositiveInt = 64,
        join: Literal["sum", "convex"] = "sum",
        projection: Literal["changed", "first"] = "changed",
        hidden: PositiveInt | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if len(strides) != len(blocks):
            raise ValueError(
                f"model.strides: got {len(strides)} of them; allowed: one for each of {len(blocks)} stages"
            )
        found = [*places(width, width, blocks, strides)]
        channels = found[-1].inside if found else width
        self.stem = nn.Sequential(*normalised(shape[0], width), neuron())
        joined = {"sum": Sum, "convex": ConvexCombination}[join]
        self.blocks = nn.Sequential(*(_block(place, neuron, joined(), projection) for place in found))
        if hidden is None:
            self.classifier = nn.Sequential(*average_read_out(channels, classes, bias))
        else:
            self.classifier = nn.Sequential(*_two_layers(channels, _left(shape, strides), hidden, classes, bias))
        begin_convolutions(self)
        begin_linear_biases(self)

    def forward(self, sequence: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.blocks(self.stem(sequence)))
        return logits


def _block(place: Place, neuron: NeuronFactory, join: nn.Module, where: Literal["changed", "first"]) -> Residual:
    body = nn.Sequential(*basic(place, neuron))
    always = where == "first" and place.first
    shortcut = normalised(place.before, place.inside, 1, place.stride) if always else projection(place)
    return Residual(body, nn.Sequential(*shortcut), join, neuron())


def _left(shape: tuple[int, int, int], strides: tuple[int, ...]) -> tuple[int, int]:
    """Height and width after all stages; a strided convolution rounds up."""
    _, height, width = shape
    for stride in strides:
        height, width = -(-height // stride), -(-width // stride)
    return height, width


def _two_layers(channels: int, left: tuple[int, int], hidden: int, classes: int, bias: bool) -> list[nn.Module]:
    height, width = left
    if min(height, width) < 2:
        raise ValueError(f"model.strides: got {height}x{width} before the last 2x2 pooling; allowed: at least 2x2")
    return [
        pooling("avg", 2, 2),
        Flatten(),
        Linear(channels * (height // 2) * (width // 2), hidden, bias=bias),
        BatchNorm1d(hidden),
        Linear(hidden, classes, bias=bias),
    ]
