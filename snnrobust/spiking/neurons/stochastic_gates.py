"""Gates behind the neurons that let each spike pass at random, with probabilities that are learned."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from snnrobust.randomness import fresh
from snnrobust.settings import LeftOpenFraction, Positive
from snnrobust.spiking.drawing import Drawing
from snnrobust.spiking.neuron import NeuronFactory, wide
from snnrobust.spiking.neurons.shaped import ShapedParameter

EDGE = 0.01
"""How far from 0 and 1 probabilities are kept in the slope, which grows without bound towards the ends."""


class StochasticGates(nn.Sequential):
    """Neurons, then stochastic gates (in the style of StoG, Ding et al., AAAI 2024): `s_t [U_t >= 1 - p]`.

    `p`, one per neuron, is learned and shared by all steps and samples; `U ~ U(0, 1)` is drawn anew for every step of
    every forward pass. Left out: the optimizer of its own, and the prior on `p`, whose part the optimizer's weight
    decay takes (a decay of g is the prior `g p^2 / 2`).

    Args:
        neuron: makes the neurons, of any kind.
        when: always, as published, which makes the classifier stochastic; or in training mode alone: in eval mode
            spikes are multiplied by `p`.
        probability: before training.
        minimum: that `p` can have.
        temperature: of the Concrete relaxation that `p` is differentiated through.

    Raises:
        ValueError: if `probability` is below `minimum`.
    """

    def __init__(
        self,
        neuron: NeuronFactory,
        when: Literal["training", "always"] = "always",
        probability: LeftOpenFraction = 1.0,
        minimum: LeftOpenFraction = 0.1,
        temperature: Positive = 0.5,
    ) -> None:
        if probability < minimum:
            raise ValueError(f"neuron.probability: got {probability:g}; allowed: {minimum:g} (neuron.minimum) to 1")
        gates = Gates(when, probability, minimum, temperature)
        super().__init__(OrderedDict(neuron=neuron(), gates=gates))


class Gates(ShapedParameter, Drawing):
    """The gates alone, on spikes `[T, N, ...]`; see `StochasticGates`.

    `raw` `[...]` is the parameter, `p` its clamp to `[minimum, 1]`. Gradients that would carry it further out do not
    pass, so that it can come back from either end.
    """

    learned = "raw"

    def __init__(self, when: Literal["training", "always"], probability: float, minimum: float, temperature: float):
        super().__init__()
        self.when = when
        self.initial = float(probability)
        self.minimum, self.temperature = float(minimum), float(temperature)
        self.raw = UninitializedParameter()

    @property
    def stochastic(self) -> bool:
        return self.when == "always"

    def shape_for(self, x: Tensor) -> tuple[int, ...]:
        return tuple(x.shape[2:])

    def forward(self, spikes: Tensor) -> Tensor:
        self.fit(spikes)
        if not (self.training or self.stochastic):
            mean: Tensor = spikes * self.raw.clamp(self.minimum, 1).to(spikes.dtype)
            return mean
        uniform = fresh(wide(spikes), batch=1)
        gated: Tensor = _Gated.apply(spikes, self.raw, uniform, self.minimum, self.temperature)
        return gated

    def extra_repr(self) -> str:
        return f"when={self.when}, minimum={self.minimum}, temperature={self.temperature}"


class _Gated(torch.autograd.Function):
    """Forward the spikes at open gates; backward to spikes through the same gates, to `raw` by the relaxation.

    Both can be differentiated again.
    """

    @staticmethod
    def forward(ctx: Any, spikes: Tensor, raw: Tensor, uniform: Tensor, minimum: float, temperature: float) -> Tensor:
        opened = uniform >= 1 - wide(raw).clamp(minimum, 1)
        learning = ctx.needs_input_grad[1]
        ctx.save_for_backward(*((spikes, raw, uniform) if learning else (opened,)))
        ctx.settings = minimum, temperature
        return spikes * opened

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        if not ctx.needs_input_grad[1]:
            (opened,) = ctx.saved_tensors
            return grad * opened, None, None, None, None
        spikes, raw, uniform = ctx.saved_tensors
        minimum, temperature = ctx.settings
        slope = gate_slope(wide(raw).clamp(minimum, 1), uniform, temperature)
        of_raw = _inward((wide(grad) * wide(spikes) * slope).sum((0, 1)), wide(raw), minimum)
        return _Gated.apply(grad, raw, uniform, minimum, temperature), of_raw.to(raw.dtype), None, None, None


def gate_slope(p: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """`d gate / d p` of the Concrete relaxation (Maddison et al. 2017) of a Bernoulli variable, finite for all `p`.

    The relaxed gate is `s = sigmoid((logit p + logit U) / temperature)`, hence `s (1 - s) / (temperature p (1 - p))`;
    the gate itself is `[s >= 1/2] = [U >= 1 - p]`.

    Args:
        p: in [0, 1]; the slope is that at the nearest value in [0.01, 0.99].
        uniform: U, in [0, 1).
        temperature: above 0.
    """
    p = p.clamp(EDGE, 1 - EDGE)
    s = ((p.logit() + uniform.logit(eps=1e-7)) / temperature).sigmoid()
    return s * (1 - s) / (temperature * p * (1 - p))


def _inward(grad: Tensor, raw: Tensor, minimum: float) -> Tensor:
    """0 where a step against the gradient would carry `raw` out of `[minimum, 1]`, or further out."""
    outward = ((raw >= 1) & (grad < 0)) | ((raw <= minimum) & (grad > 0))
    return grad.masked_fill(outward, 0)
