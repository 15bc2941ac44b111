"""Several processes that do one run together, one per device, as `torchrun` and `srun` start them.

Without such a start there is one process, and everything here does nothing. All processes take the same decisions from
the same numbers; what they have to tell each other passes through this file alone.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from snnrobust.job import RunFailed
from snnrobust.placement import Placement

log = logging.getLogger(__name__)

JOINING = timedelta(minutes=10)
"""How long the first process to arrive waits for the last."""
PATIENCE = timedelta(hours=1)
"""How long a process waits for what another has to tell; one that ends is noticed at once."""
FAREWELL = timedelta(seconds=10)
"""How long a process that failed waits for the first one to record why, before it ends and all are ended with it."""
PORT = "29500"
"""Where processes meet if `MASTER_PORT` does not say so."""
FAILED, LEFT = "snnrobust/failed", "snnrobust/left"

Value = TypeVar("Value")

_store: Store | None = None


class Lost(RunFailed):
    """Another process of this run has failed, has been ended, or does not answer: one line."""


def size() -> int:
    """Processes that do this run together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this one, from 0; the first one writes, shows and tracks."""
    return dist.get_rank() if dist.is_initialized() else 0


def warn(text: str) -> None:
    """Said once, by the first process: in the log of the run and on standard error."""
    if rank() == 0:
        log.warning(text)
        print(f"warning: {text}", file=sys.stderr)


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replaces every tensor by its sum over all processes, in place; the same bits everywhere.

    Raises:
        Lost: if one of them is gone.
    """
    if size() == 1:
        return
    with _answered():
        for tensor in tensors:
            dist.all_reduce(tensor, op=dist.ReduceOp.SUM)


def gathered(value: Any) -> list[Any]:
    """What every process has, in their order; plain containers and tensors.

    Raises:
        Lost: if one of them is gone.
    """
    if size() == 1:
        return [value]
    found: list[Any] = [None] * size()
    with _answered():
        dist.all_gather_object(found, value)
    return found


def from_first(make: Callable[[], Value]) -> Value:
    """What `make` returns in the first process, the only one that calls it.

    Raises:
        Lost: in the others, if it raised there.
    """
    if size() == 1:
        return make()
    told = [make() if rank() == 0 else None]
    with _answered():
        dist.broadcast_object_list(told, src=0)
    value: Value = told[0]  # type: ignore[assignment]
    return value


@contextmanager
def joined(place: Placement) -> Iterator[None]:
    """Stands together with the processes that were started with this one until the end of the body.

    Objects pass through gloo, and so do tensors on the CPU; tensors on CUDA devices pass through nccl, where each
    process has the device of its number on its machine. A body that raises in one process ends all of them: each finds
    out when it next needs the others, and the one that failed waits until the first has had the time to record it.

    Raises:
        Lost: if the others do not come.
    """
    global _store
    _store = store = _meeting(place)
    failed = False
    try:
        yield
    except BaseException as error:
        failed = not isinstance(error, Lost)
        if failed:
            _tell(store, place, error)
        raise
    finally:
        _store = None
        dist.destroy_process_group()
        with suppress(RuntimeError):  # the store may have gone with its process
            if place.rank == 0:
                store.set(LEFT, "")
            elif failed:
                store.wait([LEFT], FAREWELL)


def _meeting(place: Placement) -> Store:
    """Waits for the others; returns what all can read and write even when their connections are closed."""
    os.environ.setdefault("MASTER_PORT", PORT)
    backend = "gloo"
    try:
        if torch.cuda.is_available():
            torch.cuda.set_device(place.local)
            backend = "cpu:gloo,cuda:nccl"
        store: Store
        store, rank, size = next(iter(rendezvous("env://", place.rank, place.size, timeout=JOINING)))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    except (RuntimeError, ValueError, OSError) as error:
        raise Lost(f"the others could not be reached ({' '.join(str(error).split())[:200]})") from error
    return store


def _tell(store: Store, place: Placement, error: BaseException) -> None:
    line = " ".join(f"process {place.rank} of {place.size}: {type(error).__name__}: {error}".split())
    trace = "".join(traceback.format_exception(error))
    with suppress(RuntimeError):
        store.set(FAILED, f"{line}\n{trace}")


@contextmanager
def _answered() -> Iterator[None]:
    """Turns what torch raises when a process is gone into the reason that it left, if it left any."""
    try:
        yield
    except RuntimeError as error:
        reason, trace = " ".join(str(error).split())[:200], ""
        with suppress(RuntimeError):
            if _store is not None and _store.check([FAILED]):
                reason, _, trace = _store.get(FAILED).decode(errors="replace").partition("\n")
        lost = Lost(f"another process of this run has failed ({reason})")
        if trace:
            lost.add_note(trace)
        raise lost from error
