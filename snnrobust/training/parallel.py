"""One training step by several processes: each learns from its part of every batch, and all take the same step.

Gradients and statistics are added up by hand, which is exact by sample: parts may differ in size or be empty, a loss
may need several forward passes, and a regularizer may differentiate twice. The wrapper of torch,
`DistributedDataParallel`, averages over processes whatever their parts are, and knows neither of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from snnrobust import distributed
from snnrobust.randomness import isolated


def least(model: nn.Module) -> int:
    """Samples that a pass in training mode needs: batch norm takes a variance."""
    return 2 if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()) else 1


def shares(samples: int, fewest: int) -> int:
    """Processes, the first ones, that have a part of a batch of so many samples; none has fewer than `fewest`."""
    return min(distributed.size(), max(1, samples // fewest))


def part(index: Tensor, fewest: int) -> Tensor:
    """What this process learns from: one of the contiguous parts of a batch, which may be empty."""
    parts = index.tensor_split(shares(len(index), fewest))
    return parts[distributed.rank()] if distributed.rank() < len(parts) else index[:0]


def own(batches: Sequence[Tensor]) -> Sequence[Tensor]:
    """Those of the batches that this process looks at where nothing is learned from them."""
    return batches[distributed.rank() :: distributed.size()]


def buffers_of(model: nn.Module) -> list[Tensor]:
    """Copies of its buffers, for `average_buffers`; none where there is nobody to share them with."""
    return [buffer.detach().clone() for buffer in model.buffers()] if distributed.size() > 1 else []


@torch.no_grad()
def agree(model: nn.Module) -> None:
    """Weights and buffers become those of the first process, whatever computed them in the others."""
    if distributed.size() == 1:
        return
    for tensor in (*model.parameters(), *model.buffers()):
        content = tensor.double() if distributed.rank() == 0 else torch.zeros_like(tensor, dtype=torch.float64)
        distributed.add_up([content])
        tensor.copy_(content)


def anywhere(what: bool, device: torch.device) -> bool:
    """Whether it is so in any process."""
    if distributed.size() == 1:
        return what
    count = torch.tensor([float(what)], device=device)
    distributed.add_up([count])
    return bool(count)


def total(count: int, device: torch.device) -> int:
    """The sum over all processes."""
    whole = torch.tensor([count], dtype=torch.float64, device=device)
    distributed.add_up([whole])
    return int(whole)


def add_up_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces gradients by their sums over all processes; one that no process has stays absent."""
    own = [parameter for parameter in parameters if parameter.requires_grad]
    if distributed.size() == 1 or not own:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in own]
    there = torch.tensor([float(p.grad is not None) for p in own], device=own[0].device)
    flat = torch.cat([gradient.flatten() for gradient in gradients] + [there])
    distributed.add_up([flat])
    *sums, there = flat.split([parameter.numel() for parameter in own] + [len(own)])
    for parameter, total, count in zip(own, sums, there.tolist(), strict=True):
        parameter.grad = total.view_as(parameter).to(parameter.dtype).clone() if count else None


def alike(*parts: object) -> AbstractContextManager[None]:
    """Runs its body with the same global streams in all processes, those of `isolated(*parts)`; where there is one
    process, with its own."""
    return isolated(*parts) if distributed.size() > 1 else nullcontext()


@torch.no_grad()
def average_buffers(model: nn.Module, before: Sequence[Tensor], sharing: int) -> None:
    """Moves buffers by the mean of what they moved by in a step, over the processes that had samples in it.

    Those that no pass changes keep their bits; whole numbers are taken from the first process.

    Args:
        model: after the passes of a step.
        before: its buffers before them.
        sharing: how many processes had samples, the first ones.
    """
    if distributed.size() == 1:
        return
    buffers, first, had = [*model.buffers()], distributed.rank() == 0, distributed.rank() < sharing
    if not buffers:
        return
    moved = [
        (buffer.double() - old.double()) * (had / sharing if buffer.is_floating_point() else float(first))
        for buffer, old in zip(buffers, before, strict=True)
    ]
    flat = torch.cat([change.flatten() for change in moved])
    distributed.add_up([flat])
    changes = flat.split([buffer.numel() for buffer in buffers])
    for buffer, old, change in zip(buffers, before, changes, strict=True):
        buffer.copy_(old.double() + change.view_as(old))
