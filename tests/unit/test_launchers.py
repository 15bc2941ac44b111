"""What launchers ask of others, and what they make of the answers. Slurm's commands are scripts here; the real ones
are for `make test-slurm`."""

import pickle
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import pytest

from snnrobust import sweeping
from snnrobust.claims import Claim
from snnrobust.job import TRAINING_LOCK
from snnrobust.launchers import slurmjobs
from snnrobust.launchers.base import Launcher, Outcome, Task, done_apart, limits, threads_of
from snnrobust.launchers.parallel import Parallel
from snnrobust.launchers.ray import Ray
from snnrobust.launchers.slurm import Slurm, Submitted
from snnrobust.schema import ConfigError
from snnrobust.sweeping import FUTILE, sweep
from tests.unit.launched import record, tasks


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Gives Slurm's commands a content; `sbatch` keeps the script, `scancel` its words."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def commands(squeue="exit 0", sbatch="echo Submitted batch job 42"):
        keep = f"cp $1 {tmp_path}/script; "
        for name, content in {
            "sbatch": keep + sbatch,
            "squeue": squeue,
            "srun": "exit 0",
            "scancel": f"echo $@ > {tmp_path}/cancelled",
        }.items():
            (folder / name).write_text(f"#!/bin/sh\n{content}\n")
            (folder / name).chmod(0o755)
        return tmp_path

    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(slurmjobs, "LOOK", 0.01)
    monkeypatch.setattr(slurmjobs, "ASK", 0.05)
    return commands


def test_slurm_gets_the_words_that_it_knows(tmp_path, cluster):
    folder = cluster()
    launcher = Slurm(
        partition="gpu", account="lab", qos="long", timeout_min=30, signal_delay_s=60, mem_gb=8, gpus_per_node=1,
        array_parallelism=3, setup=("module load cuda",), additional_parameters={"constraint": "a100"},
    )  # fmt: skip
    outcomes = dict(launcher.launch(tasks(tmp_path, "seed=0,1,2,3", "threads=2")))
    assert {outcome.kind for outcome in outcomes.values()} == {"lost"}
    script = (folder / "script").read_text().splitlines()
    wanted = {
        *("--partition=gpu", "--account=lab", "--qos=long", "--time=30", "--signal=USR2@60", "--mem=8GB", "--requeue"),
        *("--gpus-per-node=1", "--array=0-3%3", "--constraint=a100", "--cpus-per-task=2", "--job-name=snnrobust"),
    }
    assert {f"#SBATCH {word}" for word in wanted} <= set(script)
    run = next(i for i, line in enumerate(script) if line.startswith("srun "))
    assert "--cpus-per-task=2" in script[run]
    assert script.index("module load cuda") < script.index("export OMP_NUM_THREADS=2") < run


def test_a_job_that_leaves_the_queue_without_a_record_is_lost_and_its_log_says_why(tmp_path, cluster):
    cluster()
    generator = Slurm(folder=str(tmp_path / "logs")).launch(tasks(tmp_path, "seed=0,1"))

    def log():
        while not (folders := [*tmp_path.glob("logs/*")]):
            time.sleep(0.005)
        (folders[0] / "42_1_0_log.err").write_text("fine\nslurmstepd: error: out of memory\n\n")

    thread = threading.Thread(target=log)
    thread.start()
    outcomes = dict(generator)
    thread.join()
    assert outcomes[0] == Outcome("lost", "job 42_0: no log")
    assert outcomes[1] == Outcome("lost", "job 42_1: slurmstepd: error: out of memory")
    assert [*tmp_path.glob("logs/*/*.pkl")] == []


def test_the_silence_of_the_controller_proves_nothing(tmp_path, cluster, capsys):
    cluster(squeue=f"[ -e {tmp_path}/awake ] || exit 1; echo '42_0|PENDING|Priority'; echo '42_1|RUNNING|None'")
    wanted = tasks(tmp_path, "seed=0,1")
    generator = Slurm().launch(wanted)
    found = []

    def run():
        time.sleep(0.5)
        (tmp_path / "awake").touch()
        time.sleep(0.5)
        (folder,) = (tmp_path / "runs" / "slurm").iterdir()
        for place, task in enumerate(wanted):
            record(task)
            Submitted(task, folder / f"{place}.json")()

    thread = threading.Thread(target=run)
    thread.start()
    found = [*generator]
    thread.join()
    assert sorted(place for place, _ in found) == [0, 1]
    assert all(outcome.kind == "done" and "clean 50.0 %" in outcome.text for _, outcome in found)
    said = capsys.readouterr().err
    assert "slurm: 2 runs as job 42; logs in" in said
    assert said.count("jobs wait: Priority") == 1


