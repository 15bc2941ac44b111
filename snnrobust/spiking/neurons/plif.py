"""PLIF: a membrane time constant that is learned."""

from __future__ import annotations

import math
from typing import Literal

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from snnrobust.settings import AboveOne, Positive
from snnrobust.spiking.dynamics import ParametricLeak
from snnrobust.spiking.neuron import REST, Neuron, wide
from snnrobust.spiking.surrogate import Surrogate


class PLIF(Neuron):
    """Parametric leaky integrate-and-fire (Fang et al. 2021, arXiv 2007.05785).

    `LIF` with `1/tau = sigmoid(w)`; `w`, one number per layer, is learned.

    Args:
        tau: membrane time constant in steps, before training.
        threshold: firing threshold.
        decay_input: scale the current by `1/tau`.
        detach_reset: cut the gradient through the reset.
        reset: to 0, or by the threshold.
        surrogate: derivative of the spike.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        tau: AboveOne = 2.0,
        threshold: Positive = 1.0,
        decay_input: bool = True,
        detach_reset: bool = False,
        reset: Literal["hard", "soft"] = "hard",
    ) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.threshold = float(threshold)
        self.decay_input = decay_input
        self.detach_reset = detach_reset
        self.reset: Literal["hard", "soft"] = reset
        self.w = nn.Parameter(torch.tensor(-math.log(tau - 1.0)))

    @property
    def dynamics(self) -> ParametricLeak:
        decay = wide(self.w).sigmoid()
        return ParametricLeak(decay, self.threshold, self.decay_input, self.detach_reset, self.reset)

    def operator(self, current: Tensor) -> Tensor:
        spikes: Tensor = functional.plif_multi_step(
            current, torch.zeros_like(current[0]), wide(self.w), decay_input=self.decay_input,
            v_threshold=self.threshold, v_reset=REST[self.reset], surrogate_function=self.surrogate.spike,
            detach_reset=self.detach_reset,
        )[0]  # fmt: skip
        return spikes

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, decay_input={self.decay_input}, reset={self.reset}"
