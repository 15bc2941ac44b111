"""Spiking neurons without memory between calls: the membrane is a local variable that starts at rest.

A neuron is a pure function: nothing is ever reset, and two forwards in a row give the same spikes. It trains with
compiled kernels where they fit (`kernels.py`), else with SpikingJelly's multi-step operator (explicit initial state) or
with the dynamics as they are written. While a gradient estimator is applied, the backward pass is the estimator's rule;
while a pass is recorded, it consists of plain torch operations. The spikes are the same in all of them, bit for bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from snnrobust.settings import AboveOne, Positive
from snnrobust.spiking import kernels
from snnrobust.spiking.drawing import Drawing
from snnrobust.spiking.dynamics import Dynamics, IntegrateAndFire, Membrane
from snnrobust.spiking.surrogate import Surrogate, twice_differentiable


@dataclass(frozen=True)
class Trace:
    """What one spiking layer did in one forward pass, for the rule that differentiates it.

    Args:
        potential: `u` `[T, N, ...]`, before the reset.
        mean_current: `[N, ...]`, the mean of the current over time; None unless the rule asks for it.
        dynamics: of the layer, with its parameters as they stood in the forward pass.
        surrogate: that the layer trains with.
        summed: the current is the same at every step: a rule may return the sum over time, `[1, N, ...]`.
    """

    potential: Tensor
    mean_current: Tensor | None
    dynamics: Dynamics
    surrogate: Surrogate
    summed: bool

    @property
    def membrane(self) -> Membrane:
        """The dynamics, for rules that need a membrane."""
        assert isinstance(self.dynamics, Membrane)
        return self.dynamics

    @property
    def spikes(self) -> Tensor:
        """`[T, N, ...]` in {0, 1}."""
        return (self.potential >= self.dynamics.threshold).to(self.potential.dtype)

    @property
    def distance(self) -> Tensor:
        """`q = u - threshold`."""
        return self.potential - self.dynamics.threshold

    def through_time(self, grad: Tensor, surrogate: Surrogate | None = None, slope: Tensor | None = None) -> Tensor:
        """Exact backpropagation through time with the derivative of `surrogate`, or with `slope` `[T, N, ...]`."""
        if slope is None and surrogate is not None and not self._inline(surrogate):
            slope = surrogate.derivative(self.distance)
        its = self.dynamics
        if kernels.fits(its, self.potential):
            return kernels.through_time(grad, self.potential, its, surrogate, slope, self.summed)
        assert slope is not None
        return its.through_time(grad, self.potential, slope)

    def _inline(self, surrogate: Surrogate) -> bool:
        return surrogate.name in kernels.INLINE and kernels.fits(self.dynamics, self.potential)


class Rule(ABC):
    """The backward pass of one spiking layer: what takes the place of the derivative of its spikes."""

    needs_current = False
    """True if it reads `Trace.mean_current`."""
    needs_membrane = False
    """True if it reads `Trace.membrane`; it does not apply to neurons without one."""
    pooled = False
    """True if it takes the gradient of pooled spikes as well, since it hands it on to `Trace.through_time` alone."""

    @abstractmethod
    def backward(self, grad: Tensor, trace: Trace) -> Tensor:
        """From `ds` `[T, N, ...]` to `di`, `[T, N, ...]` or, where `trace.summed`, its sum over time `[1, N, ...]`."""


class _Trained(Rule):
    """Backpropagation through time with the surrogate that the layer trains with."""

    pooled = True

    def backward(self, grad: Tensor, trace: Trace) -> Tensor:
        return trace.through_time(grad, trace.surrogate)


TRAINED_RULE = _Trained()
Observer = Callable[[Tensor, Tensor, Tensor], None]
"""Is told the currents, potentials and spikes of a layer, `[T, N, ...]` each, with their graph."""
REST: dict[str, float | None] = {"hard": 0.0, "soft": None}
"""What SpikingJelly's operators call a hard reset to 0 and a soft reset."""
Firing = Callable[[Tensor, int, Dynamics], tuple[Tensor, Tensor]]
"""Current, steps and dynamics to potentials and spikes; spikes may come averaged over 2x2 entries."""


