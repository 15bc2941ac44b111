"""What a layer of spiking neurons computes, apart from any choice of derivative: plain tensors, eager torch.

Time-major throughout: a current `i` is `[T, N, ...]`, or `[1, N, ...]` where all steps are equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dynamics:
    """Integrate-and-fire with hard reset to 0, from rest (`v_0 = 0`).

    `u_t = leak v_{t-1} + gain i_t`; `s_t = [u_t >= threshold]`; `v_t = (1 - s_t) u_t`.

    Args:
        threshold: firing threshold.
        tau: membrane time constant in steps; None for no leak.
        decay_input: the current is scaled by `1/tau`.
        detach_reset: the gradient does not pass through the reset.
    """

    threshold: float
    tau: float | None = None
    decay_input: bool = False
    detach_reset: bool = False

    @property
    def leak(self) -> float:
        return 1.0 if self.tau is None else 1.0 - 1.0 / self.tau

    @property
    def gain(self) -> float:
        return 1.0 / self.tau if self.tau is not None and self.decay_input else 1.0

    def charge(self, v: Tensor, i: Tensor) -> Tensor:
        """The potential before the reset, with the roundings of SpikingJelly's operators."""
        if self.tau is None:
            return v + i
        return v + (i - v) / self.tau if self.decay_input else v - v / self.tau + i

    def potentials(self, current: Tensor, steps: int) -> Tensor:
        """`u` `[T, N, ...]` for `T = steps`, in the memory layout of the current."""
        v = torch.zeros_like(current[0])
        potentials = []
        for t in range(steps):
            u = self.charge(v, current[t if len(current) > 1 else 0])
            potentials.append(u)
            v = torch.where(u >= self.threshold, 0.0, u)
        return torch.stack(potentials)

    def through_time(self, grad: Tensor, u: Tensor, slope: Tensor) -> Tensor:
        """Exact backpropagation through time, given the derivative of every spike.

        `du_t = ds_t g_t + dv_t ((1 - s_t) - u_t g_t)`, without the last term if the reset is detached;
        `di_t = gain du_t`; `dv_{t-1} = leak du_t`.

        Args:
            grad: `ds` `[T, N, ...]`.
            u: potentials before the reset.
            slope: `g` at every potential.

        Returns:
            `di` `[T, N, ...]`.
        """
        keep = (u < self.threshold).to(u.dtype)
        reset = keep if self.detach_reset else keep - u * slope
        direct = grad * slope
        result = torch.empty_like(u)
        carried = torch.zeros_like(u[0])
        for t in reversed(range(len(u))):
            du = direct[t] + carried * reset[t]
            result[t] = du
            carried = self.leak * du
        return result if self.gain == 1.0 else result.mul_(self.gain)
