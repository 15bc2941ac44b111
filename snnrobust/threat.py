"""Threat models: the range that inputs live in, and the perturbations an adversary may choose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snnrobust.settings import Fraction

if TYPE_CHECKING:
    from torch import Tensor


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
        """Direction of steepest ascent of length one in the norm of the threat; 0 where the gradient is 0."""

    @abstractmethod
    def project(self, x: Tensor, origin: Tensor, bounds: Bounds) -> Tensor:
        """The point of the set around `origin`, inside `bounds`, that is nearest to `x`."""

    @abstractmethod
    def excess(self, x: Tensor, origin: Tensor) -> Tensor:
        """`[B]`: by how much the perturbation leaves the budget; 0 inside it."""

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
        return gradient.sign()

    def project(self, x: Tensor, origin: Tensor, bounds: Bounds) -> Tensor:
        return bounds.clip(x.clamp(origin - self.eps, origin + self.eps))

    def excess(self, x: Tensor, origin: Tensor) -> Tensor:
        return ((x - origin).abs().flatten(1).amax(1) - self.eps).clamp_min(0)

    def contains(self, other: Threat) -> bool:
        return isinstance(other, Linf) and other.eps <= self.eps
