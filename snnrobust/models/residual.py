"""Residual blocks of spiking networks, and where they stand in a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from snnrobust.models.layers import normalised, pooling
from snnrobust.spiking.neuron import NeuronFactory


class Sum(nn.Module):
    """`a + b`."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class ConvexCombination(nn.Module):
    """`c_0 a + c_1 b` with learnable scalars that begin at 1/2 each; training may move them anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.shares = nn.Parameter(torch.full((2,), 0.5))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.shares[0] * a + self.shares[1] * b


class Residual(nn.Module):
    """`out(join(shortcut(x), body(x)))` on `[T, N, C, H, W]`.

    Args:
        body: the longer way.
        shortcut: the shorter one.
        join: of the results of both ways, the shortcut first.
        out: what becomes of it.
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module, join: nn.Module, out: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.join = join
        self.out = out

    def forward(self, x: Tensor) -> Tensor:
        body = self.body(x)
        result: Tensor = self.out(self.join(self.shortcut(x), body))
        return result


@dataclass(frozen=True)
class Place:
    """Where a block stands: channels before and inside it, stride, and whether it is the first of its stage."""

    before: int
    inside: int
    stride: int
    first: bool


def places(
    before: int, width: int, blocks: Sequence[int], strides: Sequence[int], expansion: int = 1
) -> Iterator[Place]:
    """The blocks of all stages in order; each stage has twice the channels of the one before.

    Args:
        before: channels that the first block sees.
        width: channels inside the blocks of the first stage.
        blocks: of each stage.
        strides: of the first block of each stage.
        expansion: a block ends with that many times its inner channels.
    """
    for stage, (count, stride) in enumerate(zip(blocks, strides, strict=True)):
        inside = width << stage
        for number in range(count):
            yield Place(before, inside, stride if number == 0 else 1, number == 0)
            before = inside * expansion


def basic(place: Place, neuron: NeuronFactory) -> list[nn.Module]:
    """3x3 convolution, batch norm, neuron, 3x3 convolution, batch norm; the first one is strided."""
    first = normalised(place.before, place.inside, stride=place.stride)
    return [*first, neuron(), *normalised(place.inside, place.inside)]


def bottleneck(place: Place, neuron: NeuronFactory) -> list[nn.Module]:
    """1x1, 3x3 (strided) and 1x1 convolution to four times the channels, each with batch norm, neurons in between."""
    into, inside = (
        normalised(place.before, place.inside, 1),
        normalised(place.inside, place.inside, stride=place.stride),
    )
    return [*into, neuron(), *inside, neuron(), *normalised(place.inside, 4 * place.inside, 1)]


BODIES = {"basic": (basic, 1), "bottleneck": (bottleneck, 4)}
"""Bodies of blocks, and how many times the inner channels they end with."""


def projection(place: Place, expansion: int = 1) -> list[nn.Module]:
    """A strided 1x1 convolution and batch norm for the shortcut, where shapes differ; else nothing."""
    if place.stride == 1 and place.before == place.inside * expansion:
        return []
    return normalised(place.before, place.inside * expansion, 1, place.stride)


def halving(blocks: Sequence[int]) -> list[int]:
    """Strides of stages of which all but the first halve the picture."""
    return [1, *[2] * (len(blocks) - 1)][: len(blocks)]


def make_stem(
    channels: int,
    width: int,
    kind: Literal["imagenet", "cifar"],
    pool: Literal["max", "avg", "none"],
    neuron: NeuronFactory,
) -> list[nn.Module]:
    """Convolution to `width` channels (7x7 with stride 2, or 3x3), batch norm, neuron; 3x3 pooling with stride 2."""
    kernel, stride = (7, 2) if kind == "imagenet" else (3, 1)
    layers = [*normalised(channels, width, kernel, stride), neuron()]
    return layers if pool == "none" else [*layers, pooling(pool, 3, 2, 1)]
