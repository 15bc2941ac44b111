"""Networks some of whose connections are absent, and what has to hold of them."""

from typing import Any

import torch
from torch import Tensor, nn

from snnrobust.spiking.synapses import synapses


def pruned(model: Any, sparsity: float = 0.7, seed: int = 0) -> Any:
    """The same model, in place: every weight is absent with that probability."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in synapses(model).values():
            weight.masked_fill_(torch.rand(weight.shape, generator=random) < sparsity, 0.0)
    return model


def pattern(model: nn.Module) -> dict[str, Tensor]:
    """By layer, which connections there are."""
    return {name: weight.detach() != 0 for name, weight in synapses(model).items()}


def count(patterns: dict[str, Tensor]) -> int:
    return sum(int(there.sum()) for there in patterns.values())


def is_plus_zero(values: Tensor) -> bool:
    """All of them, with all bits of a float zero."""
    return not bool(values.detach().view(torch.int32).any())
