"""What a launcher is."""

from __future__ import annotations

import gc
import sys
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

from snnrobust.claims import Busy
from snnrobust.console import Terminal, results_line
from snnrobust.job import Job, RunFailed
from snnrobust.perform import perform

RECORDED = " (recorded earlier; force=true runs it again)"
THREADS = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS"),
)
"""What the libraries read when they are loaded. torch itself is told by the run."""


@dataclass(frozen=True)
class Task:
    """One run of a sweep, as it goes to the process that does it.

    Args:
        name: on the terminal, such as `[3/12] seed=2`.
        job: what to do.
    """

    name: str
    job: Job


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Args:
        kind: `busy`: another process is at work on that run; `lost`: its process ended before it did.
        text: the line that says so; of a failure or a loss, why; of a busy one, who is.
    """

    kind: Literal["done", "failed", "busy", "lost"]
    text: str


class Launcher(ABC):
    """Has tasks done, somewhere. Subclasses are frozen dataclasses.

    What a run brings lies in its folder, wherever it was done; a launcher only says which tasks have ended.
    """

    @abstractmethod
    def launch(self, tasks: Sequence[Task]) -> Generator[tuple[int, Outcome], None, None]:
        """Yields the place of every task that has ended, in any order, with its outcome.

        A task whose process was killed is lost or left out, and so may be others that went down with it or were not
        begun: the sweep looks after them. Closed early, as by Ctrl-C, it ends the processes that it started.

        Raises:
            ConfigError: in one line, if there is nothing to launch with.
        """


def threads_of(tasks: Sequence[Task]) -> int:
    """Of a process that any of the tasks may run in."""
    return max(int(task.job.config["threads"]) for task in tasks)


def limits(threads: int) -> dict[str, str]:
    """Environment of a process that keeps to so many threads, whatever the environment of the sweep says."""
    return dict.fromkeys(THREADS, str(threads))


def done(task: Task, quiet: bool = True) -> Outcome:
    """Does a task in this process.

    Args:
        task: what to do.
        quiet: without a progress bar, as beside other processes.
    """
    try:
        results, found = perform(task.job, Terminal(brief=True, quiet=quiet), wait=False)
    except Busy as busy:
        return Outcome("busy", str(busy))
    except RunFailed as error:
        return Outcome("failed", str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        return Outcome("failed", f"{error.filename or task.job.home}: {error.strerror or error}")
    finally:
        _tidy()
    return Outcome("done", results_line(task.name, results) + RECORDED * found)


def done_apart(task: Task) -> Outcome:
    """Does a task in a process that others follow in: Python's own exit is a loss of the task, not of the process."""
    try:
        return done(task)
    except SystemExit as stop:
        return Outcome("lost", f"exit status {stop.code}")


def _tidy() -> None:
    """What a run leaves in memory must not be there for the next one."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
