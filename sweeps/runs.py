"""Runs of the command line, several at a time; what is on record is not run again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snnrobust.config import compose
from snnrobust.job import Job, results_of
from snnrobust.launchers.base import Task
from snnrobust.launchers.parallel import Parallel
from snnrobust.sweeping import sweep

Overrides = tuple[str, ...]


def job(overrides: Overrides) -> Job:
    """What `snnrobust train` with these overrides is."""
    composed = compose("config", overrides)
    return Job(composed.config, composed.choices, overrides, "train")


def results(overrides: Overrides) -> dict[str, Any] | None:
    """The results of a run, if they are there."""
    return results_of(job(overrides))


def run_all(wanted: Mapping[str, Overrides], workers: int) -> list[str]:
    """Runs what is missing, and returns one line per failure.

    Args:
        wanted: overrides of each run, by name.
        workers: processes at a time.
    """
    jobs = {name: job(overrides) for name, overrides in wanted.items()}
    tasks = [Task(name, one) for name, one in jobs.items() if results_of(one) is None]
    print(f"{len(wanted)} runs, {len(wanted) - len(tasks)} on record", flush=True)
    failures = sweep(tasks, Parallel(workers))
    return [f"{tasks[place].name}: {line}" for place, line in failures.items()]
