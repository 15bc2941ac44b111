"""What is asked of one run: the results that are there, or those that it makes now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snnrobust.console import Terminal
from snnrobust.job import Job, RunFailed, results_of
from snnrobust.tracking import asked_by_agent


def perform(job: Job, display: Terminal, wait: bool = True) -> tuple[dict[str, Any], bool]:
    """The content of the `results.json` of a job, and whether it was there before.

    Args:
        job: what to do.
        display: where progress is shown.
        wait: for another process that is at work on it.

    Raises:
        Busy: if there is one, and `wait` is False.
        RunFailed: after any error in the run.
        OSError: if the run directory cannot be made.
    """
    results = None if job.config["force"] else results_of(job)
    if results is not None:
        _refuse_other_files(job, results)
        if not asked_by_agent():  # that one has to be told, below
            return results, True
    from snnrobust.building import build, build_foreign
    from snnrobust.run import run

    builder = build_foreign if "weights" in job.config else build
    return run(job, builder, display, wait), results is not None


def _refuse_other_files(job: Job, results: Mapping[str, Any]) -> None:
    """Raises `RunFailed` where results are of other files than those that are there under the same name today."""
    if not results.get("split_digests"):
        return
    from snnrobust.building import refuse_other_files
    from snnrobust.data.dataset import DataError

    try:
        refuse_other_files(job.config, results)
    except DataError as error:
        raise RunFailed(f"{job.folder}: {error}") from error
