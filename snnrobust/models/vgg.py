"""VGG networks (Simonyan and Zisserman 2015) of spiking neurons, as the papers on their robustness lay them out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from snnrobust.models.layers import (
    AdaptiveAvgPool2d,
    Flatten,
    Linear,
    begin_convolutions,
    begin_linear_biases,
    normalised,
    pooling,
)
from snnrobust.settings import Fraction, PositiveInt
from snnrobust.spiking.neuron import NeuronFactory
from snnrobust.spiking.pooled import Chain


class VGG(nn.Module):
    """3x3 convolutions, each with batch norm and neuron; 2x2 pooling as planned; hidden spiking layers; a read-out.

    `[T, N, C, H, W]` to logits `[T, N, K]`. The default is VGG-11 with 61,377,034 parameters on 3x32x32 and 10
    classes: two convolutions after the third pooling, none of them pooled again. Weights begin as `layers.py` says.

    Args:
        shape: `(C, H, W)` of one step of the input.
        classes: K.
        neuron: called once per spiking layer.
        plan: output channels of the convolutions in order, and `pool` where the picture is halved, rounding down.
        hidden: neurons of each hidden layer; none: the read-out follows the convolutions.
        pool: average or maximum.
        head: what the first linear layer sees: all entries, or the average of each channel over the picture.
        bias: which layers have biases: all, linear ones, none.
        dropout: share of the hidden spikes set to 0 in training, drawn anew at every step, as in the conversion of
            Ozdenizci and Legenstein (2024), whose dropout sees time folded into the batch.

    Raises:
        ValueError: if the input is too small for the poolings, or all spikes are dropped.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        neuron: NeuronFactory,
        plan: tuple[PositiveInt | Literal["pool"], ...] = (
            64, "pool", 128, 256, "pool", 512, 512, 512, "pool", 512, 512,
        ),
        hidden: tuple[PositiveInt, ...] = (4096, 4096),
        pool: Literal["avg", "max"] = "avg",
        head: Literal["flatten", "average"] = "flatten",
        bias: Literal["all", "linear", "none"] = "all",
        dropout: Fraction = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        channels, height, width = shape
        halvings = sum(entry == "pool" for entry in plan)
        height, width = height >> halvings, width >> halvings
        if min(height, width) < 1:
            raise ValueError(f"model.plan: got {halvings} poolings, each halving {shape[1]}x{shape[2]}; allowed: fewer")
        if dropout == 1:
            raise ValueError("model.dropout: got 1.0; allowed: less than 1")
        layers: list[nn.Module] = []
        for entry in plan:
            if entry == "pool":
                layers.append(pooling(pool, 2, 2))
            else:
                layers += [*normalised(channels, entry, bias=bias == "all"), neuron()]
                channels = entry
        self.features = Chain(*layers)
        before: list[nn.Module] = [Flatten()]
        if head == "average":
            before.insert(0, AdaptiveAvgPool2d(1))
            height = width = 1
        sizes = [channels * height * width, *hidden, classes]
        self.classifier = nn.Sequential(*before, *_hidden(sizes, neuron, bias != "none", dropout))
        begin_convolutions(self)
        begin_linear_biases(self)

    def forward(self, sequence: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(sequence))
        return logits


def _hidden(sizes: Sequence[int], neuron: NeuronFactory, bias: bool, dropout: float) -> list[nn.Module]:
    """Linear layers from each size to the next, with neurons and dropout between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        if layers:
            layers += [neuron(), nn.Dropout(dropout)] if dropout > 0 else [neuron()]
        layers.append(Linear(before, after, bias=bias))
    return layers
