"""One run after the other, in this process."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from snnrobust.launchers.base import Launcher, Outcome, Task, done


@dataclass(frozen=True)
class Local(Launcher):
    """No further process."""

    def launch(self, tasks: Sequence[Task]) -> Generator[tuple[int, Outcome], None, None]:
        for place, task in enumerate(tasks):
            yield place, done(task, quiet=False)
