"""The threat of binary inputs, such as event frames: a number of entries takes the other of two values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snnrobust.settings import PositiveInt
from snnrobust.threat import Bounds, Threat


@dataclass(frozen=True)
class Flips(Threat):
    """At most `count` entries (of a pixel, polarity and time step) flip from `low` to `high` or back: l_0.

    Inputs and results consist of the two bounds, exactly. Methods that know the bounds raise a `ValueError` for an
    origin that has other values.
    """

    count: PositiveInt

    @property
    def size(self) -> float:
        return float(self.count)

    def start(self, x: Tensor, unit: Tensor, bounds: Bounds) -> Tensor:
        """As many flips as allowed, at random: nearly all points of the set have that many."""
        require_binary(x, bounds)
        return flipped(x, largest(unit, self.count), bounds)

    def ascend(self, gradient: Tensor) -> Tensor:
        """The sign of the largest entry, the first among equals, and 0 elsewhere."""
        known = gradient.nan_to_num(nan=0.0)
        return torch.where(largest(known.abs(), 1), known.sign(), 0.0)

    def project(self, x: Tensor, origin: Tensor, bounds: Bounds) -> Tensor:
        """The nearest binary point: of the entries past the middle the `count` that moved most, the first of equals."""
        require_binary(origin, bounds)
        moved = (bounds.clip(x) - origin).abs()
        past = moved > bounds.width / 2
        return flipped(origin, past & largest(moved, self.count), bounds)

    def excess(self, x: Tensor, origin: Tensor) -> Tensor:
        return (distance(x, origin) - self.count).clamp_min(0).to(x.dtype)

    def scaled(self, share: float) -> Flips:
        """At least one flip."""
        return Flips(max(1, round(share * self.count)))

    def contains(self, other: Threat) -> bool:
        return isinstance(other, Flips) and other.count <= self.count


def flipped(x: Tensor, where: Tensor, bounds: Bounds) -> Tensor:
    """`x`, binary, with the other value at the entries `where` (bool, of its shape)."""
    low, high = torch.full_like(x, bounds.low), torch.full_like(x, bounds.high)
    return torch.where(where, torch.where(x == high, low, high), x)


def distance(x: Tensor, origin: Tensor) -> Tensor:
    """`[B]`: the number of entries in which two inputs differ."""
    return (x != origin).flatten(1).sum(1)


def largest(score: Tensor, count: int) -> Tensor:
    """Bool of the shape of `score` `[B, ...]`: each sample's `count` largest entries, the first among equals."""
    order = score.flatten(1).argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(score, dtype=torch.bool).flatten(1).scatter(1, order, True).view_as(score)


def require_binary(x: Tensor, bounds: Bounds) -> None:
    """Passes silently if every entry of `x` is one of the bounds.

    Raises:
        ValueError: if not.
    """
    other = x[(x != bounds.low) & (x != bounds.high)]
    if other.numel():
        raise ValueError(
            f"threat: flips are of inputs that consist of {bounds.low} and {bounds.high}, got {float(other[0]):.4g}; "
            "allowed: binary data, such as dataset=digits_events_binary"
        )
