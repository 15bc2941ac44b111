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


def dlr(z: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio, `-(z_y - max_{j != y} z_j) / (z_(1) - z_(3))` (Croce and Hein 2020, eq. 6).

    `z_(k)` is the k-th largest logit. Not changed by shifts and scalings of the logits. With two classes there is no
    third logit and the range `z_(1) - z_(2)` takes its place.
    """
    top = z.topk(min(3, z.shape[1]), dim=1).values
    return margin(z, y) / (top[:, 0] - top[:, -1]).clamp_min(1e-12)


LOSSES = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr}
