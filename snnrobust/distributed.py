"""Several processes that do one run together, one per device, as `torchrun` and `srun` start them.

Without such a start there is one process, and everything here does nothing. All processes take the same decisions from
the same numbers; what they have to tell each other passes through this file alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor


def size() -> int:
    """Processes that do this run together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this one, from 0; the first one writes, shows and tracks."""
    return dist.get_rank() if dist.is_initialized() else 0


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replaces every tensor by its sum over all processes, in place; the same bits everywhere."""
    if size() == 1:
        return
    for tensor in tensors:
        dist.all_reduce(tensor, op=dist.ReduceOp.SUM)


def gathered(value: Any) -> list[Any]:
    """What every process has, in their order; plain containers and tensors."""
    if size() == 1:
        return [value]
    found: list[Any] = [None] * size()
    dist.all_gather_object(found, value)
    return found
