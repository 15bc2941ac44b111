"""Jobs of a Slurm cluster while they wait and run, without its accounting: `squeue` knows those and no others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

LOOK = 1.0
"""Seconds between two looks at the folder of the records."""
ASK = 5.0
"""Seconds between two questions to the controller, which many users share."""
GONE = 2
"""Answers in a row that do not name a job before it counts as gone: its files may be seen later than its end."""
USUAL = ("", "None", "JobArrayTaskLimit")
"""Reasons to wait that nobody has to be told of."""


class Jobs:
    """Those that one sweep has submitted.

    Args:
        jobs: their ids in Slurm, by place in the sweep.
        record: the file that a job leaves when it has ended, by place.
    """

    def __init__(self, jobs: Mapping[int, str], record: Callable[[int], Path]) -> None:
        self.open = dict(jobs)
        self._record = record
        self._unnamed: Counter[int] = Counter()
        self._said: set[str] = set()

    def ended(self) -> Iterator[tuple[int, str, bool]]:
        """Place and id of every job that has ended, and whether it has left its record."""
        asked = time.monotonic()
        while self.open:
            yield from self._recorded()
            if time.monotonic() - asked >= ASK:
                yield from self._gone(_queue())
                asked = time.monotonic()
            time.sleep(LOOK * bool(self.open))

    def cancel(self) -> None:
        """Of those that have not ended; some may be over by now."""
        subprocess.run(["scancel", *self.open.values()], capture_output=True, check=False, timeout=60)

    def _recorded(self) -> Iterator[tuple[int, str, bool]]:
        for place in [place for place in self.open if self._record(place).exists()]:
            yield place, self.open.pop(place), True

    def _gone(self, queue: Mapping[str, str] | None) -> Iterator[tuple[int, str, bool]]:
        if queue is None:  # the silence of the controller proves nothing
            return
        for place, job in [*self.open.items()]:
            self._unnamed[place] = 0 if job in queue else self._unnamed[place] + 1
            if self._unnamed[place] == GONE:
                yield place, self.open.pop(place), self._record(place).exists()
        for reason in {queue.get(job, "") for job in self.open.values()} - self._said - {*USUAL}:
            self._said.add(reason)
            say(f"jobs wait: {reason}")


def last_words(log: Path) -> str:
    """The last line of a log."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def say(text: str) -> None:
    print(f"slurm: {text}", file=sys.stderr, flush=True)


def _queue() -> Mapping[str, str] | None:
    """Jobs of this user that wait or run, with the reason why they wait; None if the controller does not answer."""
    command = ["squeue", "--noheader", "--array", "--user", str(os.getuid()), "--format", "%i|%T|%r"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        return None
    rows = (line.split("|", 2) for line in done.stdout.splitlines())
    return {job: reason if state == "PENDING" else "" for job, state, reason in rows}
