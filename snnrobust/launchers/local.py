"""One run after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from snnrobust.launchers.base import Launcher, Outcome, Task, done


@dataclass(frozen=True)
class Local(Launcher):
    """No further process."""

    def launch(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        for place, task in enumerate(tasks):
            yield place, done(task, quiet=False)
