"""What a sweep consists of, and how far it is. Runs nothing and imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from snnrobust.claims import holder
from snnrobust.console import counted
from snnrobust.job import CHECKPOINT, EVALUATION_LOCK, FAILURE, STATE, TRAINING_LOCK, Job, read_json, results_of
from snnrobust.launchers.base import Task

State = Literal["done", "running", "failed", "begun", "todo"]
STATES: tuple[State, ...] = ("done", "running", "failed", "begun", "todo")


def state_of(job: Job) -> tuple[State, str]:
    """How far a run is, and what there is to say of that."""
    if results_of(job) is not None:
        return "done", ""
    owner = holder(job.folder / EVALUATION_LOCK) or holder(job.home / TRAINING_LOCK)
    if owner is not None:
        return "running", owner
    failure = read_json(job.folder / FAILURE)
    if failure is not None and failure.get("evaluation_signature") == job.evaluation:
        return "failed", str(failure["error"])
    if (job.home / CHECKPOINT).exists():
        return ("todo", "trained") if job.kind == "train" else ("todo", "")
    return ("begun", "goes on after its last epoch") if (job.home / STATE).exists() else ("todo", "")


def show(tasks: Sequence[Task]) -> None:
    """A line for each run, and a count."""
    found = [state_of(task.job) for task in tasks]
    for task, (state, note) in zip(tasks, found, strict=True):
        print(f"{state:8}{task.name}  {task.job.folder}{f'  ({note})' * bool(note)}")
    counts = Counter(state for state, _ in found)
    print(f"{counted(len(tasks))}: " + ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]))
