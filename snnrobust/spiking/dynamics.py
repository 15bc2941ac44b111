"""What a layer of spiking neurons computes, apart from any choice of derivative: plain tensors, eager torch.

Time-major throughout: a current `i` is `[T, N, ...]`, or `[1, N, ...]` where all steps are equal. Dynamics are values:
those of a layer that learns are made anew for every forward, from its parameters as they stand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Number = float | Tensor
"""A tensor has no dimensions, or those of one step of one sample."""
Spike = Callable[[Tensor], Tensor]
"""`q` to `[q >= 0]`, with a derivative of choice."""


class Dynamics(ABC):
    """Currents to potentials; a neuron fires where its potential is at least `threshold`."""

    threshold: Number

    @abstractmethod
    def run(self, current: Tensor, steps: int, spike: Spike) -> tuple[Tensor, Tensor]:
        """Potentials `u` and spikes, `[T, N, ...]` each for `T = steps`, with the graph for autograd."""

    @abstractmethod
    def through_time(self, grad: Tensor, u: Tensor, slope: Tensor) -> Tensor:
        """Exact backpropagation through time, given the derivative of every spike.

        Args:
            grad: `ds` `[T, N, ...]`.
            u: potentials.
            slope: `g` at every potential.

        Returns:
            `di` `[T, N, ...]`.
        """

    def potentials(self, current: Tensor, steps: int) -> Tensor:
        """`u` `[T, N, ...]` for `T = steps`, without a graph."""
        with torch.no_grad():
            return self.run(current, steps, lambda q: (q >= 0).to(q.dtype))[0]


class Membrane(Dynamics):
    """A potential that integrates its current step by step, from rest (`v_0 = 0`), and is reset by a spike.

    `u_t = f_t(v_{t-1}, s_{t-1}) + gain i_t`; `s_t = [u_t >= threshold]`; `v_t = (1 - s_t) u_t` (hard reset) or
    `v_t = u_t - threshold s_t` (soft reset). A subclass says what `f` is; everything else follows from it.
    """

    reset: Literal["hard", "soft"]
    detach_reset: bool

    @property
    @abstractmethod
    def leak(self) -> Number:
        """What is kept of `v` from step to step, where a rate has to be derived; its mean if it changes."""

    @property
    @abstractmethod
    def gain(self) -> Number:
        """Of the current."""

    @abstractmethod
    def charge(self, v: Tensor, s: Tensor, i: Tensor, t: int) -> Tensor:
        """`u_t` from `v_{t-1}`, `s_{t-1}` and `i_t`, for `t` from 0; differentiable."""

    def discharge(self, du: Tensor, before: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
        """From `du_t` to `dv_{t-1}` and `ds_{t-1}` (None without a connection), for `before = u_{t-1}`.

        By autograd of `charge`, unless a subclass writes it out.
        """
        fired = (before >= self.threshold).to(before.dtype)
        kept = self._kept(before, fired)
        with torch.enable_grad():
            v, s = kept.detach().requires_grad_(), fired.requires_grad_()
            u = self.charge(v, s, torch.zeros_like(v), t)
            dv, ds = torch.autograd.grad(u, (v, s), du, allow_unused=True)
        return torch.zeros_like(du) if dv is None else dv, ds

    def run(self, current: Tensor, steps: int, spike: Spike) -> tuple[Tensor, Tensor]:
        v = s = torch.zeros_like(current[0])
        potentials, spikes = [], []
        for t in range(steps):
            u = self.charge(v, s, current[t if len(current) > 1 else 0], t)
            s = spike(u - self.threshold)
            v = self._kept(u, s.detach() if self.detach_reset else s)
            potentials.append(u)
            spikes.append(s)
        return torch.stack(potentials), torch.stack(spikes)

    def _kept(self, u: Tensor, s: Tensor) -> Tensor:
        """`v`: what the reset leaves of a potential."""
        return u - s * self.threshold if self.reset == "soft" else (1.0 - s) * u

    def through_time(self, grad: Tensor, u: Tensor, slope: Tensor) -> Tensor:
        """`du_t = ds_t g_t + dv_t ((1 - s_t) - u_t g_t)`, or `... dv_t (1 - threshold g_t)` with a soft reset, without
        the last term if the reset is detached; `di_t = gain du_t`; `dv_{t-1}` and what it adds to `ds_{t-1}` by
        `discharge`.
        """
        reset = self._reset_slope(u, slope)
        direct = grad * slope
        result = torch.empty_like(u)
        carried, fed_back = torch.zeros_like(u[0]), None
        for t in reversed(range(len(u))):
            du = direct[t] + carried * reset[t]
            if fed_back is not None:
                du = du + fed_back * slope[t]
            result[t] = du
            if t > 0:
                carried, fed_back = self.discharge(du, u[t - 1], t)
        gain = self.gain
        return result if isinstance(gain, float) and gain == 1.0 else result.mul_(gain)

    def _reset_slope(self, u: Tensor, slope: Tensor) -> Tensor:
        """`dv_t / du_t`."""
        if self.reset == "soft":
            return torch.ones_like(u) if self.detach_reset else 1.0 - self.threshold * slope
        keep = (u < self.threshold).to(u.dtype)
        return keep if self.detach_reset else keep - u * slope


class Unconnected(Membrane):
    """A membrane that no spike of the layer acts on, but for its own reset: `charge` does not read `s`."""

    def potentials(self, current: Tensor, steps: int) -> Tensor:
        """`u` `[T, N, ...]` for `T = steps`, in the memory layout of the current."""
        v = torch.zeros_like(current[0])
        potentials = []
        for t in range(steps):
            u = self.charge(v, v, current[t if len(current) > 1 else 0], t)
            potentials.append(u)
            v = torch.where(u >= self.threshold, u - self.threshold if self.reset == "soft" else 0.0, u)
        return torch.stack(potentials)


@dataclass(frozen=True, eq=False)
class IntegrateAndFire(Unconnected):
    """`u_t = leak v_{t-1} + gain i_t`, with a constant leak.

    Args:
        threshold: firing threshold.
        tau: membrane time constant in steps; None for no leak.
        decay_input: the current is scaled by `1/tau`.
        detach_reset: the gradient does not pass through the reset.
        reset: to 0 (hard), or by the threshold (soft).
    """

    threshold: Number
    tau: float | None = None
    decay_input: bool = False
    detach_reset: bool = False
    reset: Literal["hard", "soft"] = "hard"

    @property
    def leak(self) -> Number:
        return 1.0 if self.tau is None else 1.0 - 1.0 / self.tau

    @property
    def gain(self) -> Number:
        return 1.0 / self.tau if self.tau is not None and self.decay_input else 1.0

    def charge(self, v: Tensor, s: Tensor, i: Tensor, t: int) -> Tensor:
        """With the roundings of SpikingJelly's operators."""
        if self.tau is None:
            return v + i
        return v + (i - v) / self.tau if self.decay_input else v - v / self.tau + i

    def discharge(self, du: Tensor, before: Tensor, t: int) -> tuple[Tensor, None]:
        return self.leak * du, None


