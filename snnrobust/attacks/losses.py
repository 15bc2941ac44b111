"""Losses that an attack increases, per sample, from logits `z` `[B, K]` and labels `y` `[B]`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """`-log softmax(z)_y`."""
    return F.cross_entropy(z, y, reduction="none")


def margin(z: Tensor, y: Tensor) -> Tensor:
    """`max_{j != y} z_j - z_y`: positive exactly where the sample is misclassified (Carlini and Wagner 2017)."""
    others = z.scatter(1, y[:, None], -torch.inf).amax(1)
    return others - z.gather(1, y[:, None]).squeeze(1)


LOSSES = {"cross_entropy": cross_entropy, "margin": margin}
