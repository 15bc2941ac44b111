"""Several processes of this machine, by joblib's loky."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from multiprocessing import resource_tracker
from pathlib import Path

from snnrobust.claims import Busy, Claim
from snnrobust.launchers.base import Launcher, Outcome, Task, done_apart, limits, threads_of
from snnrobust.settings import PositiveInt

PATIENCE = 1.0
"""Seconds between two looks of a worker at whether its sweep is still there."""
EXIT_CODES = re.compile(r"exit codes of the workers are \{(.*?)\}")
NOISE = ("A worker stopped while some jobs were given", "Failed to kill subprocesses on this platform")
"""Warnings of loky about what it copes with: a worker that was replaced, a machine without `pgrep`."""


@dataclass(frozen=True)
class Parallel(Launcher):
    """Processes that stay, so that only the first run of each pays for the start of Python and torch.

    A worker that is killed takes the others with it, as in every pool of processes that share queues; the sweep then
    starts new ones. Workers end with the process that started them, however that ends.

    Args:
        jobs: runs at a time; None: as many as there are `gpus`, or else as this process has cores, divided by the
            `threads` of a run.
        gpus: as in CUDA_VISIBLE_DEVICES; each worker sees one of them, in turn. None: all see what this process sees.
    """

    jobs: PositiveInt | None = None
    gpus: tuple[int, ...] | None = None

    def launch(self, tasks: Sequence[Task]) -> Generator[tuple[int, Outcome], None, None]:
        threads = threads_of(tasks)
        jobs = min(self.jobs or len(self.gpus or ()) or max(1, len(os.sched_getaffinity(0)) // threads), len(tasks))
        waiting = iter(enumerate(tasks))
        running: dict[Future[Outcome], int] = {}
        with _workers(jobs, threads, self.gpus or ()) as pool:
            whole = _submit(pool, islice(waiting, jobs), running)
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    outcome = _outcome(future)
                    yield running.pop(future), outcome
                    whole = whole and outcome.kind != "lost" and _submit(pool, islice(waiting, 1), running)


def _submit(pool: Executor, tasks: Iterator[tuple[int, Task]], running: dict[Future[Outcome], int]) -> bool:
    """Hands tasks to workers, which ignore Ctrl-C: they are started with it blocked. False if there are none left."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        running.update((pool.submit(done_apart, task), place) for place, task in tasks)
    except BrokenExecutor:
        return False
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return True


def _outcome(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except BrokenExecutor as error:
        codes = EXIT_CODES.search(str(error))
        return Outcome("lost", codes[1] if codes else str(error).partition("\n")[0])


@contextmanager
def _workers(jobs: int, threads: int, gpus: tuple[int, ...]) -> Iterator[Executor]:
    """Those of the last round if they are still there; killed where the body is left before its end."""
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.backend import resource_tracker as lokys

    for message in NOISE:
        warnings.filterwarnings("ignore", message)
    for tracker in (resource_tracker, lokys):  # each, when it starts, unblocks Ctrl-C
        tracker.ensure_running()
    pool = get_reusable_executor(
        max_workers=jobs,
        timeout=300,  # seconds that a worker waits for a task
        initializer=_begin,
        initargs=(os.getpid(), _slots().name if gpus else "", tuple(gpus)),
        env=limits(threads),
    )
    try:
        yield pool
    except BaseException:
        threading.excepthook = _but_for_lokys
        pool.shutdown(kill_workers=True)
        raise


def _but_for_lokys(failed: threading.ExceptHookArgs) -> None:
    """A thread of loky's may look at workers while they are killed, and fail; nobody waits for it any more."""
    if failed.thread is None or failed.thread.name != "ExecutorManagerThread":
        threading.__excepthook__(failed)


@cache
def _slots() -> tempfile.TemporaryDirectory[str]:
    """Where the workers of this process, and those that replace them, claim their places."""
    return tempfile.TemporaryDirectory(prefix="snnrobust-")


_claims: list[Claim] = []
"""What this worker holds until it ends."""


def _begin(parent: int, slots: str, gpus: tuple[int, ...]) -> None:
    """What a worker does before anything else."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    slot = 0
    while gpus:
        try:
            _claims.append(Claim(Path(slots) / str(slot)))
        except Busy:
            slot += 1
            continue
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpus[slot % len(gpus)])
        return


def _end_with(parent: int) -> None:
    """Otherwise a worker would do the run that it is at, and one more, for nobody."""
    while os.getppid() == parent:
        time.sleep(PATIENCE)
    os.kill(os.getpid(), signal.SIGKILL)
