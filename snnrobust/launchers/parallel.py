"""Several processes of this machine, by joblib."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from snnrobust.launchers.base import Launcher, Outcome, Task, done
from snnrobust.settings import PositiveInt


@dataclass(frozen=True)
class Parallel(Launcher):
    """Processes that stay, so that only the first run of each pays for the start of Python and torch.

    Args:
        jobs: runs at a time; None: as many as this process has cores, divided by the `threads` of a run.
    """

    jobs: PositiveInt | None = None

    def launch(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        from joblib import Parallel as Pool
        from joblib import delayed, parallel_config
        from joblib.externals.loky.process_executor import BrokenProcessPool

        threads = max(task.job.config["threads"] for task in tasks)
        jobs = self.jobs or max(1, len(os.sched_getaffinity(0)) // threads)
        with parallel_config("loky", inner_max_num_threads=threads):
            pool = Pool(min(jobs, len(tasks)), batch_size=1, pre_dispatch="n_jobs", return_as="generator_unordered")
            try:
                yield from pool(delayed(_placed)(place, task) for place, task in enumerate(tasks))
            except BrokenProcessPool:  # a killed worker takes the others with it
                return


def _placed(place: int, task: Task) -> tuple[int, Outcome]:
    return place, done(task)
