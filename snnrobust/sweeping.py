"""Many runs: what is on record is shown, what is missing is launched, and again where its process was killed."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from snnrobust.claims import POLL, holder
from snnrobust.console import results_line
from snnrobust.files import write_json
from snnrobust.forgetting import forgotten
from snnrobust.job import (
    EVALUATION_LOCK,
    FAILURE,
    TRAINING_LOCK,
    Job,
    failure_content,
    failure_of,
    results_of,
)
from snnrobust.launchers.base import RECORDED, Launcher, Outcome, Task
from snnrobust.schema import ConfigError

ATTEMPTS = 3
"""Starts of a run whose process is killed again and again; the last one by itself, so that it is known whose fault
that is."""
FUTILE = 5
"""Launches in a row in which no process comes as far as its run, before the sweep gives up."""
LONGEST = 10.0
"""Seconds between two launches of runs that somebody has claimed whom we do not see, as on another machine."""


def sweep(tasks: Sequence[Task], launcher: Launcher) -> dict[int, str]:
    """Has all tasks done, prints a line whenever one has ended, and returns one line per failure, by place of its task.

    One failure does not touch the others. Other processes may sweep over the same runs at the same time: each run is
    done by one of them. What a launcher reports depends on the launcher; what lies in the folders does not.

    Raises:
        ConfigError: in one line, if there is nothing to launch with, or nothing that is launched begins.
    """
    going = _Sweep([replace(task, job=forgotten(task.job)) for task in tasks], launcher)
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
        self.futile = 0
        self.pause = POLL

    def run(self) -> None:
        for place in self.open.copy():
            results = results_of(self.tasks[place].job)
            # Whether results are of the data that are there today takes torch to see.
            if results is not None and not results.get("split_digests"):
                self._end(place, Outcome("done", results_line(self.tasks[place].name, results) + RECORDED))
        if self.open:
            say(f"{len(self.open)} of {len(self.tasks)} runs to do")
        while self.open:
            places = [*self._next()]
            if places:
                self._round(places)
            else:
                time.sleep(POLL)

    def _next(self) -> Iterator[int]:
        """Places of what is launched together: of runs that still have to train, one for each training.

        Those that other processes are at work on wait here rather than in a process of their own.
        """
        free = [place for place in self.open if self._is_free(place)]
        normal = [place for place in free if self.killed[place] < ATTEMPTS - 1]
        if not normal:
            yield from free[:1]
            return
        training = {self.tasks[place].job.home: place for place in reversed(normal) if self.tasks[place].job.trains}
        for place in normal:
            if training.get(self.tasks[place].job.home, place) == place:
                yield place

    def _is_free(self, place: int) -> bool:
        """Whether nobody has claimed a run, as far as can be seen from here."""
        job = self.tasks[place].job
        owner = holder(job.folder / EVALUATION_LOCK) or holder(job.home / TRAINING_LOCK)
        if owner is not None:
            self._wait(place, owner)
        return owner is None

    def _round(self, places: Sequence[int]) -> None:
        before = {place: _owner(self.tasks[place].job) for place in places}
        ended, busy = set(), set()
        reasons: dict[int, str] = {}
        with closing(self.launcher.launch([self.tasks[place] for place in places])) as outcomes:
            for at, outcome in outcomes:
                place = places[at]
                if outcome.kind == "busy":
                    busy.add(place)
                    self._wait(place, outcome.text)
                elif outcome.kind == "lost":
                    reasons[place] = outcome.text
                    say(f"{self.tasks[place].name}: its process was lost ({outcome.text})")
                else:
                    ended.add(place)
                    self._end(place, outcome)
        lost = [place for place in places if place not in ended | busy]
        begun = [place for place in lost if _owner(self.tasks[place].job) != before[place]]
        for place in begun:
            self._count(place, reasons.get(place))
        if lost:
            say(f"a process was killed; {len(self.open)} runs are still to do")
        self._breathe(futile=not (ended or busy or begun), waits=not ended and not lost)
        if self.futile == FUTILE:
            reason = next(iter(reasons.values()), "no reason given")
            raise ConfigError(f"launcher: no run was begun in {FUTILE} launches in a row ({reason})")

    def _breathe(self, futile: bool, waits: bool) -> None:
        """Waits after a round that brought nothing, longer each time."""
        self.futile = self.futile + 1 if futile else 0
        if waits or futile:
            time.sleep(self.pause)
            self.pause = min(2 * self.pause, LONGEST)
        else:
            self.pause = POLL

    def _end(self, place: int, outcome: Outcome) -> None:
        self.open.remove(place)
        if outcome.kind == "failed":
            self.failed[place] = outcome.text
            say(f"failed: {outcome.text}")
        else:
            print(outcome.text, flush=True)

    def _wait(self, place: int, owner: str) -> None:
        if place not in self.waiting:
            self.waiting.add(place)
            say(f"{self.tasks[place].name}: {owner} is at work on it")

    def _count(self, place: int, reason: str | None) -> None:
        """Takes note of a run whose process was killed."""
        self.killed[place] += 1
        if self.killed[place] == ATTEMPTS:
            job = self.tasks[place].job
            why = f" ({reason})" if reason else ""
            line = f"its process was killed {ATTEMPTS} times{why}; see run.log there"
            write_json(job.folder / FAILURE, failure_content(job, line))
            self._end(place, Outcome("failed", f"{job.folder}: {line}"))


def _owner(job: Job) -> tuple[str | None, ...]:
    """Who claimed a run last."""
    return tuple(_text(path) for path in (job.home / TRAINING_LOCK, job.folder / EVALUATION_LOCK))


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
