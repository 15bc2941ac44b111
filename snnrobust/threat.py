"""Threat models: the range that inputs live in, and the perturbations an adversary may choose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from snnrobust.settings import Fraction, NonNegative


@dataclass(frozen=True)
class Bounds:
    """Closed range of every input entry, `[low, high]`."""

    low: float = 0.0
    high: float = 1.0

    @property
    def width(self) -> float:
        return self.high - self.low

    def clip(self, x: Tensor) -> Tensor:
        return x.clamp(self.low, self.high)


class Threat(ABC):
    """A set of allowed perturbations around each input. All methods are batch-first and work per sample."""

    @property
    @abstractmethod
    def size(self) -> float:
        """Length of the longest perturbation, in the norm of the threat."""

    @abstractmethod
    def start(self, x: Tensor, unit: Tensor, bounds: Bounds) -> Tensor:
        """A random point of the set around `x`; `unit` are draws from U(0, 1) of the shape of `x`."""

    @abstractmethod
    def ascend(self, gradient: Tensor) -> Tensor:
        """Direction of steepest ascent of length one in the norm of the threat; 0 for a sample whose gradient is 0.

        Entries of NaN count as 0, and infinite ones as larger than all others.
        """

    @abstractmethod
    def project(self, x: Tensor, origin: Tensor, bounds: Bounds) -> Tensor:
        """A point of the set around `origin` and inside `bounds`: `x` itself where it is one, else one near it."""

    @abstractmethod
    def excess(self, x: Tensor, origin: Tensor) -> Tensor:
        """`[B]`: by how much the perturbation leaves the budget; 0 inside it."""

    @abstractmethod
    def scaled(self, share: float) -> Threat:
        """The same kind of set, `share` times as large, `share` in (0, 1]."""

    @abstractmethod
    def contains(self, other: Threat) -> bool:
        """True if every perturbation that `other` allows is allowed here too."""


@dataclass(frozen=True)
class Linf(Threat):
    """`max_i |x_i - origin_i| <= eps`, in units of the input (pixels in [0, 1], or scaled event counts)."""

    eps: Fraction

    @property
    def size(self) -> float:
        return self.eps

    def start(self, x: Tensor, unit: Tensor, bounds: Bounds) -> Tensor:
        return bounds.clip(x + self.eps * (2 * unit - 1))

    def ascend(self, gradient: Tensor) -> Tensor:
        return gradient.nan_to_num(nan=0.0).sign()

    def project(self, x: Tensor, origin: Tensor, bounds: Bounds) -> Tensor:
        return bounds.clip(x.clamp(origin - self.eps, origin + self.eps))

    def excess(self, x: Tensor, origin: Tensor) -> Tensor:
        return ((x - origin).abs().flatten(1).amax(1) - self.eps).clamp_min(0)

    def scaled(self, share: float) -> Linf:
        return Linf(share * self.eps)

    def contains(self, other: Threat) -> bool:
        # No entry is longer than the whole: an l_2 ball lies inside the box around it.
        return isinstance(other, (Linf, L2)) and other.eps <= self.eps


@dataclass(frozen=True)
class L2(Threat):
    """`||x - origin||_2 <= eps` over all entries of a sample (time steps included), in units of the input."""

    eps: NonNegative

    @property
    def size(self) -> float:
        return self.eps

    def start(self, x: Tensor, unit: Tensor, bounds: Bounds) -> Tensor:
        """A uniformly random point of the ball, clipped.

        The inverse normal distribution turns the draws into a normal vector. Its length does not depend on its
        direction; the chi-square distribution turns it into a draw `u` from U(0, 1), and the radius is `eps u^(1/d)`.
        """
        # Draws have 24 bits: the inverse is infinite at 0, and half a step away from it is as good.
        normal = torch.special.ndtri(unit.double().clamp(2**-25, 1 - 2**-25))
        squares = normal.square().flatten(1).sum(1).clamp_min(torch.finfo(torch.double).tiny)
        half = torch.full_like(squares, 0.5 * normal.flatten(1).shape[1])
        radius = self.eps * torch.special.gammainc(half, squares / 2) ** (0.5 / half)
        return bounds.clip(x + (normal * _column(radius / squares.sqrt(), x)).to(x.dtype))

    def ascend(self, gradient: Tensor) -> Tensor:
        scaled, _ = _scaled(gradient.nan_to_num(nan=0.0))
        return scaled / _column(_norm(scaled).clamp_min(torch.finfo(scaled.dtype).tiny), scaled)

    def project(self, x: Tensor, origin: Tensor, bounds: Bounds) -> Tensor:
        """The nearest point of the ball, clipped.

        It is in both: the bounds contain the origin, so that clipping shortens every entry of the perturbation.
        """
        change = x - origin
        length = _length(change)
        # A few units in the last place inside: rounding keeps the result in the ball, and another call changes nothing.
        target = max(self.eps - 8 * torch.finfo(x.dtype).eps * max(1.0, self.eps), 0.0)
        shrink = _column(target / length.clamp_min(torch.finfo(x.dtype).tiny), x)
        return bounds.clip(torch.where(_column(length <= self.eps, x), x, origin + change * shrink))

    def excess(self, x: Tensor, origin: Tensor) -> Tensor:
        return (_length(x - origin) - self.eps).clamp_min(0)

    def scaled(self, share: float) -> L2:
        return L2(share * self.eps)

    def contains(self, other: Threat) -> bool:
        return isinstance(other, L2) and other.eps <= self.eps


def _length(x: Tensor) -> Tensor:
    """`[B]`, the l_2 norm of each sample."""
    scaled, largest = _scaled(x)
    return largest * _norm(scaled)


def _scaled(x: Tensor) -> tuple[Tensor, Tensor]:
    """Every sample divided by its largest absolute entry, since squares of 1e-30 or 1e30 leave single precision."""
    largest = x.abs().flatten(1).amax(1).clamp_min(torch.finfo(x.dtype).tiny)
    return x / _column(largest, x), largest


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1).sqrt()


def _column(values: Tensor, like: Tensor) -> Tensor:
    """`[B]` with as many dimensions as `like` `[B, ...]`."""
    return values.view(-1, *[1] * (like.dim() - 1))
