"""Connections between the neurons of a layer: the spikes of one step act on the potentials of the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional as F
from torch.nn.parameter import UninitializedParameter

from snnrobust.settings import AboveOne, Positive
from snnrobust.spiking.dynamics import Extended, IntegrateAndFire
from snnrobust.spiking.neuron import wide
from snnrobust.spiking.neurons.shaped import Shaped
from snnrobust.spiking.surrogate import Surrogate


@dataclass(frozen=True, eq=False)
class Connected(Extended):
    """`u_t = leak v_{t-1} + gain i_t + weight s_{t-1}`.

    Args:
        base: everything but the connections.
        weight: `[C]`, from each neuron to itself, by channel; or `[C, C]`, from every channel (columns) to every
            channel at the same place.
    """

    weight: Tensor

    def charge(self, v: Tensor, s: Tensor, i: Tensor, t: int) -> Tensor:
        return self.base.charge(v, s, i, t) + connected(s, self.weight)

    def discharge(self, du: Tensor, before: Tensor, t: int) -> tuple[Tensor, Tensor]:
        return self.leak * du, connected(du, self.weight.T if self.weight.dim() == 2 else self.weight)


def connected(x: Tensor, weight: Tensor) -> Tensor:
    """`weight x` over the channels of `[N, C, ...]`, elementwise for a weight `[C]`."""
    last = x.movedim(1, -1)
    return (F.linear(last, weight) if weight.dim() == 2 else last * weight).movedim(-1, 1)


class Recurrent(Shaped):
    """Integrate-and-fire, leaky or not, with learned connections within the layer, zero before training.

    `u_t = leak v_{t-1} + gain i_t + V s_{t-1}`. Two of the structures within a layer that "On the intrinsic structures
    of spiking neural networks" (arXiv 2207.04876) sets apart.

    Args:
        connections: `self`: every neuron to itself, with one weight per channel; `lateral`: all channels to all
            channels at the same place (all features to all features in a layer without space), with `[C, C]` weights.
        tau: membrane time constant in steps; None for no leak.
        threshold: firing threshold.
        decay_input: scale the current by `1/tau`.
        detach_reset: cut the gradient through the reset; that through the connections stays.
        reset: to 0, or by the threshold.
        surrogate: derivative of the spike.
    """

    learned = "weight"
    initial = 0.0

    def __init__(
        self,
        surrogate: Surrogate,
        connections: Literal["self", "lateral"] = "self",
        tau: AboveOne | None = 2.0,
        threshold: Positive = 1.0,
        decay_input: bool = False,
        detach_reset: bool = False,
        reset: Literal["hard", "soft"] = "hard",
    ) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.connections = connections
        self.weight = UninitializedParameter()
        tau = None if tau is None else float(tau)
        self.base = IntegrateAndFire(float(threshold), tau, decay_input, detach_reset, reset)

    @property
    def dynamics(self) -> Connected:
        return Connected(self.base, wide(self.weight))

    def shape_for(self, current: Tensor) -> tuple[int, ...]:
        channels = current.shape[2]
        return (channels,) if self.connections == "self" else (channels, channels)

    def extra_repr(self) -> str:
        its = self.base
        return f"connections={self.connections}, tau={its.tau}, threshold={its.threshold}, reset={its.reset}"
