"""Squares of the feature maps that are silent in training."""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from snnrobust.randomness import fresh
from snnrobust.settings import Fraction, LeftOpenFraction, PositiveInt
from snnrobust.spiking.drawing import Drawing
from snnrobust.spiking.neuron import NeuronFactory


class LocalFeatureMasking(nn.Sequential):
    """Neurons, then a mask over their maps in training mode (in the style of LFM, Gong et al. 2024, arXiv 2407.13646).

    A sample is masked with some probability: then one square, at a place of its own, is silent at all steps in a random
    choice of the layer's channels. Our reading of the abstract: random features of shallow layers are masked during
    training. How deep a layer lies is not known here, how large its maps are is. Nothing is masked in eval mode, in
    layers without space, and in layers with smaller maps; what remains is not scaled up.

    Args:
        neuron: makes the neurons, of any kind.
        probability: of a sample to be masked in a layer.
        channels: probability of each channel of a masked sample.
        area: share of the map that the square covers, up to rounding of its side.
        smallest: height and width, in pixels, from which on maps are masked.
    """

    def __init__(
        self,
        neuron: NeuronFactory,
        probability: Fraction = 0.5,
        channels: Fraction = 0.5,
        area: LeftOpenFraction = 0.15,
        smallest: PositiveInt = 8,
    ) -> None:
        super().__init__(OrderedDict(neuron=neuron(), mask=LocalMask(probability, channels, area, smallest)))


class LocalMask(Drawing):
    """The mask alone, on spikes `[T, N, ...]`; see `LocalFeatureMasking`."""

    def __init__(self, probability: float, channels: float, area: float, smallest: int) -> None:
        super().__init__()
        self.probability, self.channels = float(probability), float(channels)
        self.area = float(area)
        self.smallest = smallest

    def forward(self, spikes: Tensor) -> Tensor:
        if not self.training or spikes.dim() != 5 or min(spikes.shape[-2:]) < self.smallest:
            return spikes
        _, number, channels, height, width = spikes.shape
        draws = fresh(spikes.new_empty(number, 3 + channels, dtype=torch.float32))
        side = min(height, width, max(1, round(math.sqrt(self.area * height * width))))
        chosen = (draws[:, :1] < self.probability) & (draws[:, 3:] < self.channels)
        rows, columns = _span(draws[:, 1], side, height), _span(draws[:, 2], side, width)
        hidden = chosen[:, :, None, None] & rows[:, None, :, None] & columns[:, None, None, :]
        return spikes.masked_fill(hidden, 0)

    def extra_repr(self) -> str:
        return f"probability={self.probability}, channels={self.channels}, area={self.area}, smallest={self.smallest}"


def _span(draw: Tensor, side: int, size: int) -> Tensor:
    """`[N, size]`: True on `side` neighbours, which lie within `size` and begin where `draw` `[N]` in [0, 1) says."""
    first = (draw * (size - side + 1)).long().unsqueeze(1)
    place = torch.arange(size, device=draw.device)
    return (place >= first) & (place < first + side)
