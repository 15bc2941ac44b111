"""A firing threshold that is learned."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from snnrobust.settings import AboveOne, Positive
from snnrobust.spiking.dynamics import IntegrateAndFire
from snnrobust.spiking.neuron import Neuron, wide
from snnrobust.spiking.surrogate import Surrogate


class TrainableThreshold(Neuron):
    """Integrate-and-fire, leaky or not, with one threshold per layer that is learned.

    The neuron of robust conversion (Özdenizci and Legenstein 2024, arXiv 2311.09266) with the defaults here: no leak,
    hard reset, attached. In a forward pass the threshold is at least `minimum`; its gradient is taken there, so that a
    threshold below can come back.

    Args:
        threshold: before training.
        minimum: below which it has no effect; at most `threshold`.
        tau: membrane time constant in steps; None for no leak.
        decay_input: scale the current by `1/tau`.
        detach_reset: cut the gradient through the reset.
        reset: to 0, or by the threshold.
        surrogate: derivative of the spike.

    Raises:
        ValueError: if `minimum` is above `threshold`: another threshold than the one given would fire.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        threshold: Positive = 1.0,
        minimum: Positive = 0.03,
        tau: AboveOne | None = None,
        decay_input: bool = False,
        detach_reset: bool = False,
        reset: Literal["hard", "soft"] = "hard",
    ) -> None:
        super().__init__()
        if minimum > threshold:
            raise ValueError(f"neuron.minimum: got {minimum:g}; allowed: at most neuron.threshold, {threshold:g}")
        self.surrogate = surrogate
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))
        self.minimum = minimum
        self.tau = None if tau is None else float(tau)
        self.decay_input = decay_input
        self.detach_reset = detach_reset
        self.reset: Literal["hard", "soft"] = reset

    @property
    def learned_threshold(self) -> Tensor:
        threshold = wide(self.threshold)
        return threshold + (threshold.clamp_min(self.minimum) - threshold).detach()

    @property
    def dynamics(self) -> IntegrateAndFire:
        return IntegrateAndFire(self.learned_threshold, self.tau, self.decay_input, self.detach_reset, self.reset)

    def extra_repr(self) -> str:
        return f"minimum={self.minimum}, tau={self.tau}, decay_input={self.decay_input}, reset={self.reset}"
