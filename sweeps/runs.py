"""Runs of the command line, several at a time; what is on record is not run again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from snnrobust.config import compose
from snnrobust.job import Job, results_of

Overrides = tuple[str, ...]


def job(overrides: Overrides) -> Job:
    """What `snnrobust train` with these overrides is."""
    composed = compose("config", overrides)
    return Job(composed.config, composed.choices, overrides, "train")


def results(overrides: Overrides) -> dict[str, Any] | None:
    """The results of a run, if they are there."""
    return results_of(job(overrides))


def run_all(wanted: Sequence[tuple[str, Overrides]], workers: int) -> list[str]:
    """Runs what is missing, each in a process of its own, and returns one line per failure.

    Runs of the same training are done one after the other, by the lock of its directory. An interrupt ends the ones
    that are going on; the same call goes on later.

    Args:
        wanted: a name and the overrides of each run.
        workers: processes at a time.
    """
    missing = [(name, overrides) for name, overrides in wanted if results(overrides) is None]
    print(f"{len(wanted)} runs, {len(wanted) - len(missing)} on record", flush=True)
    return processes([(name, ("train", *overrides)) for name, overrides in missing], workers)


def processes(commands: Sequence[tuple[str, Sequence[str]]], workers: int) -> list[str]:
    """Runs `snnrobust` with the words of each command, and returns one line per failure.

    Args:
        commands: a name and the words of each.
        workers: processes at a time.
    """
    failures: list[str] = []
    start = time.perf_counter()

    def one(number: int, name: str, words: Sequence[str]) -> None:
        command = [sys.executable, "-m", "snnrobust", *words]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        took = f"{time.perf_counter() - began:.0f} s, {(time.perf_counter() - start) / 60:.0f} min in all"
        if done.returncode == 0:
            print(f"[{number}/{len(commands)}] {name}: {took}", flush=True)
            return
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        failures.append(f"{name}: {lines[-1] if lines else f'exit status {done.returncode}'}")
        print(f"[{number}/{len(commands)}] {failures[-1]}", flush=True)

    with ThreadPoolExecutor(workers) as pool:
        for future in [pool.submit(one, i, *run) for i, run in enumerate(commands, 1)]:
            future.result()
    return failures
