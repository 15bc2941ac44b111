"""A current that each neuron predicts from its own past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter

from snnrobust.settings import AboveOne, Positive
from snnrobust.spiking.dynamics import Extended, IntegrateAndFire, Spike
from snnrobust.spiking.neuron import wide
from snnrobust.spiking.neurons.recurrent import connected
from snnrobust.spiking.neurons.shaped import Shaped
from snnrobust.spiking.surrogate import Surrogate


@dataclass(frozen=True, eq=False)
class Predicting(Extended):
    """`u_t = leak v_{t-1} + gain i_t + strength p_{t-1}`, `p_t = p_{t-1} + (gain i_t - threshold s_t - p_{t-1}) / tau`.

    `p`, in units of the potential, averages the input that spikes did not account for; `p_0 = 0`.

    Args:
        base: everything but the prediction.
        strength: `[C]`, by channel.
        tau: time constant of `p` in steps, above 1.
    """

    strength: Tensor
    tau: float

    def charge(self, v: Tensor, s: Tensor, i: Tensor, t: int) -> Tensor:
        """Without the prediction, which depends on more than the step before."""
        return self.base.charge(v, s, i, t)

    def run(self, current: Tensor, steps: int, spike: Spike) -> tuple[Tensor, Tensor]:
        v = s = p = torch.zeros_like(current[0])
        potentials, spikes = [], []
        for t in range(steps):
            i = current[t if len(current) > 1 else 0]
            u = self.charge(v, s, i, t) + connected(p, self.strength)
            s = spike(u - self.threshold)
            v = self._kept(u, s.detach() if self.detach_reset else s)
            p = p + (self.gain * i - self.threshold * s - p) / self.tau
            potentials.append(u)
            spikes.append(s)
        return torch.stack(potentials), torch.stack(spikes)

    def through_time(self, grad: Tensor, u: Tensor, slope: Tensor) -> Tensor:
        """As of `Membrane`, with `dp_t` beside `dv_t`.

        `ds_t` loses `threshold dp_t / tau`; `di_t = gain (du_t + dp_t / tau)`;
        `dp_{t-1} = strength du_t + (1 - 1/tau) dp_t`.
        """
        reset = self._reset_slope(u, slope)
        result = torch.empty_like(u)
        dv = dp = torch.zeros_like(u[0])
        for t in reversed(range(len(u))):
            du = (grad[t] - self.threshold * dp / self.tau) * slope[t] + dv * reset[t]
            result[t] = self.gain * (du + dp / self.tau)
            dv = self.leak * du
            dp = connected(du, self.strength) + (1 - 1 / self.tau) * dp
        return result


class SelfPrediction(Shaped):
    """Integrate-and-fire with a current predicted from its own past (in the style of GSPE, 2026, arXiv 2601.21823).

    `u_t = leak v_{t-1} + gain i_t + strength p_{t-1}`, with `p` the exponential mean of past inputs minus past spikes,
    `gain i - threshold s`. The gradient passes through `p` from step to step without a surrogate. Our reading of the
    abstract: an internal prediction current from the neuron's own input-output history, on a continuous gradient path.
    `strength`, one per channel, is learned and 0 before training, where the neuron is the plain one. It may take either
    sign and is not bounded; `p` is, by inputs and threshold, whatever the strength.

    Args:
        tau_prediction: time constant of `p` in steps.
        tau: membrane time constant in steps; None for no leak.
        threshold: firing threshold.
        decay_input: scale the current by `1/tau`.
        detach_reset: cut the gradient through the reset; that through the prediction stays.
        reset: to 0, or by the threshold.
        surrogate: derivative of the spike.
    """

    learned = "strength"
    initial = 0.0

    def __init__(
        self,
        surrogate: Surrogate,
        tau_prediction: AboveOne = 2.0,
        tau: AboveOne | None = 2.0,
        threshold: Positive = 1.0,
        decay_input: bool = False,
        detach_reset: bool = False,
        reset: Literal["hard", "soft"] = "hard",
    ) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.tau_prediction = float(tau_prediction)
        self.strength = UninitializedParameter()
        tau = None if tau is None else float(tau)
        self.base = IntegrateAndFire(float(threshold), tau, decay_input, detach_reset, reset)

    @property
    def dynamics(self) -> Predicting:
        return Predicting(self.base, wide(self.strength), self.tau_prediction)

    def shape_for(self, x: Tensor) -> tuple[int, ...]:
        return (x.shape[2],)

    def extra_repr(self) -> str:
        its = self.base
        return f"tau_prediction={self.tau_prediction}, tau={its.tau}, threshold={its.threshold}, reset={its.reset}"
