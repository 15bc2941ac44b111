"""A Ray cluster: one that is there, or one of this machine that is started for the sweep."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from snnrobust.launchers.base import Launcher, Outcome, Task, done_apart, limits, threads_of
from snnrobust.schema import ConfigError
from snnrobust.settings import NonNegative, Positive, PositiveInt

DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray announces to do by itself, with a warning in every sweep
}


@dataclass(frozen=True)
class Ray(Launcher):
    """Workers that stay, on as many machines as the cluster has; all of them see the folder of the sweep.

    Ray retries nothing: a run whose worker is killed is lost, and launched again by the sweep.

    Args:
        address: `HOST:PORT` of a cluster, or `auto` for the one on this machine; None starts one for the sweep.
        jobs: runs at a time; None: as many as the cluster has place for.
        cpus: cores of a run, also less than one; None: the `threads` of a run.
        gpus: of a run; a fraction packs several runs on one.
    """

    address: str | None = None
    jobs: PositiveInt | None = None
    cpus: Positive | None = None
    gpus: NonNegative = 0.0

    def launch(self, tasks: Sequence[Task]) -> Generator[tuple[int, Outcome], None, None]:
        threads = threads_of(tasks)
        waiting = iter(enumerate(tasks))
        with self._cluster(threads) as ray:
            remote = ray.remote(num_cpus=self.cpus or threads, num_gpus=self.gpus, max_retries=0)(_done)
            folder = os.getcwd()
            running = {remote.remote(task, folder): place for place, task in islice(waiting, self.jobs)}
            while running:
                (ended, *_), _ = ray.wait([*running], num_returns=1)
                outcome = _outcome(ray, ended)
                yield running.pop(ended), outcome
                running |= {remote.remote(task, folder): place for place, task in islice(waiting, 1)}

    @contextmanager
    def _cluster(self, threads: int) -> Iterator[Any]:
        """Connected to the cluster of the last round, if there was one; shut down where the body is left early.

        Raises:
            ConfigError: if there is no Ray, no such cluster, or no room for a run in it.
        """
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        try:
            import ray
        except ImportError as error:
            raise ConfigError("launcher: ray is not installed; allowed: pip install 'snnrobust[ray]'") from error
        try:
            if not ray.is_initialized():
                self._connect(ray, threads)
            yield ray
        except BaseException:
            ray.shutdown()
            raise

    def _connect(self, ray: Any, threads: int) -> None:
        # The raylets of a cluster may have been started by another Python, in another folder.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        environment = {"env_vars": {**limits(threads), "PYTHONPATH": path}, "py_executable": sys.executable}
        # An existing cluster refuses all that is said of what it should be.
        new = {"num_cpus": len(os.sched_getaffinity(0)), "include_dashboard": False} if self.address is None else {}
        try:
            ray.init(self.address or "local", runtime_env=environment, logging_level=logging.ERROR, **new)
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            said = " ".join(str(error).split())
            raise ConfigError(f"launcher.address: got {self.address}; Ray says: {said}") from error
        there = ray.cluster_resources()
        for word, name, wanted in (("cpus", "CPU", self.cpus or threads), ("gpus", "GPU", self.gpus)):
            if self.address is None and wanted > there.get(name, 0):
                raise ConfigError(f"launcher.{word}: got {wanted:g}; allowed here: at most {there.get(name, 0):g}")


def _done(task: Task, folder: str) -> Outcome:
    """In a worker, which begins in a folder of Ray's."""
    os.chdir(folder)
    return done_apart(task)


def _outcome(ray: Any, reference: Any) -> Outcome:
    try:
        outcome: Outcome = ray.get(reference)
    except ray.exceptions.RayTaskError as error:  # nothing that a run does: `done` reports that
        return Outcome("lost", str(error).strip().rpartition("\n")[2])
    except ray.exceptions.RayError as error:
        return Outcome("lost", f"{type(error).__name__}: {str(error).strip().partition('. ')[0]}")
    return outcome
