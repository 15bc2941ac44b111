"""Currents that are made consistent with each other before the neurons see them."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from snnrobust.settings import LeftOpenFraction, PositiveInt
from snnrobust.spiking.neuron import NeuronFactory, wide
from snnrobust.spiking.neurons.recurrent import connected
from snnrobust.spiking.neurons.shaped import ShapedParameter


class SelfConsistent(nn.Sequential):
    """Consistent currents, then neurons (in the style of the SCA layer, Shah and Raj 2023, arXiv 2308.03956).

    `j_0 = i`; `j_{k+1} = i + W max(0, j_k)`: what the channels at one place do is made consistent with a pattern `W`
    by which each of them follows from the others; it is learned, and the same for every input. Our reading of the
    abstract: activations conform to a fixed, learned covariability pattern. `W` `[C, C]` (all features in layers
    without space) is 0 before training, and so is its diagonal always: no channel speaks for itself.

    Args:
        neuron: makes the neurons, of any kind.
        iterations: k at the end.
        bound: on the sum of absolute weights into a channel; larger rows are scaled down. Below 1, an iteration brings
            any two currents closer by that factor (in the largest entry), so that there is one consistent current, and
            the iterations approach it.
    """

    def __init__(self, neuron: NeuronFactory, iterations: PositiveInt = 3, bound: LeftOpenFraction = 0.9) -> None:
        super().__init__(OrderedDict(consistency=Consistency(iterations, bound), neuron=neuron()))


class Consistency(ShapedParameter):
    """The currents alone, `[T, N, ...]` to the same shape; see `SelfConsistent`."""

    learned = "weight"
    initial = 0.0

    def __init__(self, iterations: int, bound: float) -> None:
        super().__init__()
        self.iterations, self.bound = iterations, float(bound)
        self.weight = UninitializedParameter()

    def shape_for(self, x: Tensor) -> tuple[int, ...]:
        return (x.shape[2], x.shape[2])

    @property
    def pattern(self) -> Tensor:
        """`W` `[C, C]`, from every channel (columns) to every other one, within the bound."""
        weight = wide(self.weight)
        others = weight * (1 - torch.eye(len(weight), dtype=weight.dtype, device=weight.device))
        into = others.abs().sum(1, keepdim=True)
        return others * (self.bound / into.clamp_min(self.bound))

    def forward(self, current: Tensor) -> Tensor:
        self.fit(current)
        if len(current) > 1 and current.stride(0) == 0:  # one and the same at all steps
            return self._consistent(current[0]).expand_as(current)
        unfolded: Tensor = self._consistent(current.flatten(0, 1)).unflatten(0, current.shape[:2])
        return unfolded

    def _consistent(self, current: Tensor) -> Tensor:
        """Of `[N, C, ...]`."""
        given, pattern = wide(current), self.pattern
        result = given
        for _ in range(self.iterations):
            result = given + connected(result.relu(), pattern)
        return result.to(current.dtype)

    def extra_repr(self) -> str:
        return f"iterations={self.iterations}, bound={self.bound}"
