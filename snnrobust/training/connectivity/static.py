"""Connections that are absent stay absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from snnrobust.training.connectivity.base import Connectivity, Wiring, silence, trained_synapses


@dataclass(frozen=True)
class Static(Connectivity):
    """Weights of convolutions and linear layers that are zero before the training are zero after every step.

    `M = [W != 0]` (CPAL 2025, section 3). The gradient is masked, so that momentum and moving averages of an optimizer
    never hear of absent connections, whose weight decay is zero as well; and the weights, whatever optimizer and
    defence do.
    """

    def wire(self, model: nn.Module, seed: int) -> Wiring:
        return _Masked(trained_synapses(model))


class _Masked(Wiring):
    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.masked = [(weight, weight.detach() == 0) for weight in weights]

    def before_step(self) -> None:
        for weight, absent in self.masked:
            silence(weight, absent)

    @torch.no_grad()
    def after_step(self, optimizer: Optimizer) -> None:
        for weight, absent in self.masked:
            weight.masked_fill_(absent, 0)  # a product with the mask would leave -0 of what is negative, and keep NaN

    def state(self) -> dict[str, Any]:
        """A weight may be zero by chance, so that absent connections cannot be read off the weights."""
        return {"absent": [absent for _, absent in self.masked]}

    def restore(self, state: Mapping[str, Any]) -> None:
        for (_, absent), kept in zip(self.masked, state["absent"], strict=True):
            absent.copy_(kept)