@dataclass(frozen=True, eq=False)
class ParametricLeak(Unconnected):
    """The same with `1/tau = decay`, which is learned.

    Args:
        decay: in (0, 1), without dimensions.
        threshold, decay_input, detach_reset, reset: as of `IntegrateAndFire`.
    """

    decay: Tensor
    threshold: Number
    decay_input: bool
    detach_reset: bool
    reset: Literal["hard", "soft"]

    @property
    def leak(self) -> Number:
        return 1.0 - self.decay

    @property
    def gain(self) -> Number:
        return self.decay if self.decay_input else 1.0

    def charge(self, v: Tensor, s: Tensor, i: Tensor, t: int) -> Tensor:
        """With the roundings of SpikingJelly's operators."""
        return v + (i - v) * self.decay if self.decay_input else v - v * self.decay + i

    def discharge(self, du: Tensor, before: Tensor, t: int) -> tuple[Tensor, None]:
        return self.leak * du, None


@dataclass(frozen=True, eq=False)
class Extended(Membrane):
    """A membrane that adds something to another one, and is like that one otherwise.

    Args:
        base: the other one.
    """

    base: IntegrateAndFire

    @property
    def threshold(self) -> Number:  # type: ignore[override]
        return self.base.threshold

    @property
    def reset(self) -> Literal["hard", "soft"]:  # type: ignore[override]
        return self.base.reset

    @property
    def detach_reset(self) -> bool:  # type: ignore[override]
        return self.base.detach_reset

    @property
    def leak(self) -> Number:
        return self.base.leak

    @property
    def gain(self) -> Number:
        return self.base.gain
