"""The one seam between networks and everything that judges them: inputs within bounds in, logits out."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from snnrobust.spiking.drawing import Drawing
from snnrobust.spiking.encoder import Encoder
from snnrobust.spiking.neuron import wide
from snnrobust.threat import Bounds


class Classifier(Protocol):
    """`x` `[B, ...]` within `bounds` to logits `[B, K]`.

    Pure: the same `x` gives the same logits, whatever ran before, and in eval mode a sample's logits do not depend on
    its neighbours; unless `stochastic`, where the encoder or parts of the network draw from torch's global stream.
    """

    @property
    def bounds(self) -> Bounds: ...

    @property
    def stochastic(self) -> bool: ...

    def __call__(self, x: Tensor) -> Tensor: ...


class Normalize(nn.Module):
    """`(x - mean) / std` per channel, the channel being the third dimension from the end."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class SpikingClassifier(nn.Module):
    """Normalisation, input code, spiking backbone, and the mean of its logits over time.

    Args:
        backbone: time-major, `[T, B, C, H, W]` to `[T, B, K]`.
        encoder: `[B, ...]` to `[T, B, C, H, W]`.
        normalize: applied before the code, so that attacks act on raw inputs; a `raw` code sees these.
        bounds: range of `x`.
    """

    def __init__(self, backbone: nn.Module, encoder: Encoder, normalize: Normalize, bounds: Bounds) -> None:
        super().__init__()
        self.backbone = backbone
        self.encoder = encoder
        self.normalize = normalize
        self.bounds = bounds

    @property
    def stochastic(self) -> bool:
        drawing = (module for module in self.backbone.modules() if isinstance(module, Drawing))
        return self.encoder.stochastic or any(module.stochastic for module in drawing)

    def forward(self, x: Tensor) -> Tensor:
        sequence = self.encoder(x if self.encoder.raw else self.normalize(x))
        logits: Tensor = wide(self.backbone(sequence)).mean(0)
        return logits
