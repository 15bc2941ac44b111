"""Takes connections out of random weights."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

LEAST = 1e-12
"""What stands for a weight that is there and was drawn as zero: a zero would be an absent connection."""


@torch.no_grad()
def apply_connections(weight: Tensor, there: Tensor, rescale: Literal["none", "fan_in"]) -> None:
    """Leaves the weights of connections that are there, and zeros elsewhere, in place.

    Args:
        weight: `[out, ...]`.
        there: bool, of its shape.
        rescale: fan_in: multiplies the weights of each output by `sqrt(inputs / connections)`.
    """
    weight.masked_fill_(there & (weight == 0), LEAST).masked_fill_(~there, 0)
    if rescale == "fan_in":
        connections = there.flatten(1).sum(1).clamp_min(1)
        factor = (there[0].numel() / connections).sqrt().to(weight)
        weight.mul_(factor.view(-1, *[1] * (weight.dim() - 1)))
        weight.masked_fill_(~there, 0)
