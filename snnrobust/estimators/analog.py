"""The analog proxy: the gradient of the network whose spiking layers are replaced by activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from snnrobust.estimators.base import Estimator, View, membranes_of, neurons_of
from snnrobust.estimators.replica import replica
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.spiking.classifier import Classifier, SpikingClassifier
from snnrobust.spiking.encoder import Direct

LEVELS = 8
"""Of the quantised activation."""


@dataclass(frozen=True)
class Analog(Estimator):
    """The gradient of the same weights as an analog network, without time (the "Act" attack of Ding et al. 2022).

    A spiking layer becomes the activation of `(gain / threshold) i`: for a neuron without leak its firing rate, up to
    rounding and saturation. Leak, reset and connections between the neurons of a layer do not count; gain and threshold
    do as they stand. The analog network has no memory; it runs once where every step gets the same image, else
    on every step by itself, and its logits are averaged over time. The loss is evaluated at the logits of the spiking
    network, its gradient continues through the analog one. A stochastic code is drawn anew for the latter.

    Args:
        activation: `relu`; or `clip`, to [0, 1] in 8 levels, with the gradient of the clipping.
    """

    activation: Literal["relu", "clip"] = "relu"

    @contextmanager
    def applied(self, model: Classifier) -> Iterator[Classifier]:
        neurons = neurons_of(model, type(self).__name__)
        function = {"relu": torch.relu, "clip": clipped}[self.activation]
        instead: dict[nn.Module, nn.Module] = {
            neuron: _Activation(float(its.gain) / float(its.threshold), function)
            for neuron, its in zip(neurons, membranes_of(neurons, type(self).__name__), strict=True)
        }
        if isinstance(model, SpikingClassifier) and isinstance(model.encoder, Direct):
            instead[model.encoder] = Direct(steps=1)
        analog = replica(model, instead)

        # Under an estimator the spiking network runs in compiled kernels.
        with TRAINED.applied(model) as spiking:

            def call(x: Tensor) -> Tensor:
                with torch.no_grad():
                    logits = spiking(x)
                through: Tensor = _Instead.apply(analog(x), logits)
                return through

            yield View(model, call)


class _Activation(nn.Module):
    """On currents of any shape; without memory."""

    def __init__(self, scale: float, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.scale = scale
        self.function = function

    def forward(self, current: Tensor) -> Tensor:
        return self.function(current * self.scale)


def clipped(rate: Tensor) -> Tensor:
    """`clip(rate, 0, 1)`, rounded to multiples of 1/8; differentiated as the clipping."""
    proxy = rate.clamp(0, 1)
    levels: Tensor = _Instead.apply(proxy, (LEVELS * proxy.detach() + 0.5).floor_().div_(LEVELS))
    return levels


class _Instead(torch.autograd.Function):
    """Forward the value, exactly; backward to the proxy."""

    @staticmethod
    def forward(ctx: Any, proxy: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