def test_a_sweep_that_stops_cancels_its_jobs(tmp_path, cluster, capsys):
    folder = cluster(squeue="echo '42_0|RUNNING|None'; echo '42_1|PENDING|Resources'")
    wanted = tasks(tmp_path, "seed=0,1")
    thread = threading.Timer(0.5, lambda: next((tmp_path / "runs/slurm").iterdir()).joinpath("1.json").write_text(
        '{"schema": 1, "kind": "failed", "text": "why"}'))  # fmt: skip
    thread.start()
    with closing(Slurm().launch(wanted)) as outcomes:
        assert next(outcomes) == (1, Outcome("failed", "why"))
    thread.join()
    assert (folder / "cancelled").read_text() == "42_0\n"
    assert "cancelled what was not done: 1 runs" in capsys.readouterr().err


def test_what_slurm_refuses_is_said_in_one_line(tmp_path, cluster, capsys):
    cluster(sbatch="echo 'sbatch: error: first' >&2; echo 'sbatch: error: Invalid account' >&2; exit 1")
    with pytest.raises(ConfigError, match=r"^launcher: sbatch: error: Invalid account$"):
        next(Slurm().launch(tasks(tmp_path, "seed=0,1")))
    assert capsys.readouterr().err == ""


def test_without_slurm_or_a_package_there_is_one_line(tmp_path, cluster, monkeypatch):
    cluster()
    wanted = tasks(tmp_path, "seed=0,1")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r"needs submitit; allowed: pip install 'snnrobust\[slurm\]'"):
        next(Slurm().launch(wanted))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="no sbatch or squeue on the PATH; allowed here: parallel"):
        next(Slurm().launch(wanted))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'snnrobust\[ray\]'"):
        next(Ray().launch(wanted))


def test_what_goes_to_another_process_is_small_and_comes_back_as_it_was(tmp_path):
    (task,) = tasks(tmp_path, "seed=0")
    call = Submitted(task, tmp_path / "0.json")
    assert len(pickle.dumps(call)) < 16_000
    again = pickle.loads(pickle.dumps(call)).checkpoint().function
    assert (again.task, again.record) == (call.task, call.record)


def test_threads_are_those_of_the_run_that_has_most(tmp_path):
    assert threads_of(tasks(tmp_path, "threads=1,3")) == 3
    assert limits(3)["OMP_NUM_THREADS"] == limits(3)["NUMBA_NUM_THREADS"] == "3"


def test_an_exit_of_python_is_the_loss_of_one_task(tmp_path, monkeypatch):
    (task,) = tasks(tmp_path, "seed=0")
    monkeypatch.setattr("snnrobust.launchers.base.perform", lambda *_, **__: sys.exit(3))
    assert done_apart(task) == Outcome("lost", "exit status 3")


@dataclass(frozen=True)
class Noting(Launcher):
    """Does what is said of a task by leaving results, or loses it before it has begun."""

    loses: bool = False
    rounds: list[list[str]] = field(default_factory=list)

    def launch(self, tasks: Sequence[Task]) -> Generator[tuple[int, Outcome], None, None]:
        self.rounds.append([task.name for task in tasks])
        for at, task in enumerate(tasks):
            if self.loses:
                yield at, Outcome("lost", "no such file system")
            else:
                record(task)
                yield at, Outcome("done", f"{task.name}: done")


def test_a_sweep_ends_where_nothing_ever_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeping, "POLL", 0.001)
    launcher = Noting(loses=True)
    with pytest.raises(ConfigError, match=r"no run was begun in 5 launches in a row \(no such file system\)"):
        sweep(tasks(tmp_path, "seed=0,1"), launcher)
    assert len(launcher.rounds) == FUTILE


def test_a_run_that_another_process_has_claimed_is_not_launched_before_that_ends(tmp_path, capsys):
    wanted = tasks(tmp_path, "seed=0,1")
    launcher = Noting()
    claim = Claim(wanted[0].job.home / TRAINING_LOCK)
    timer = threading.Timer(0.7, claim.release)
    timer.start()
    sweep(wanted, launcher)
    timer.join()
    assert launcher.rounds == [[wanted[1].name], [wanted[0].name]]
    assert capsys.readouterr().err.count("is at work on it") == 1


def test_parallel_counts_cores_that_this_process_has_and_gpus(tmp_path):
    wanted = tasks(tmp_path, "seed=0,1,2")
    for task in wanted:
        record(task)
    outcomes = dict(Parallel(jobs=2).launch(wanted))
    assert [outcomes[place].kind for place in range(3)] == ["done"] * 3
