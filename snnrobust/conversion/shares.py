"""The share of its connections that each layer keeps, learned as HARP learns it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from snnrobust.conversion.masks import strongest
from snnrobust.conversion.quotas import apportioned
from snnrobust.conversion.scores import Quotas
from snnrobust.training.defences.base import Moment

LEAST = 0.1
"""What every layer keeps at least, of the share that all layers keep together."""
MET = 5e-5
"""An excess that counts as none, as in the authors' code."""


class Shares(Quotas):
    """`a_l = a_min + (a_max - a_min) sigmoid(r_l)`, all alike in the beginning.

    In training mode the shares count as they stand until their excess is gone; from then on, and in eval mode at all
    times, they are scaled, so that exactly `kept` connections stay. `a_min` is a tenth of the share of `kept` in all
    weights, or one connection; `a_max` is what is there.

    Args:
        sizes: weights by layer.
        there: those that are not absent already, at least one of each layer.
        kept: how many are to stay.
        gamma: by which the price of the excess rises with every epoch.
        window: share of a layer's weights on either side of the threshold by which the threshold is moved.
    """

    def __init__(self, sizes: Sequence[int], there: Sequence[int], kept: int, gamma: float, window: float) -> None:
        super().__init__()
        self.sizes, self.there, self.kept = sizes, there, kept
        self.gamma, self.window = gamma, window
        share = kept / sum(sizes)
        most = [there_ / size for there_, size in zip(there, sizes, strict=True)]
        least = [min(max(LEAST * share, 1 / size), limit) for size, limit in zip(sizes, most, strict=True)]
        self.register_buffer("least", torch.tensor(least), persistent=False)
        self.register_buffer("most", torch.tensor(most), persistent=False)
        between = (share**0.5 - self.least) / (self.most - self.least)
        self.rates = nn.Parameter(between.nan_to_num(0.5).clamp(0.01, 0.99).logit())
        # Buffers, since a training that is taken up again needs them.
        self.register_buffer("price", torch.zeros((), dtype=torch.float64))
        self.register_buffer("met", torch.tensor(False))

    least: Tensor
    most: Tensor
    price: Tensor
    met: Tensor

    def shares(self) -> Tensor:
        """By layer, with a graph."""
        return self.least + (self.most - self.least) * self.rates.sigmoid()

    def excess(self) -> Tensor:
        """`max(sum_l a_l n_l / kept - 1, 0)`, of the shares as they stand, with a graph."""
        sizes = torch.tensor(self.sizes).to(self.rates)
        return ((self.shares() * sizes).sum() / self.kept - 1).relu()

    def count(self, layer: int) -> int:
        ideal: list[float] = [share * size for share, size in zip(self.shares().tolist(), self.sizes, strict=True)]
        if self.met or not self.training:
            return apportioned(ideal, self.there, self.kept)[layer]
        return min(max(round(ideal[layer]), 1), self.there[layer])

    def chosen(self, layer: int, importance: Tensor) -> Tensor:
        mask: Tensor = _Weighed.apply(importance, self.shares()[layer], self.count(layer), self.window)
        return mask

    def penalty(self, moment: Moment) -> Tensor:
        """The excess at a price of `gamma` times the epoch, which rises no further once the excess was gone."""
        excess = self.excess()
        if float(excess.detach()) < MET:
            self.met.fill_(True)
        if not self.met:
            self.price.fill_(self.gamma * moment.epoch)
        return float(self.price) * excess


class _Weighed(torch.autograd.Function):
    """The mask of the `count` largest entries, as 0 and 1, with a gradient to the share that they are.

    To the importance straight-through. To the share: raising it by `1 / n` adds the connection below the threshold,
    which changes the loss by its `dL/dm`; of such connections the mean is taken over a window, times `n`.
    """

    @staticmethod
    def forward(ctx: Any, importance: Tensor, share: Tensor, count: int, window: float) -> Tensor:
        ctx.save_for_backward(importance)
        ctx.count, ctx.width = count, max(1, round(window * importance.numel()))
        return strongest(importance, count).to(importance.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (importance,) = ctx.saved_tensors
        first, last = max(ctx.count - ctx.width, 0), min(ctx.count + ctx.width, importance.numel())
        near = strongest(importance, last) & ~strongest(importance, first)
        return grad, (grad * near).sum() * (importance.numel() / (last - first)), None, None
