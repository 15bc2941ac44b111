"""Sweeps over several processes, with real processes and real signals: `launcher=parallel`."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from snnrobust.job import HISTORY, RESULTS, STATE, TRAINING_LOCK
from snnrobust.launchers.base import THREADS

ROOT = Path(__file__).parent.parent
TINY = ("training=debug", "tracker=none", "device=cpu", "model.channels=[4]", "model.hidden=8")
LONGER = (*TINY, "training.epochs=15", "training.batch_size=64")
PARALLEL = ("launcher=parallel", "launcher.jobs=2")


def command(*words):
    return [sys.executable, "-m", "snnrobust", "train", "-m", *words]


def environment(**more):
    """Of a user who has told the libraries to take all they can."""
    return {**os.environ, **dict.fromkeys(THREADS, "3"), "PYTHONPATH": str(ROOT), "CI": "1", **more}


def sweep(folder, *words, **more):
    return subprocess.run(command(*words), cwd=folder, env=environment(**more), capture_output=True, text=True)


class Begun:
    """A sweep that goes on, in a session of its own."""

    def __init__(self, folder, *words):
        self.folder = folder
        self.process = subprocess.Popen(
            command(*words), cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def under_way(self, runs, epochs=2):
        """Waits for runs that have saved so many epochs and are not done."""
        while True:
            assert self.process.poll() is None, self.process.communicate()
            found = [
                path.parent
                for path in self.folder.glob(f"runs/*/{HISTORY}")
                if path.with_name(STATE).exists() and path.read_text().count("\n") >= epochs
            ]
            if len(found) >= runs:
                return found
            time.sleep(0.02)

    def end(self):
        out, err = self.process.communicate(timeout=600)
        return self.process.returncode, out, err


def owner(run):
    found = re.match(r"process (\d+)", (run / TRAINING_LOCK).read_text())
    assert found is not None
    return int(found[1])


def records(folder):
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob(f"runs/*/{RESULTS}")}


def metrics(folder):
    return {name: record["metrics"] for name, record in records(folder).items()}


def times_trained(folder):
    return [path.read_text().count("epochs trained: ") for path in folder.glob("runs/*/run.log")]


def session(process):
    """Processes of the session that a process leads, without zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == process and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def wait_for_end(process, seconds=10):
    """Of all processes of a session but its tracker of resources, which may outlive the others by a moment."""
    end = time.monotonic() + seconds
    while session(process):
        assert time.monotonic() < end, [Path(f"/proc/{p}/cmdline").read_text() for p in session(process)]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Metrics of the sweep that nobody disturbs."""
    folder = tmp_path_factory.mktemp("alone")
    done = sweep(folder, *LONGER, "seed=0,1,2,3")
    assert done.returncode == 0, done.stderr
    return metrics(folder)


def test_a_worker_keeps_to_the_threads_of_its_runs_whatever_the_environment_says(tmp_path):
    told = tmp_path / "told"
    told.mkdir()
    words = (*TINY, "model._target_=tests.awkward.Telling", "seed=0,1,2", "threads=2", *PARALLEL)
    done = sweep(tmp_path, *words, "launcher.gpus=[5,7]", TOLD=str(told))
    assert (done.returncode, done.stderr) == (0, "3 of 3 runs to do\n")
    found = [json.loads(path.read_text()) for path in told.iterdir()]
    assert len(found) == 2
    for worker in found:
        assert {worker["environment"][name] for name in THREADS} == {"2"}
        assert worker["torch"] == 2
        assert worker["numba"] in (None, 2)
        assert worker["folder"] == str(tmp_path)
        assert worker["interrupts"]  # are the business of the sweep
    assert sorted(worker["environment"]["CUDA_VISIBLE_DEVICES"] for worker in found) == ["5", "7"]


@pytest.mark.long
def test_a_killed_worker_costs_nothing_but_time(tmp_path, alone):
    begun = Begun(tmp_path, *LONGER, "seed=0,1,2,3", *PARALLEL)
    run = begun.under_way(2)[0]
    os.kill(owner(run), signal.SIGKILL)
    status, out, err = begun.end()
    assert status == 0, err
    assert "4 runs: 4 done, 0 failed" in out
    assert "SIGKILL(-9)" in err
    assert "Traceback" not in err
    assert metrics(tmp_path) == alone
    assert records(tmp_path)[run.name]["resumed_at"]
    assert times_trained(tmp_path) == [1] * 4


@pytest.mark.long
@pytest.mark.parametrize(("model", "reason"), [("Fatal", "SIGKILL(-9)"), ("Leaving", "exit status 3")])
def test_a_run_that_ends_its_process_fails_and_the_others_are_done(tmp_path, model, reason):
    words = (*TINY, f"model._target_=tests.awkward.{model}", "model.channels=[2],[4],[3],[5]")
    done = sweep(tmp_path, *words, *PARALLEL)
    assert done.returncode == 1
    assert "4 runs: 3 done, 1 failed" in done.stdout
    last = done.stderr.splitlines()[-1]
    assert last.startswith("snnrobust: runs/")
    assert last.endswith(f"its process was killed 3 times ({reason}); see run.log there")
    assert "Traceback" not in done.stderr
    again = sweep(tmp_path, *words, "launcher=parallel", "launcher.jobs=1")
    assert again.returncode == 1
    assert again.stdout.count("recorded earlier") == 3


@pytest.mark.long
def test_workers_do_not_outlive_a_sweep_that_is_killed_and_the_same_command_takes_over(tmp_path, alone):
    begun = Begun(tmp_path, *LONGER, "seed=0,1,2,3", *PARALLEL)
    runs = begun.under_way(2)
    begun.process.kill()
    wait_for_end(begun.process.pid)
    begun.end()
    done = sweep(tmp_path, *LONGER, "seed=0,1,2,3", *PARALLEL)
    assert (done.returncode, done.stderr) == (0, "4 of 4 runs to do\n")
    assert metrics(tmp_path) == alone
    assert all(records(tmp_path)[run.name]["resumed_at"] for run in runs)


@pytest.mark.long
def test_two_sweeps_share_their_runs(tmp_path, alone):
    both = [Begun(tmp_path, *LONGER, "seed=0,1,2,3", *PARALLEL) for _ in range(2)]
    ends = [begun.end() for begun in both]
    assert [status for status, _, _ in ends] == [0, 0], ends
    assert all("4 runs: 4 done" in out for _, out, _ in ends)
    assert times_trained(tmp_path) == [1] * 4
    assert metrics(tmp_path) == alone


@pytest.mark.long
def test_ctrl_c_at_a_terminal_leaves_one_line_and_no_process(tmp_path):
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tmp_path)
        os.execve(sys.executable, command(*LONGER, "seed=0,1,2,3", *PARALLEL), environment())
    shown, sent = b"", False
    while select.select([terminal], [], [], 60)[0]:
        try:
            shown += os.read(terminal, 4096)
        except OSError:
            break
        if b"seed=0: clean" in shown and not sent:
            time.sleep(0.3)  # a terminal forgets what it has not shown when it sees Ctrl-C
            os.write(terminal, b"\x03")
            sent = True
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    lines = shown.decode().replace("^C", "").splitlines()
    assert [line for line in lines if line and not re.match(r"\[\d/4\] ", line)] == [
        "4 of 4 runs to do",
        "snnrobust: interrupted; finished runs are kept, the same command goes on with the others",
    ]
    wait_for_end(process)
