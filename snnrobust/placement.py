"""Where this process stands among those that were started together for one run, as the environment says. Light.

`torchrun` sets `RANK`, `WORLD_SIZE` and `LOCAL_RANK`; `srun` sets `SLURM_PROCID`, `SLURM_NTASKS` and `SLURM_LOCALID`,
also for tasks that have nothing to do with each other: they count where `MASTER_ADDR` says that they are to meet.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from snnrobust.schema import ConfigError

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
SRUN = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")


@dataclass(frozen=True)
class Placement:
    """One of several processes.

    Args:
        rank: its number, from 0.
        size: of them all, at least 2.
        local: its number on its machine, which is that of its device.
    """

    rank: int
    size: int
    local: int


def placement(environment: Mapping[str, str] = os.environ) -> Placement | None:
    """None for a process that does its run alone.

    Raises:
        ConfigError: if the environment contradicts itself.
    """
    names = TORCHRUN if "WORLD_SIZE" in environment else SRUN
    if names[1] not in environment or "MASTER_ADDR" not in environment:
        return None
    try:
        rank, size, local = (int(environment[name]) for name in names)
    except (KeyError, ValueError):
        got = " ".join(f"{name}={environment.get(name, '')}" for name in names)
        raise ConfigError(f"environment: got {got}; allowed: whole numbers, as torchrun and srun set them") from None
    if not 0 <= rank < size:
        raise ConfigError(f"environment: got {names[0]}={rank}; allowed: 0 to {size - 1}, since {names[1]}={size}")
    return Placement(rank, size, local) if size > 1 else None
