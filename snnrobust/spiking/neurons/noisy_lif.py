"""Noise on the membrane."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from snnrobust.randomness import fresh_normal
from snnrobust.settings import AboveOne, NonNegative, Positive
from snnrobust.spiking.dynamics import IntegrateAndFire
from snnrobust.spiking.neuron import Neuron, wide
from snnrobust.spiking.surrogate import Surrogate


class NoisyLIF(Neuron):
    """Integrate-and-fire, leaky or not, with `noise N(0, 1)` added to every potential before it is compared.

    The noisy LIF of threshold guarding (arXiv 2602.20548), where it is for training alone. Noise on a potential is
    noise of `1/gain` times its size on the current, and that is how it is computed: whatever differentiates the spikes
    sees it as part of the input.

    Args:
        noise: standard deviation, in units of the potential.
        when: in training mode alone; or always, which makes the classifier stochastic.
        tau: membrane time constant in steps; None for no leak.
        threshold: firing threshold.
        decay_input: scale the current by `1/tau`.
        detach_reset: cut the gradient through the reset.
        reset: to 0, or by the threshold.
        surrogate: derivative of the spike.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        noise: NonNegative = 0.2,
        when: Literal["training", "always"] = "training",
        tau: AboveOne | None = 2.0,
        threshold: Positive = 1.0,
        decay_input: bool = False,
        detach_reset: bool = False,
        reset: Literal["hard", "soft"] = "hard",
    ) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.noise = float(noise)
        self.when = when
        tau = None if tau is None else float(tau)
        self._dynamics = IntegrateAndFire(float(threshold), tau, decay_input, detach_reset, reset)

    @property
    def dynamics(self) -> IntegrateAndFire:
        return self._dynamics

    @property
    def stochastic(self) -> bool:
        return self.when == "always" and self.noise > 0

    def driven(self, current: Tensor) -> Tensor:
        """The current with the noise of this forward pass; samples draw from their own streams."""
        if self.noise == 0 or not (self.training or self.when == "always"):
            return current
        exact = wide(current)
        return (exact + fresh_normal(exact, batch=1) * (self.noise / self._dynamics.gain)).to(current.dtype)

    def extra_repr(self) -> str:
        its = self._dynamics
        return f"noise={self.noise}, when={self.when}, tau={its.tau}, threshold={its.threshold}, reset={its.reset}"
