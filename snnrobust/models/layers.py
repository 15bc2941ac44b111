"""What the architectures share: layers without time, folded into the batch, and the weights they begin with."""

from __future__ import annotations

from typing import Literal

from spikingjelly.activation_based import layer
from torch import nn


def convolution(before: int, after: int, kernel: int = 3, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """A convolution with an odd kernel and as much zero padding as keeps the size at stride 1."""
    made: nn.Conv2d = layer.Conv2d(before, after, kernel, stride, kernel // 2, bias=bias, step_mode="m")
    return made


def normalised(before: int, after: int, kernel: int = 3, stride: int = 1, bias: bool = False) -> list[nn.Module]:
    """A convolution and its batch norm, side by side so that `spiking/fuse.py` makes them one."""
    return [convolution(before, after, kernel, stride, bias), layer.BatchNorm2d(after, step_mode="m")]


def pooling(kind: Literal["avg", "max"], size: int, stride: int, padding: int = 0) -> nn.Module:
    """Pooling of squares; the average counts padded zeros."""
    made: nn.Module = {"avg": layer.AvgPool2d, "max": layer.MaxPool2d}[kind](size, stride, padding, step_mode="m")
    return made


def average_read_out(channels: int, classes: int, bias: bool = True) -> list[nn.Module]:
    """The mean of each channel over the picture, and a linear layer."""
    return [
        layer.AdaptiveAvgPool2d(1, step_mode="m"),
        layer.Flatten(step_mode="m"),
        layer.Linear(channels, classes, bias=bias, step_mode="m"),
    ]


def begin_convolutions(model: nn.Module) -> None:
    """Normal weights of variance `2 / fan_out` (He et al. 2015) and biases of 0; batch norm begins with 1 and 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def begin_linear_biases(model: nn.Module) -> None:
    """Linear layers begin with biases of 0; their weights are torch's."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
