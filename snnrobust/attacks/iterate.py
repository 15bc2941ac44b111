"""What adaptive attacks know of a point: its gradient, its loss and whether the model errs, from the same forwards."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from snnrobust.attacks.gradient import Loss, gradient
from snnrobust.attacks.losses import margin
from snnrobust.randomness import normal, uniform
from snnrobust.spiking.classifier import Classifier
from snnrobust.threat import Bounds, Linf, Threat


class Iterate(NamedTuple):
    """A point per sample and what was seen there.

    Args:
        x: `[B, ...]`.
        slope: gradient of the loss, of the shape of `x`; finite.
        loss: `[B]`; never NaN.
        margin: `[B]`, the largest wrong logit minus the right one.
        wrong: `[B]` bool, misclassified.
    """

    x: Tensor
    slope: Tensor
    loss: Tensor
    margin: Tensor
    wrong: Tensor

    def where(self, chosen: Tensor, other: Iterate) -> Iterate:
        """This one for the samples in `chosen` `[B]`, `other` for the rest."""
        pairs = zip(self, other, strict=True)
        return Iterate(*(torch.where(column(chosen, mine), mine, yours) for mine, yours in pairs))


def look(model: Classifier, x: Tensor, y: Tensor, loss: Loss, samples: int) -> Iterate:
    """One gradient at `x`; loss, margin and decision are those of the logits averaged over `samples` forwards.

    A gradient of NaN counts as 0 and an infinite one as the largest number, so that neither destroys the sample; a loss
    of NaN counts as the lowest.
    """
    slope, z = gradient(model, x, y, loss, samples)
    return Iterate(x, slope.nan_to_num(), loss(z, y).nan_to_num(-torch.inf, torch.inf), margin(z, y), z.argmax(1) != y)


def outermost(threat: Threat, x: Tensor, index: Tensor, bounds: Bounds, *words: object) -> Tensor:
    """A random start as far from `x` as the threat allows, but for `bounds`; drawn per sample from `(*words, index)`.

    For l_inf `x + eps u / max|u|` with `u` from U(-1, 1), otherwise along the threat's direction of normal draws: for
    l_2 a uniformly random direction (the authors' code of Croce and Hein 2020).
    """
    if isinstance(threat, Linf):
        unit = 2 * uniform(x, index, *words) - 1
        largest = unit.abs().flatten(1).amax(1).clamp_min(torch.finfo(x.dtype).tiny)
        direction = unit / column(largest, x)
    else:
        direction = threat.ascend(normal(x, index, *words))
    return threat.project(x + threat.size * direction, x, bounds)


def column(values: Tensor, like: Tensor) -> Tensor:
    """`[B]` in a shape that broadcasts over the entries of `like` `[B, ...]`."""
    return values.view(-1, *[1] * (like.dim() - 1))
