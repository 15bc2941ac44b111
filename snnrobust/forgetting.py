"""What is on record of a run, removed: because its weights are made anew, or because the user asks for it. Light."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from snnrobust.claims import Busy, Claim, holder, patiently
from snnrobust.files import remove_unfinished
from snnrobust.job import (
    CHECKPOINT,
    EVALUATION_LOCK,
    GRADIENTS,
    HISTORY,
    JOURNAL,
    OUTCOMES,
    RESULTS,
    SPARSE_WEIGHTS,
    STATE,
    TRAINING_LOCK,
    Job,
)

OF_EVALUATIONS = (RESULTS, OUTCOMES, GRADIENTS, JOURNAL)


def forget(job: Job) -> None:
    """Removes what describes weights that are about to be replaced, what killed processes have left half written, and
    with `force` the weights under way too."""
    if job.config["force"]:
        (job.home / STATE).unlink(missing_ok=True)
    # The weights last: a process that is killed in here leaves no results without them.
    for name in (*OF_EVALUATIONS, SPARSE_WEIGHTS, CHECKPOINT):
        for old in (job.home / name, *job.home.glob(f"*/{name}")):
            old.unlink(missing_ok=True)
    for name in (STATE, CHECKPOINT, HISTORY):
        remove_unfinished(job.home / name)


def refuse_while_evaluated(home: Path) -> None:
    """New weights must not take the place of those that another process is evaluating: it would record a mixture.

    Raises:
        Busy: if there is one. No other can begin while the run directory is claimed.
    """
    for lock in (home / EVALUATION_LOCK, *home.glob(f"*/{EVALUATION_LOCK}")):
        if (owner := holder(lock)) is not None:
            raise Busy(owner)


def forgotten(job: Job) -> Job:
    """The same without `force`, once what is on record is removed; waits for processes that are at work on it.

    A sweep does this before it launches anything, so that a run whose process is killed, or that Slurm puts back into
    the queue, goes on where it was instead of beginning anew each time.
    """
    if job.config["force"]:
        patiently(lambda: _claimed_and_forgotten(job), wait=True)
    return replace(job, config={**job.config, "force": False})


def _claimed_and_forgotten(job: Job) -> None:
    if job.kind == "train":
        with Claim(job.home / TRAINING_LOCK):
            refuse_while_evaluated(job.home)
            forget(job)
        return
    with Claim(job.folder / EVALUATION_LOCK):
        for name in OF_EVALUATIONS:
            (job.folder / name).unlink(missing_ok=True)
