"""Which connections stay, as masks, and what becomes of a network by them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from snnrobust.conversion.quotas import apportioned, remaining
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.synapses import synapses


def strongest(importance: Tensor, count: int) -> Tensor:
    """True for the `count` largest entries, exactly; of equal ones, for those that come first. Bool, of its shape.

    Args:
        importance: of any shape.
        count: 0 to the number of entries.
    """
    flat = importance.detach().flatten()
    if count in (0, flat.numel()):
        return torch.full_like(importance, bool(count), dtype=torch.bool)
    weakest = flat.kthvalue(flat.numel() - count + 1).values
    above, level = flat > weakest, flat == weakest
    return (above | (level & (level.cumsum(0) <= count - above.sum()))).view(importance.shape)


def connections(model: SpikingClassifier) -> tuple[dict[str, int], dict[str, int]]:
    """By layer, the number of weights, and of those that are not zero."""
    weights = synapses(model)
    there = {name: int(weight.count_nonzero()) for name, weight in weights.items()}
    return {name: weight.numel() for name, weight in weights.items()}, there


def uniform(sparsity: float, model: SpikingClassifier) -> dict[str, int]:
    """By layer, how many connections stay if each keeps the same share of its weights.

    Args:
        sparsity: share of absent weights that is asked for, of all layers together.
        model: whose zero weights are absent already, and stay so.

    Raises:
        ValueError: see `remaining`.
    """
    by_name, left = connections(model)
    sizes, there = [*by_name.values()], [*left.values()]
    return dict(zip(by_name, apportioned(sizes, there, remaining(sparsity, sizes, there)), strict=True))


@torch.no_grad()
def prune(model: SpikingClassifier, masks: Mapping[str, Tensor]) -> None:
    """Sets the weights of layers to zero where their masks are False, in place; the others keep their bits."""
    for name, weight in synapses(model).items():
        weight.masked_fill_(~masks[name], 0)
