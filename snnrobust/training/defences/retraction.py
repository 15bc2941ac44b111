"""What SNN-RAT does to the weights after a step: they are pulled towards orthogonal rows, and shares to the simplex."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnrobust.models.residual import ConvexCombination

MANY = 200
"""Rows from which on a linear layer is retracted in part: its Gram matrix would cost more than the layer."""
SHARE = 0.3
"""Of the rows of such a layer, drawn anew at every step."""


@torch.no_grad()
def retract(model: nn.Module, beta: float) -> None:
    """`W <- W - beta (W W^T - I) W` for every convolution and linear layer that is trained, in place.

    Weights are `[out, in]`, those of convolutions `[out, in * kernel]`. This is a gradient step on
    `||W W^T - I||^2 / 4`. Of a linear layer with 200 rows or more, 30 % of the rows are retracted among themselves;
    which, is drawn from torch's global stream.
    """
    for module in model.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear) or not module.weight.requires_grad:
            continue
        rows = module.weight.flatten(1)
        if isinstance(module, nn.Linear) and len(rows) >= MANY:
            drawn = torch.randperm(len(rows))[: round(SHARE * len(rows))].to(rows.device)
            module.weight[drawn] = retracted(rows[drawn], beta)
        else:
            module.weight.copy_(retracted(rows, beta).view_as(module.weight))


def retracted(weight: Tensor, beta: float) -> Tensor:
    """`(1 + beta) W - beta W W^T W` for `[m, n]`, by way of the smaller of the two Gram matrices."""
    rows, columns = weight.shape
    cube = (weight @ weight.T) @ weight if rows <= columns else weight @ (weight.T @ weight)
    return (1 + beta) * weight - beta * cube


@torch.no_grad()
def make_convex(model: nn.Module) -> None:
    """Moves the shares of every `ConvexCombination` to the nearest ones that are convex, in place."""
    for module in model.modules():
        if isinstance(module, ConvexCombination):
            module.shares.copy_(simplex(module.shares))


def simplex(shares: Tensor) -> Tensor:
    """The nearest point to `[n]` in `{c >= 0, sum c = 1}` (Held, Wolfe and Crowder 1974; Duchi et al. 2008)."""
    falling = shares.sort(descending=True).values
    ranks = torch.arange(1, len(shares) + 1, device=shares.device)
    above = falling.cumsum(0) - 1
    kept = int((ranks * falling > above).sum())
    return (shares - above[kept - 1] / kept).clamp_min(0)
