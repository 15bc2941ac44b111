"""Many runs: what is on record is shown, what is missing is launched, and again where its process was killed."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from snnrobust.claims import POLL
from snnrobust.console import results_line
from snnrobust.files import write_json
from snnrobust.job import (
    CHECKPOINT,
    EVALUATION_LOCK,
    FAILURE,
    TRAINING_LOCK,
    Job,
    failure_content,
    failure_of,
    results_of,
)
from snnrobust.launchers.base import RECORDED, Launcher, Outcome, Task

ATTEMPTS = 3
"""Starts of a run whose process is killed again and again; the last one by itself, so that it is known whose fault
that is."""


def sweep(tasks: Sequence[Task], launcher: Launcher) -> dict[int, str]:
    """Has all tasks done, prints a line whenever one has ended, and returns one line per failure, by place of its task.

    One failure does not touch the others. Other processes may sweep over the same runs at the same time: each run is
    done by one of them. What a launcher reports depends on the launcher; what lies in the folders does not.

    Raises:
        ConfigError: in one line, if there is nothing to launch with.
    """
    going = _Sweep(tasks, launcher)
    going.run()
    found = {place: going.failed.get(place) or failure_of(task.job) for place, task in enumerate(tasks)}
    return {place: line for place, line in found.items() if line}


class _Sweep:
    def __init__(self, tasks: Sequence[Task], launcher: Launcher) -> None:
        self.tasks = tasks
        self.launcher = launcher
        self.failed: dict[int, str] = {}
        self.open = list(range(len(tasks)))
        self.killed: Counter[int] = Counter()
        self.waiting: set[int] = set()

    def run(self) -> None:
        for place in self.open.copy():
            results = None if self._trains(place) else results_of(self.tasks[place].job)
            # Whether results are of the data that are there today takes torch to see.
            if results is not None and not results.get("split_digests"):
                self._end(place, Outcome("done", results_line(self.tasks[place].name, results) + RECORDED))
        while self.open:
            self._round([*self._next()])

    def _next(self) -> Iterator[int]:
        """Places of what is launched together: of runs that still have to train, one for each training."""
        normal = [place for place in self.open if self.killed[place] < ATTEMPTS - 1]
        if not normal:
            yield self.open[0]
            return
        training = {self.tasks[place].job.home: place for place in reversed(normal) if self._trains(place)}
        for place in normal:
            if training.get(self.tasks[place].job.home, place) == place:
                yield place

    def _trains(self, place: int) -> bool:
        """Other runs with the same weights have to wait until they are there."""
        job = self.tasks[place].job
        return job.kind == "train" and (job.config["force"] or not (job.home / CHECKPOINT).exists())

    def _round(self, places: Sequence[int]) -> None:
        before = {place: _owner(self.tasks[place].job) for place in places}
        ended, busy = set(), set()
        for at, outcome in self.launcher.launch([self.tasks[place] for place in places]):
            place = places[at]
            if outcome.kind == "busy":
                busy.add(place)
                self._wait(place, outcome)
            else:
                ended.add(place)
                self._end(place, outcome)
        lost = [place for place in places if place not in ended | busy]
        for place in lost:
            if _owner(self.tasks[place].job) != before[place]:  # otherwise it was not begun
                self._count(place)
        if lost:
            say(f"a process was killed; {len(self.open)} runs are still to do")
        elif not ended:
            time.sleep(POLL)

    def _end(self, place: int, outcome: Outcome) -> None:
        self.open.remove(place)
        if outcome.kind == "failed":
            self.failed[place] = outcome.text
            say(f"failed: {outcome.text}")
        else:
            print(outcome.text, flush=True)

    def _wait(self, place: int, outcome: Outcome) -> None:
        if place not in self.waiting:
            self.waiting.add(place)
            say(f"{self.tasks[place].name}: {outcome.text} is at work on it")

    def _count(self, place: int) -> None:
        """Takes note of a run whose process was killed."""
        self.killed[place] += 1
        if self.killed[place] == ATTEMPTS:
            job = self.tasks[place].job
            line = f"its process was killed {ATTEMPTS} times; see run.log there"
            write_json(job.folder / FAILURE, failure_content(job, line))
            self._end(place, Outcome("failed", f"{job.folder}: {line}"))


def _owner(job: Job) -> tuple[str | None, ...]:
    """Who claimed a run last."""
    return tuple(_text(path) for path in (job.home / TRAINING_LOCK, job.folder / EVALUATION_LOCK))


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