def wide(x: Tensor) -> Tensor:
    """Float32 for bfloat16: what membranes compute in, whatever the network around them does."""
    return x.float() if x.dtype == torch.bfloat16 else x


def unrounded(x: Tensor) -> AbstractContextManager[object]:
    """Suspends autocast, which would round the products of matrices that some membranes are made of."""
    device = x.device.type
    rounding = not x.is_meta and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if rounding else nullcontext()


def threshold_gradient(du: Tensor, trace: Trace) -> Tensor:
    """`-sum_t (du_t - dv_t (1 - s_t))` over all entries, `dv_t = leak du_{t+1}`: the gradient of the threshold.

    A threshold acts by the spikes, `ds_t / dthreshold = -g_t`, and under a soft reset by what that takes away. With
    the recursion of `Membrane.through_time` both come to the same sum, whatever the reset and whether it is detached.

    Args:
        du: gradient of the potentials `[T, N, ...]`, from exact backpropagation through time.
        trace: of the layer.
    """
    its = trace.membrane
    own = du.clone()
    own[:-1] -= its.leak * du[1:] * (trace.potential[:-1] < its.threshold)
    return -own.sum()


def fire(current: Tensor, steps: int, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Potentials and spikes, `[T, N, ...]` each, by the kernels where they fit."""
    if kernels.fits(dynamics, current):
        return kernels.fire(current, steps, dynamics)
    potential = dynamics.potentials(wide(current), steps)
    return potential, (potential >= dynamics.threshold).to(current.dtype)


class Fire(torch.autograd.Function):
    """Current `[T, N, ...]` or `[1, N, ...]` to spikes, differentiated by a rule.

    A threshold gets its gradient from exact backpropagation through time with the trained surrogate alone; it is what
    the dynamics of the neuron fire at.
    """

    @staticmethod
    def forward(
        ctx: Any, current: Tensor, steps: int, neuron: Neuron, rule: Rule, firing: Firing, threshold: Tensor | None
    ) -> Tensor:
        dynamics = neuron.dynamics
        potential, spikes = firing(current, steps, dynamics)
        ctx.save_for_backward(potential, current.mean(0) if rule.needs_current else None)
        ctx.dynamics, ctx.surrogate, ctx.rule = dynamics, neuron.surrogate, rule
        ctx.constant = len(current) == 1 < steps
        ctx.learns = threshold is not None and ctx.needs_input_grad[5] and rule is TRAINED_RULE
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None, Tensor | None]:
        potential, mean_current = ctx.saved_tensors
        trace = Trace(potential, mean_current, ctx.dynamics, ctx.surrogate, ctx.constant and not ctx.learns)
        pooled = grad.shape != potential.shape
        full = _spread(grad) if pooled and not ctx.rule.pooled else grad
        result = ctx.rule.backward(full, trace)
        learned = threshold_gradient(wide(result) / trace.membrane.gain, trace) if ctx.learns else None
        result = result.to(grad.dtype)
        if ctx.constant and len(result) > 1:
            result = result.sum(0, keepdim=True)
        return result, None, None, None, None, learned


def _spread(grad: Tensor) -> Tensor:
    """The gradient of 2x2 average pooling: a quarter for each of the four entries."""
    spread: Tensor = F.interpolate(grad.flatten(0, 1) * 0.25, scale_factor=2.0, mode="nearest")
    full: Tensor = spread.unflatten(0, grad.shape[:2])
    return full


class Neuron(Drawing, ABC):
    """A layer of neurons, currents `[T, N, ...]` to spikes of the same shape in {0, 1}."""

    surrogate: Surrogate
    rule: Rule | None = None
    """Set while a gradient estimator is applied."""
    observer: Observer | None = None
    """Set while a pass is recorded."""

    @property
    def learned_threshold(self) -> Tensor | None:
        """The threshold of the dynamics with its graph, `[]`, where it is a parameter named `threshold`."""
        return None

    @property
    @abstractmethod
    def dynamics(self) -> Dynamics:
        """With the layer's parameters as they stand; where a graph is recorded, it leads to them."""

    def forward(self, current: Tensor) -> Tensor:
        rule = self.rule_for(current)
        if rule is not None:
            return self.fire(current, rule, fire)
        with unrounded(current):
            if self.observer is not None:
                return self._observed(current, self.observer)
            return self.operator(wide(self.driven(current))).to(current.dtype)

    def rule_for(self, current: Tensor) -> Rule | None:
        """What differentiates the spikes of this current; None if that is left to autograd."""
        if self.rule is not None or self.observer is not None:
            return self.rule
        learned = self._parameters.keys() - {"threshold"}
        return TRAINED_RULE if not learned and kernels.fits(self.dynamics, current) else None

    def fire(self, current: Tensor, rule: Rule, firing: Firing) -> Tensor:
        """Spikes of the currents `[T, N, ...]`, differentiated by `rule`."""
        with unrounded(current):
            current = self.driven(current)
            constant = len(current) > 1 and current.stride(0) == 0
            once = current[:1] if constant else current
            spikes: Tensor = Fire.apply(once, len(current), self, rule, firing, self.learned_threshold)
        return spikes

    def _observed(self, current: Tensor, observer: Observer) -> Tensor:
        driven = wide(self.driven(current))
        potential, spikes = self.dynamics.run(driven, len(driven), twice_differentiable(self.surrogate))
        observer(driven, potential, spikes)
        return spikes.to(current.dtype)

    def driven(self, current: Tensor) -> Tensor:
        """The current that charges the membranes: what arrives, unless a layer adds to it."""
        return current

    def operator(self, current: Tensor) -> Tensor:
        """The layer as it trains; a faster form gives the same spikes."""
        return self.dynamics.run(current, len(current), self.surrogate.spike)[1]


NeuronFactory = Callable[[], nn.Module]
"""Makes one layer: neurons, or an activation in their place."""


class LIF(Neuron):
    """Leaky integrate-and-fire.

    `u_t = (1 - 1/tau) v_{t-1} + k i_t` with `k = 1/tau` if `decay_input` else 1; `s_t = [u_t >= threshold]`;
    `v_t = (1 - s_t) u_t` (hard reset) or `v_t = u_t - threshold s_t` (soft reset).

    Args:
        tau: membrane time constant in steps; `IF` is the limit without a leak.
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
        decay_input: bool = False,
        detach_reset: bool = False,
        reset: Literal["hard", "soft"] = "hard",
    ) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.threshold, self.tau = float(threshold), float(tau)
        self._dynamics = IntegrateAndFire(self.threshold, self.tau, decay_input, detach_reset, reset)

    @property
    def dynamics(self) -> IntegrateAndFire:
        return self._dynamics

    def operator(self, current: Tensor) -> Tensor:
        its, rest = self._dynamics, torch.zeros_like(current[0])
        spikes: Tensor = functional.lif_multi_step(
            current, rest, tau=self.tau, decay_input=its.decay_input, v_threshold=self.threshold,
            v_reset=REST[its.reset], surrogate_function=self.surrogate.spike, detach_reset=its.detach_reset,
        )[0]  # fmt: skip
        return spikes

    def extra_repr(self) -> str:
        its = self._dynamics
        return f"tau={self.tau}, threshold={self.threshold}, decay_input={its.decay_input}, reset={its.reset}"


class IF(Neuron):
    """Integrate-and-fire: `u_t = v_{t-1} + i_t`; spikes and reset as of `LIF`.

    Args:
        threshold: firing threshold.
        detach_reset: cut the gradient through the reset.
        reset: to 0, or by the threshold.
        surrogate: derivative of the spike.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        threshold: Positive = 1.0,
        detach_reset: bool = False,
        reset: Literal["hard", "soft"] = "hard",
    ) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.threshold = float(threshold)
        self._dynamics = IntegrateAndFire(self.threshold, detach_reset=detach_reset, reset=reset)

    @property
    def dynamics(self) -> IntegrateAndFire:
        return self._dynamics

    def operator(self, current: Tensor) -> Tensor:
        its, rest = self._dynamics, torch.zeros_like(current[0])
        spikes: Tensor = functional.if_multi_step(
            current, rest, v_threshold=self.threshold, v_reset=REST[its.reset],
            surrogate_function=self.surrogate.spike, detach_reset=its.detach_reset,
        )[0]  # fmt: skip
        return spikes

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, reset={self._dynamics.reset}"
