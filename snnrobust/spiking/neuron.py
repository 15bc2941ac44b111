"""Spiking neurons without memory between calls: the membrane is a local variable that starts at rest.

The dynamics are SpikingJelly's functional multi-step operators (explicit initial state), so nothing is ever reset and
two forwards in a row give the same spikes. `u` is the membrane before, `v` after the reset, `i` the input current.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from snnrobust.settings import AboveOne, Positive
from snnrobust.spiking.surrogate import Surrogate


class Neuron(nn.Module, ABC):
    """A layer of neurons, currents `[T, N, ...]` to spikes of the same shape in {0, 1}."""

    @abstractmethod
    def forward(self, current: Tensor) -> Tensor: ...


NeuronFactory = Callable[[], Neuron]


class LIF(Neuron):
    """Leaky integrate-and-fire with hard reset to 0.

    `u_t = (1 - 1/tau) v_{t-1} + k i_t` with `k = 1/tau` if `decay_input` else 1; `s_t = [u_t >= threshold]`;
    `v_t = (1 - s_t) u_t`.

    Args:
        tau: membrane time constant in steps; `IF` is the limit without a leak.
        threshold: firing threshold.
        decay_input: scale the current by `1/tau`.
        detach_reset: cut the gradient through the reset.
        surrogate: derivative of the spike.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        tau: AboveOne = 2.0,
        threshold: Positive = 1.0,
        decay_input: bool = False,
        detach_reset: bool = False,
    ) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.tau, self.threshold = float(tau), float(threshold)
        self.decay_input, self.detach_reset = decay_input, detach_reset

    def forward(self, current: Tensor) -> Tensor:
        rest = torch.zeros_like(current[0])
        spikes: Tensor = functional.lif_multi_step(
            current, rest, tau=self.tau, decay_input=self.decay_input, v_threshold=self.threshold, v_reset=0.0,
            surrogate_function=self.surrogate, detach_reset=self.detach_reset,
        )[0]  # fmt: skip
        return spikes

    def extra_repr(self) -> str:
        return f"tau={self.tau}, threshold={self.threshold}, decay_input={self.decay_input}"


class IF(Neuron):
    """Integrate-and-fire with hard reset to 0: `u_t = v_{t-1} + i_t`; `s_t = [u_t >= threshold]`.

    Args:
        threshold: firing threshold.
        detach_reset: cut the gradient through the reset.
        surrogate: derivative of the spike.
    """

    def __init__(self, surrogate: Surrogate, threshold: Positive = 1.0, detach_reset: bool = False) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.threshold, self.detach_reset = float(threshold), detach_reset

    def forward(self, current: Tensor) -> Tensor:
        rest = torch.zeros_like(current[0])
        spikes: Tensor = functional.if_multi_step(
            current, rest, v_threshold=self.threshold, v_reset=0.0,
            surrogate_function=self.surrogate, detach_reset=self.detach_reset,
        )[0]  # fmt: skip
        return spikes

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}"
