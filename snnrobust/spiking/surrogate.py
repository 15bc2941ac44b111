"""Surrogate derivatives of the spike, under the names of the field.

With q = potential - threshold, each is the derivative g(q) that replaces that of the Heaviside step in a backward pass:
of the training (`neuron/surrogate`), or of an attack (`estimator`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from snnrobust.settings import Positive


@dataclass(frozen=True)
class Surrogate:
    """A derivative and the spike that it differentiates; no closures, so that a network can be pickled.

    Args:
        name: of the shape.
        parameters: that determine it, given the name.
        derivative: `q` to `g(q)`, elementwise.
        spike: `q` to `[q >= 0]`, with `g` as its derivative; SpikingJelly's where it has one.
    """

    name: str
    parameters: tuple[float, ...]
    derivative: Callable[[Tensor], Tensor] = field(compare=False, repr=False)
    spike: Callable[[Tensor], Tensor] = field(compare=False, repr=False)


def triangle(width: Positive = 1.0) -> Surrogate:
    """`max(0, width - |q|) / width^2`: exact zeros beyond `width` (Bellec et al. 2018; the default of the papers)."""
    from spikingjelly.activation_based.surrogate import PiecewiseQuadratic

    return Surrogate("triangle", (width,), partial(_triangle, width), PiecewiseQuadratic(alpha=1.0 / width))


def sigmoid(slope: Positive = 4.0) -> Surrogate:
    """`slope s (1 - s)` with `s = sigmoid(slope q)`."""
    from spikingjelly.activation_based.surrogate import Sigmoid

    return Surrogate("sigmoid", (slope,), partial(_sigmoid, slope), Sigmoid(alpha=slope))


def atan(alpha: Positive = 2.0) -> Surrogate:
    """`(alpha / 2) / (1 + (pi alpha q / 2)^2)`: never exactly zero (Fang et al. 2021)."""
    from spikingjelly.activation_based.surrogate import ATan

    return Surrogate("atan", (alpha,), partial(_atan, alpha), ATan(alpha=alpha))


def linear(height: Positive = 0.3, width: Positive = 1.0) -> Surrogate:
    """`height max(0, 1 - |q| / width)`: of any height (HIRE-SNN, Kundu et al. 2021, at a threshold of 1)."""
    return _own("linear", (height, width), partial(_linear, height, width))


def exponential(height: Positive = 1.0, decay: Positive = 1.0) -> Surrogate:
    """`height exp(-decay |q|)` (Shrestha and Orchard 2018); its integral is `2 height / decay`."""
    return _own("exponential", (height, decay), partial(_exponential, height, decay))


def rectangle(width: Positive = 1.0) -> Surrogate:
    """`[|q| < width / 2] / width` (Wu et al. 2018)."""
    return _own("rectangle", (width,), partial(_rectangle, width))


def gaussian(alpha: Positive = 2.0) -> Surrogate:
    """`alpha / sqrt(2 pi) exp(-(alpha q)^2 / 2)`: a normal density of standard deviation `1 / alpha`."""
    return _own("gaussian", (alpha,), partial(_gaussian, alpha))


def straight_through() -> Surrogate:
    """`1` everywhere (Bengio et al. 2013); its integral is infinite."""
    return _own("straight_through", (), _one)


def twice_differentiable(surrogate: Surrogate) -> Callable[[Tensor], Tensor]:
    """The spike of a surrogate in operations that autograd can differentiate twice; `g` has its own derivative."""
    return partial(_spike, surrogate.derivative)


# The derivatives are functions of the module, so that networks can be pickled; their graphs can be differentiated.


def _triangle(width: float, q: Tensor) -> Tensor:
    return (width - q.abs()).clamp_min_(0).mul_(1 / width**2)


def _sigmoid(slope: float, q: Tensor) -> Tensor:
    s = (slope * q).sigmoid_()
    return s.mul(1 - s).mul_(slope)


def _atan(alpha: float, q: Tensor) -> Tensor:
    return alpha / 2 / (1 + (math.pi / 2 * alpha * q).square())


def _linear(height: float, width: float, q: Tensor) -> Tensor:
    return q.abs().div_(-width).add_(1).clamp_min_(0).mul_(height)


def _exponential(height: float, decay: float, q: Tensor) -> Tensor:
    return q.abs().mul_(-decay).exp_().mul(height)


def _rectangle(width: float, q: Tensor) -> Tensor:
    return (q.abs() < width / 2).to(q.dtype).mul_(1 / width)


def _gaussian(alpha: float, q: Tensor) -> Tensor:
    return q.square().mul_(-(alpha**2) / 2).exp_().mul(alpha / math.sqrt(2 * math.pi))


def _one(q: Tensor) -> Tensor:
    return q.new_ones(()).expand_as(q)


def _own(name: str, parameters: tuple[float, ...], derivative: Callable[[Tensor], Tensor]) -> Surrogate:
    """A surrogate that SpikingJelly does not have."""
    return Surrogate(name, parameters, derivative, partial(_spike, derivative))


def _spike(derivative: Callable[[Tensor], Tensor], q: Tensor) -> Tensor:
    """`[q >= 0]`, differentiated by `derivative`."""
    from snnrobust.spiking.heaviside import Heaviside

    spikes: Tensor = Heaviside.apply(q, derivative)
    return spikes
