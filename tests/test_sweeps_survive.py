"""Sweeps in real processes that get real signals: what is lost is made again, and comes out the same."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

KILLS = 20
SEEDS, EPOCHS = range(4), 8
WORDS = [
    "-m",
    *("tracker=none", f"seed={','.join(map(str, SEEDS))}", f"training.epochs={EPOCHS}", "suite=quick"),
    *("threat.eps=0.05,0.1", "regularizer.weight=0.01"),
]


def sweep(folder, *words):
    """A sweep in a session of its own, so that it can be killed with all its processes."""
    command = [sys.executable, "-m", "snnrobust", "train", *WORDS, f"runs={folder}", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def finished(process, seconds=300):
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, out + err
    return out, err


def records(folder):
    """Metrics and outcomes of every evaluation, by its place."""
    found = {}
    for path in sorted(Path(folder).rglob("results.json")):
        outcomes = np.load(path.with_name("outcomes.npz"))
        metrics = json.loads(path.read_text())["metrics"]
        found[str(path.parent.relative_to(folder))] = (metrics, {key: outcomes[key].tolist() for key in outcomes.files})
    return found


def trainings(folder):
    return [path.parent for path in sorted(Path(folder).glob("*/checkpoint.pt"))]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same sweep, left alone."""
    folder = tmp_path_factory.mktemp("alone")
    finished(sweep(folder))
    assert len(records(folder)) == 2 * len(SEEDS)
    return folder


def workers(parent):
    """The processes that joblib started for a sweep."""
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        named = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    except FileNotFoundError:
        return []
    return [child for child, line in named.items() if b"popen_loky" in line]


def wait_a_while(process, folder, draw):
    """Until some moment: the start of Python and torch takes seconds, in which a training has its epochs after it."""
    if draw.random() < 0.5:
        time.sleep(draw.uniform(1.0, 8.0))
        return
    begun = time.time()
    while process.poll() is None and time.time() < begun + 15:
        if any(_changed(path) > begun for path in folder.glob("*/training.pt")):
            time.sleep(draw.uniform(0.0, 0.5))
            return
        time.sleep(0.02)


def _changed(path):
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def kill_something(process, draw):
    """One worker, the parent, or all of them, whatever is there."""
    try:
        what = draw.choice(["worker", "parent", "all"])
        if what == "worker" and workers(process.pid):
            os.kill(draw.choice(workers(process.pid)), signal.SIGKILL)
        elif what == "all":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except ProcessLookupError:
        return


@pytest.mark.long
def test_twenty_kills_leave_the_records_of_a_sweep_left_alone(alone, tmp_path):
    draw = random.Random(7)
    kills = 0
    while kills < KILLS:
        process = sweep(tmp_path, "launcher=parallel", "launcher.jobs=2")
        while process.poll() is None and kills < KILLS:
            wait_a_while(process, tmp_path, draw)
            kill_something(process, draw)
            kills += 1
        process.communicate(timeout=300)
    out, _ = finished(sweep(tmp_path, "launcher=parallel", "launcher.jobs=2"))
    assert f"{2 * len(SEEDS)} runs: {2 * len(SEEDS)} done, 0 failed" in out
    assert records(tmp_path) == records(alone)
    resumed = [json.loads(path.read_text())["resumed_at"] for path in tmp_path.glob("*/results.json")]
    assert any(resumed), "no kill met a training after its first epoch"
    for home in trainings(tmp_path):
        epochs = [json.loads(line)["epoch"] for line in (home / "history.jsonl").read_text().splitlines()]
        assert epochs == list(range(1, EPOCHS + 1))
    left = {path.name for path in tmp_path.rglob("*") if path.is_file() and path.name.startswith(".")}
    assert left <= {".lock", ".evaluation.lock"}


@pytest.mark.long
def test_two_sweeps_at_once_share_the_runs(alone, tmp_path):
    both = [sweep(tmp_path, "launcher=parallel", "launcher.jobs=1") for _ in range(2)]
    said = [finished(process) for process in both]
    assert records(tmp_path) == records(alone)
    for out, _ in said:
        assert f"{2 * len(SEEDS)} runs: {2 * len(SEEDS)} done, 0 failed" in out
    for home in trainings(tmp_path):
        log = (home / "run.log").read_text()
        assert log.count(f"epoch {EPOCHS}:") == 1, "trained twice"
        assert all(log.count("results: {") == 1 for log in (p.read_text() for p in home.rglob("run.log")))
    # Each of them has done some.
    assert all("recorded earlier" in out or "at work on it" in err for out, err in said)


@pytest.mark.long
def test_a_suspended_owner_keeps_its_run_and_the_others_are_done(alone, tmp_path):
    first = sweep(tmp_path, "launcher=local")
    while not (running := [*tmp_path.glob("*/history.jsonl")]):
        time.sleep(0.1)
    os.kill(first.pid, signal.SIGSTOP)
    second = sweep(tmp_path, "launcher=local")
    while len([*tmp_path.glob("*/results.json")]) < len(SEEDS) - 1:
        assert second.poll() is None
        time.sleep(0.2)
    assert not (running[0].parent / "results.json").exists()
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    _, err = finished(second)
    assert f"process {first.pid} on" in err
    assert records(tmp_path) == records(alone)


def test_what_is_done_is_not_launched_again(tmp_path):
    few = ("seed=0,1", "training.epochs=1", "threat.eps=0.1", "launcher=parallel", "launcher.jobs=2")
    finished(sweep(tmp_path, *few))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results.json")}
    out, _ = finished(sweep(tmp_path, *few))
    assert out.count("recorded earlier") == 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results.json")} == before
    plan = [sys.executable, "-m", "snnrobust", "plan", *WORDS, f"runs={tmp_path}", *few]
    listed = subprocess.run(plan, capture_output=True, text=True, check=True).stdout
    assert listed.endswith("2 runs: 2 done\n")
