"""A small spiking convolutional network."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn

from snnrobust.models.layers import AvgPool2d, BatchNorm2d, Conv2d, Flatten, Linear, MaxPool2d
from snnrobust.settings import PositiveInt
from snnrobust.spiking.neuron import NeuronFactory
from snnrobust.spiking.pooled import Chain


class ConvNet(nn.Module):
    """Blocks of 3x3 convolution, batch norm, neuron and 2x2 pooling; one hidden spiking layer; a linear read-out.

    `[T, N, C, H, W]` to logits `[T, N, K]`. Time is folded into the batch for every layer but the neurons.

    Args:
        shape: `(C, H, W)` of one step of the input.
        classes: K.
        neuron: called once per spiking layer.
        channels: output channels of each block.
        hidden: neurons of the hidden layer.
        pool: average or maximum; spatial sizes are halved, rounding down.

    Raises:
        ValueError: if the input is too small for the number of blocks.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        neuron: NeuronFactory,
        channels: tuple[PositiveInt, ...] = (16, 32),
        hidden: PositiveInt = 64,
        pool: Literal["avg", "max"] = "avg",
    ) -> None:
        super().__init__()
        before, height, width = shape
        if min(height, width) >> len(channels) < 1:
            raise ValueError(
                f"model.channels: got {len(channels)} blocks, each halving {height}x{width}; "
                f"allowed: at most {int(math.log2(min(height, width)))} blocks"
            )
        pooling = AvgPool2d if pool == "avg" else MaxPool2d
        blocks: list[nn.Module] = []
        for after in channels:
            blocks += [
                Conv2d(before, after, 3, padding=1, bias=False),
                BatchNorm2d(after),
                neuron(),
                pooling(2),
            ]
            before, height, width = after, height // 2, width // 2
        self.features = Chain(*blocks)
        self.classifier = nn.Sequential(
            Flatten(),
            Linear(before * height * width, hidden),
            neuron(),
            Linear(hidden, classes),
        )

    def forward(self, sequence: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(sequence))
        return logits
