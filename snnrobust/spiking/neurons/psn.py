"""PSN: all steps at once, through a learned matrix in place of a membrane."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from snnrobust.settings import PositiveInt
from snnrobust.spiking.dynamics import Dynamics, Spike
from snnrobust.spiking.neuron import Neuron, wide
from snnrobust.spiking.surrogate import Surrogate


@dataclass(frozen=True, eq=False)
class Parallel(Dynamics):
    """`u = weight i + bias`, over time; `s = [u >= 0]`; nothing is reset.

    Args:
        weight: `[T, T]`, from the current of each step (columns) to the potential of each step.
        bias: `[T, 1]`, minus the thresholds.
    """

    weight: Tensor
    bias: Tensor
    threshold: ClassVar[float] = 0.0  # type: ignore[misc]

    def run(self, current: Tensor, steps: int, spike: Spike) -> tuple[Tensor, Tensor]:
        if steps != len(self.weight):
            raise ValueError(f"neuron.steps: got {len(self.weight)}; allowed: {steps}, the steps of the input")
        flat = current.expand(steps, *current.shape[1:]).flatten(1)
        u = torch.addmm(self.bias, self.weight, flat).view(steps, *current.shape[1:])
        return u, spike(u)

    def through_time(self, grad: Tensor, u: Tensor, slope: Tensor) -> Tensor:
        """`di = weight^T (ds g)`."""
        du = (grad * slope).flatten(1)
        return (self.weight.T @ du).view(grad.shape)


class PSN(Neuron):
    """Parallel spiking neuron (Fang et al. 2023, arXiv 2304.12760): `u = W i + b`; `s = [u >= 0]`.

    `W` `[T, T]` and `b` `[T, 1]`, one of each per layer, are learned; every step sees all steps, later ones too.

    Args:
        steps: T, that of the encoder.
        threshold: `-b` before training.
        surrogate: derivative of the spike.

    Raises:
        ValueError: in the forward pass, if the input has another number of steps.
    """

    def __init__(self, surrogate: Surrogate, steps: PositiveInt = 8, threshold: float = 1.0) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.weight = nn.Parameter(torch.empty(steps, steps))
        self.bias = nn.Parameter(torch.full((steps, 1), -float(threshold)))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    @property
    def dynamics(self) -> Parallel:
        return Parallel(wide(self.weight), wide(self.bias))

    def extra_repr(self) -> str:
        return f"steps={len(self.weight)}"
