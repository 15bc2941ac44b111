"""A leak of its own for every neuron and step, learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn.parameter import UninitializedParameter

from snnrobust.settings import Positive
from snnrobust.spiking.dynamics import Number, Unconnected
from snnrobust.spiking.neuron import wide
from snnrobust.spiking.neurons.shaped import Shaped
from snnrobust.spiking.surrogate import Surrogate


@dataclass(frozen=True, eq=False)
class Evolving(Unconnected):
    """`u_t = decay_t v_{t-1} + i_t`.

    Args:
        decay: `[T, ...]`, per step and neuron.
        threshold, detach_reset, reset: as of `IntegrateAndFire`.
    """

    decay: Tensor
    threshold: Number
    detach_reset: bool
    reset: Literal["hard", "soft"]

    @property
    def leak(self) -> Number:
        return self.decay.mean(0).clamp(0, 1)

    @property
    def gain(self) -> Number:
        return 1.0

    def charge(self, v: Tensor, s: Tensor, i: Tensor, t: int) -> Tensor:
        return self.decay[t] * v + i

    def discharge(self, du: Tensor, before: Tensor, t: int) -> tuple[Tensor, None]:
        return self.decay[t] * du, None


class EvolvingLeak(Shaped):
    """Integrate-and-fire with an evolving leak (FEEL-SNN, Xu et al., NeurIPS 2024): `u_t = leak_t v_{t-1} + i_t`.

    `leak`, `[T, C, H, W]` or `[T, K]`, is learned without bounds. The first step starts at rest, where its leak has no
    effect; it is there as published.

    Args:
        leak: of every neuron and step, before training.
        threshold: firing threshold.
        detach_reset: cut the gradient through the reset.
        reset: to 0, or by the threshold.
        surrogate: derivative of the spike.
    """

    learned = "leak"

    def __init__(
        self,
        surrogate: Surrogate,
        leak: float = 1.0,
        threshold: Positive = 1.0,
        detach_reset: bool = False,
        reset: Literal["hard", "soft"] = "hard",
    ) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.initial = float(leak)
        self.leak = UninitializedParameter()
        self.threshold = float(threshold)
        self.detach_reset = detach_reset
        self.reset: Literal["hard", "soft"] = reset

    @property
    def dynamics(self) -> Evolving:
        return Evolving(wide(self.leak), self.threshold, self.detach_reset, self.reset)

    def shape_for(self, current: Tensor) -> tuple[int, ...]:
        return (current.shape[0], *current.shape[2:])

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, reset={self.reset}"
