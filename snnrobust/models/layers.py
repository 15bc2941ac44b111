"""What the architectures share: layers without time, folded into the batch, and the weights they begin with."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn


class Timeless(nn.Module):
    """A layer that knows no time, on `[T, N, ...]`: time is folded into the batch.

    Where all steps are one and the same tensor (the stem under a direct code), it is computed once. Batch norm then
    sees the same mean and variance; only the running variance, which is unbiased, differs by `(TN - 1) / (TN - T)`.
    """

    def forward(self, sequence: Tensor) -> Tensor:
        steps, batch = sequence.shape[:2]
        if steps > 1 and sequence.stride(0) == 0:
            once: Tensor = super().forward(sequence[0])
            return once.unsqueeze(0).expand(steps, *once.shape)
        folded: Tensor = super().forward(sequence.flatten(0, 1))
        unfolded: Tensor = folded.unflatten(0, (steps, batch))
        return unfolded


class Conv2d(Timeless, nn.Conv2d):
    """`torch.nn.Conv2d` at every step."""


class Linear(Timeless, nn.Linear):
    """`torch.nn.Linear` at every step."""


class BatchNorm1d(Timeless, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` over batch and time."""


class BatchNorm2d(Timeless, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` over batch and time."""


class AvgPool2d(Timeless, nn.AvgPool2d):
    """`torch.nn.AvgPool2d` at every step."""


class MaxPool2d(Timeless, nn.MaxPool2d):
    """`torch.nn.MaxPool2d` at every step."""


class AdaptiveAvgPool2d(Timeless, nn.AdaptiveAvgPool2d):
    """`torch.nn.AdaptiveAvgPool2d` at every step."""


class Flatten(Timeless, nn.Flatten):
    """`torch.nn.Flatten` at every step."""


def convolution(before: int, after: int, kernel: int = 3, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """A convolution with an odd kernel and as much zero padding as keeps the size at stride 1."""
    return Conv2d(before, after, kernel, stride, kernel // 2, bias=bias)


def normalised(before: int, after: int, kernel: int = 3, stride: int = 1, bias: bool = False) -> list[nn.Module]:
    """A convolution and its batch norm, side by side so that `spiking/fuse.py` makes them one."""
    return [convolution(before, after, kernel, stride, bias), BatchNorm2d(after)]


def pooling(kind: Literal["avg", "max"], size: int, stride: int, padding: int = 0) -> nn.Module:
    """Pooling of squares; the average counts padded zeros."""
    made: nn.Module = {"avg": AvgPool2d, "max": MaxPool2d}[kind](size, stride, padding)
    return made


def average_read_out(channels: int, classes: int, bias: bool = True) -> list[nn.Module]:
    """The mean of each channel over the picture, and a linear layer."""
    return [
        AdaptiveAvgPool2d(1),
        Flatten(),
        Linear(channels, classes, bias=bias),
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
