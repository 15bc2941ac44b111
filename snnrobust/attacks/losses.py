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
    third logit, and a ratio to `z_(1) - z_(2)` would be constant: the numerator is then taken alone.
    """
    return margin(z, y) / _spread(z, 3)


def targeted_dlr(z: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """`-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2)` for target classes t `[B]` (Croce and Hein 2020, eq. 7).

    With three classes `z_(3)` stands for both; with two the numerator is taken alone, as by `dlr`.
    """
    return (z.gather(1, target[:, None]) - z.gather(1, y[:, None])).squeeze(1) / _spread(z, 4)


def _spread(z: Tensor, last: int) -> Tensor:
    """`[B]`: the largest logit minus the mean of those from the third largest to rank `last`; 1 with two classes."""
    if z.shape[1] < 3:
        return z.new_ones(len(z))
    top = z.topk(min(last, z.shape[1]), dim=1).values
    return (top[:, 0] - top[:, 2:].mean(1)).clamp_min(1e-12)


LOSSES = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr}
