"""Connections that are absent stay absent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snnrobust.spiking.synapses import synapses
from snnrobust.training.connectivity.base import Connectivity, Wiring


@dataclass(frozen=True)
class Static(Connectivity):
    """Weights of convolutions and linear layers that are zero before the training are zero after every step.

    `M = [W != 0]` (CPAL 2025, section 3). The gradient is masked, so that momentum and moving averages of an optimizer
    never hear of absent connections, whose weight decay is zero as well; and the weights, whatever the optimizer does.
    """

    def wire(self, model: nn.Module, seed: int) -> Wiring:
        return _Masked([*synapses(model).values()])


class _Masked(Wiring):
    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.masked = [(weight, weight.detach() != 0) for weight in weights if weight.requires_grad]

    def before_step(self) -> None:
        for weight, mask in self.masked:
            if weight.grad is not None:
                weight.grad.mul_(mask)

    @torch.no_grad()
    def after_step(self, lr: float) -> None:
        for weight, mask in self.masked:
            weight.mul_(mask)
