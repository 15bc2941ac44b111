"""Surrogate derivatives for training, under the names of the field; the implementations are SpikingJelly's.

With q = membrane - threshold, each is the derivative that replaces that of the Heaviside step in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from snnrobust.settings import Positive

if TYPE_CHECKING:
    from torch import Tensor

Surrogate = Callable[["Tensor"], "Tensor"]


def triangle(width: Positive = 1.0) -> Surrogate:
    """`max(0, width - |q|) / width^2`: exact zeros beyond `width` (Bellec et al. 2018; the default of the papers)."""
    from spikingjelly.activation_based.surrogate import PiecewiseQuadratic

    derivative: Surrogate = PiecewiseQuadratic(alpha=1.0 / width)
    return derivative


def sigmoid(slope: Positive = 4.0) -> Surrogate:
    """`slope s (1 - s)` with `s = sigmoid(slope q)`."""
    from spikingjelly.activation_based.surrogate import Sigmoid

    derivative: Surrogate = Sigmoid(alpha=slope)
    return derivative


def atan(alpha: Positive = 2.0) -> Surrogate:
    """`(alpha / 2) / (1 + (pi alpha q / 2)^2)`: never exactly zero (Fang et al. 2021)."""
    from spikingjelly.activation_based.surrogate import ATan

    derivative: Surrogate = ATan(alpha=alpha)
    return derivative
