"""Importance scores beside frozen weights, and the masks that they make."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from snnrobust.conversion.masks import strongest
from snnrobust.training.defences.base import Moment


class Quotas(nn.Module, ABC):
    """How many connections the layers keep while scores are learned; what it learns itself are its parameters."""

    @abstractmethod
    def count(self, layer: int) -> int:
        """Of the connections of a layer that stay; layers are numbered in the order of the model."""

    @abstractmethod
    def chosen(self, layer: int, importance: Tensor) -> Tensor:
        """The mask of the connections with the largest importance, 0 or 1, with a gradient to what is learned.

        Args:
            layer: its number.
            importance: of its shape, with a graph.
        """

    def penalty(self, moment: Moment) -> Tensor | float:
        """What is added to the loss."""
        return 0.0


class Scored(nn.Module):
    """A weight in training: `m * w`, where `m` is 1 for the connections with the largest `|s|`.

    Scores begin as `sqrt(6 / fan_in) w / max |w|` (HYDRA, Sehwag et al., NeurIPS 2020). Absent connections are never
    chosen.

    Args:
        weight: `[out, ...]`, not all zero.
        quotas: of the network.
        layer: the number of this one.
    """

    def __init__(self, weight: Tensor, quotas: Quotas, layer: int) -> None:
        super().__init__()
        weight = weight.detach()
        self.scores = nn.Parameter(math.sqrt(6 / weight[0].numel()) * weight / weight.abs().max())
        self.quotas = quotas
        self.layer = layer

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.quotas.chosen(self.layer, self._importance(weight))

    def mask(self, weight: Tensor) -> Tensor:
        """The connections that stay, bool."""
        return strongest(self._importance(weight), self.quotas.count(self.layer))

    def _importance(self, weight: Tensor) -> Tensor:
        return self.scores.abs().masked_fill(weight == 0, -1)


class Chosen(torch.autograd.Function):
    """Forward: the mask of the `count` largest entries, as 0 and 1. Backward: straight-through, `dm/da = 1`."""

    @staticmethod
    def forward(ctx: Any, importance: Tensor, count: int) -> Tensor:
        return strongest(importance, count).to(importance.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
