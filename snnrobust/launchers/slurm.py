"""A Slurm cluster, by submitit: one array job for each round of a sweep."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from io import StringIO
from pathlib import Path
from shutil import which
from typing import Any

from snnrobust.files import write_json
from snnrobust.job import read_json
from snnrobust.launchers.base import Launcher, Outcome, Task, done, limits, threads_of
from snnrobust.launchers.slurmjobs import Jobs, last_words, say
from snnrobust.schema import ConfigError
from snnrobust.settings import NonNegativeInt, Positive, PositiveInt

LARGEST = 1000
"""Tasks of an array job, by Slurm's own default for MaxArraySize."""


@dataclass(frozen=True)
class Slurm(Launcher):
    """Every run is a job of its own, with the parameters that submitit and Slurm know by the same names.

    A job that nears its time limit or is preempted is put back into the queue and goes on after its last epoch. Whether
    a job still exists is what `squeue` says, whether it is done is what lies in the folder: no accounting is needed.

    Args:
        folder: of scripts and logs, which all nodes see; None: `slurm` below the folder of the runs.
        partition: to submit to; None: that of the cluster.
        account: to be charged.
        qos: quality of service.
        timeout_min: minutes that a job may run before it is put back into the queue.
        max_num_timeout: times that this may happen to a run before it counts as failed.
        signal_delay_s: seconds before its time limit that a job is told to end; longer than a step of the training.
        cpus_per_task: cores of a job; None: the `threads` of its run.
        mem_gb: memory of a job in GB; None: what the cluster gives.
        gpus_per_node: of a job, hence of a run; None: no word of GPUs.
        array_parallelism: jobs at a time.
        setup: lines of shell before the run, such as `module load cuda`.
        additional_parameters: further options of sbatch, as `{exclude: node7, requeue: true}`.
    """

    folder: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    timeout_min: PositiveInt = 240
    max_num_timeout: NonNegativeInt = 20
    signal_delay_s: PositiveInt = 120
    cpus_per_task: PositiveInt | None = None
    mem_gb: Positive | None = None
    gpus_per_node: NonNegativeInt | None = None
    array_parallelism: PositiveInt = 256
    setup: tuple[str, ...] = ()
    additional_parameters: dict[str, str | int | float | bool] = field(default_factory=dict)

    def launch(self, tasks: Sequence[Task]) -> Generator[tuple[int, Outcome], None, None]:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
        folder = Path(self.folder or Path(tasks[0].job.config["runs"]) / "slurm").absolute() / stamp
        jobs = Jobs({}, partial(_record, folder))
        try:
            for begin in range(0, len(tasks), LARGEST):
                part = range(begin, min(begin + LARGEST, len(tasks)))
                jobs.open |= self._submit(folder, {place: tasks[place] for place in part})
            arrays = dict.fromkeys(job.partition("_")[0] for job in jobs.open.values())
            say(f"{len(jobs.open)} runs as job {', '.join(arrays)}; logs in {folder}")
            for place, job, recorded in jobs.ended():
                yield place, _outcome(_record(folder, place)) if recorded else Outcome("lost", _reason(folder, job))
        finally:
            if jobs.open:
                jobs.cancel()
                say(f"cancelled what was not done: {len(jobs.open)} runs")
            _tidy(folder)

    def _submit(self, folder: Path, tasks: Mapping[int, Task]) -> dict[int, str]:
        """One array job; the id of the job of every task.

        Raises:
            ConfigError: if there is no Slurm, or it refuses the job.
        """
        executor = self._executor(folder, threads_of([*tasks.values()]))
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        calls = [Submitted(task, _record(folder, place)) for place, task in tasks.items()]
        try:
            with redirect_stderr(StringIO()):  # where submitit repeats the error
                jobs = executor.submit_array(calls)
        except (FailedJobError, FailedSubmissionError) as error:
            raise ConfigError(f"launcher: {str(error).strip().rpartition(chr(10))[2]}") from error
        return {place: str(job.job_id) for place, job in zip(tasks, jobs, strict=True)}

    def _executor(self, folder: Path, threads: int) -> Any:
        if which("sbatch") is None or which("squeue") is None:
            raise ConfigError(
                "launcher: got slurm, but there is no sbatch or squeue on the PATH; allowed here: parallel"
            )
        try:
            from submitit import AutoExecutor
        except ImportError as error:
            raise ConfigError("launcher: slurm needs submitit; allowed: pip install 'snnrobust[slurm]'") from error

        cpus = self.cpus_per_task or threads
        executor = AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=self.max_num_timeout)
        given = {
            "mem_gb": self.mem_gb,
            "gpus_per_node": self.gpus_per_node,
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "slurm_qos": self.qos,
        }
        executor.update_parameters(
            name="snnrobust",
            timeout_min=self.timeout_min,
            cpus_per_task=cpus,
            slurm_array_parallelism=self.array_parallelism,
            slurm_signal_delay_s=self.signal_delay_s,
            slurm_setup=[*self.setup, *(f"export {name}={value}" for name, value in limits(threads).items())],
            slurm_srun_args=[f"--cpus-per-task={cpus}"],  # which srun no longer takes over from sbatch since 22.05
            slurm_additional_parameters={"requeue": True, **self.additional_parameters},
            **{name: value for name, value in given.items() if value is not None},
        )
        return executor


class Submitted:
    """A task as it goes through submitit's hands: called in a job, and again in the same job after each requeue.

    Its outcome is written as JSON rather than returned, since submitit would have the sweep unpickle it.
    """

    def __init__(self, task: Task, record: Path) -> None:
        self.task = task
        self.record = record

    def __call__(self) -> None:
        outcome = done(self.task)
        write_json(self.record, {"schema": 1, "kind": outcome.kind, "text": outcome.text})

    def checkpoint(self) -> Any:
        """What submitit puts back into the queue; the state of the run is in its folder after every epoch."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _record(folder: Path, place: int) -> Path:
    return folder / f"{place}.json"


def _outcome(record: Path) -> Outcome:
    content = read_json(record)
    if content is None:
        return Outcome("lost", f"{record}: unreadable")
    return Outcome(content["kind"], content["text"])


def _reason(folder: Path, job: str) -> str:
    """Why a job has left the queue without a record, as far as it is known."""
    words = last_words(folder / f"{job}_0_log.err") or last_words(folder / f"{job}_0_log.out") or "no log"
    return f"job {job}: {words}"


def _tidy(folder: Path) -> None:
    """Scripts and logs stay."""
    for pattern in ("*.pkl", "*.json"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
