"""MPD-SGR: potentials whose distribution keeps out of the window of the surrogate (arXiv 2511.12199)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snnrobust.regularizers.base import Pass, Regularizer
from snnrobust.settings import NonNegative, Positive
from snnrobust.spiking.classifier import Classifier
from snnrobust.spiking.recording import Layer, per_layer
from snnrobust.spiking.surrogate import Surrogate

FLOOR = 1e-5
"""Added to every variance, as by batch norm: a channel that is constant keeps a finite term and gradient."""


@dataclass(frozen=True)
class MembraneDistribution(Regularizer):
    """`R = mean_l mean_{t,c} [Phi((gamma - mu) / s) - Phi((-gamma - mu) / s)]`: the share of the potentials in the
    window of the surrogate, if they were normal (MPD-SGR, arXiv 2511.12199).

    `mu` and `s` are mean and standard deviation of `q = u - threshold` over samples and space, of every layer l, step t
    and channel c (of every feature in layers without space). Phi is the normal distribution function.

    Outside the window the surrogate's gradient is 0 and the network learns nothing there, nor does an attack along it:
    a part of what gradient-based attacks lose here is their gradient alone.

    Args:
        weight: factor of the term in the loss; the published one is not known to us.
        warmup: epochs over which the weight rises linearly from 0.
        gamma: half the width of the window, in units of the potential; None: that of the surrogate of each layer.

    Raises:
        ValueError: when called, if `gamma` is None and a layer's surrogate has no window.
    """

    weight: NonNegative = 0.01
    warmup: NonNegative = 0.0
    gamma: Positive | None = None

    needs_layers = True

    def __call__(self, model: Classifier, at: Pass) -> Tensor:
        return per_layer(self._overlap, at.layers).mean()

    def _overlap(self, layer: Layer) -> Tensor:
        gamma = half_width(layer.neuron.surrogate) if self.gamma is None else self.gamma
        return share_within(gamma, *moments(layer.distance)).mean()


def half_width(surrogate: Surrogate) -> float:
    """The distance from the threshold at which the derivative becomes 0 for good.

    Raises:
        ValueError: if there is none.
    """
    match surrogate.name, surrogate.parameters:
        case "triangle", (width,):
            return width
        case "linear", (_, width):
            return width
        case "rectangle", (width,):
            return width / 2
    raise ValueError(
        f"regularizer.gamma: got null, the half-width of the surrogate, which {surrogate.name} does not have; "
        "allowed: a number, or neuron/surrogate=triangle, linear or rectangle"
    )


def moments(distance: Tensor) -> tuple[Tensor, Tensor]:
    """Means and standard deviations, `[T, C]` each, of `[T, N, C, ...]` over samples and space."""
    others = [d for d in range(distance.dim()) if d not in (0, 2)]
    variance, mean = torch.var_mean(distance, others, correction=0)
    return mean, (variance + FLOOR).sqrt()


def share_within(gamma: float, mean: Tensor, deviation: Tensor) -> Tensor:
    """The probability that a normal variable lies within `gamma` of 0."""
    scale = deviation * 2**0.5
    return 0.5 * (torch.erf((gamma - mean) / scale) - torch.erf((-gamma - mean) / scale))
