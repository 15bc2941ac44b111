"""`snnrobust search` with real processes: killed at any time, several at once, with runs that fail, in a report."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from snnrobust.job import SEARCH

TINY = [
    *("dataset.validation=0.1", "dataset.test=0.8", "training=debug", "training/validation=robust"),
    *("training.validation.samples=20", "training.validation.attack.steps=1", "attacks.pgd.steps=1"),
    *("encoder.steps=2", "model.hidden=8", "tracker=none", "device=cpu", "threads=1"),
]  # fmt: skip
SPACE = ["training.optimizer.lr=tag(log,interval(1e-3,1e-1))", "model.channels=choice([4],[8])"]
SETTINGS = ["search.name=tiny", "search.startup=2"]


def command(*words):
    return [sys.executable, "-m", "snnrobust", "search", *TINY, *SETTINGS, *words]


def started(folder, *words):
    """A process that logs to a file of its own."""
    with (folder / "log").open("a") as log:
        return subprocess.Popen(
            command(*words), cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log
        )


def finished(folder, *words):
    process = started(folder, *words)
    return process.wait(timeout=200), (folder / "log").read_text()


def found(folder):
    return json.loads((folder / "runs/searches/tiny" / SEARCH).read_text())


def made(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    return folder


def metrics(folder):
    results = (json.loads(path.read_text()) for path in folder.glob("runs/*/results.json"))
    return {content["evaluation_signature"]: content["metrics"] for content in results}


@pytest.mark.long
def test_a_search_that_is_killed_again_and_again_finds_what_one_left_alone_finds(tmp_path):
    words = (*SPACE, "search.trials=6", "search.batch=2")
    whole, parts = made(tmp_path, "whole"), made(tmp_path, "parts")
    status, log = finished(whole, *words)
    assert status == 0, log
    for trials in (1, 3, 4):  # by how many finished runs: in the first batch, in the middle of one, at the end of one
        process = started(parts, *words)
        while len(metrics(parts)) < trials:
            assert process.poll() is None, (parts / "log").read_text()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    states = [trial["state"] for trial in found(parts)["trials"]]
    assert len(states) < 6 or "running" in states, "the search was over before it was killed"
    status, log = finished(parts, *words)
    assert status == 0, log
    assert found(parts) == found(whole)
    assert metrics(parts) == metrics(whole)
    assert {trial["state"] for trial in found(whole)["trials"]} == {"done"}


@pytest.mark.long
def test_two_processes_search_together(tmp_path):
    words = (*SPACE, "search.trials=6", "search.sampler=random")
    processes = [started(tmp_path, *words) for _ in range(2)]
    assert [process.wait(timeout=200) for process in processes] == [0, 0], (tmp_path / "log").read_text()
    lines = (tmp_path / "log").read_text().splitlines()
    told = sorted(line.split(":")[0] for line in lines if line.startswith("trial ") and "validation" in line)
    assert told == [f"trial {number}" for number in range(6)], "each trial by one process"
    assert [trial["state"] for trial in found(tmp_path)["trials"]] == ["done"] * 6
    alone = made(tmp_path, "alone")
    finished(alone, *words)
    assert found(alone) == found(tmp_path), "trials at random do not depend on who runs them"


@pytest.mark.long
def test_failed_runs_are_told_and_tried_again_and_the_report_shows_the_front(tmp_path):
    space = "model.channels=choice([4],[4,4,4,4,4])"
    words = (space, "search.sampler=grid", "search.over_seeds=[0,1]", "launcher=parallel", "launcher.jobs=2")
    for _ in range(2):
        status, log = finished(tmp_path, *words)
        assert status == 1
        assert "2 trials: 1 done, 1 failed" in log
        assert log.splitlines()[-1].startswith("snnrobust: trial ")
        assert "Traceback" not in log
    good, failed = found(tmp_path)["trials"]
    assert (good["state"], good["front"], len(good["runs"])) == ("done", True, 2)
    assert (failed["state"], failed["front"], failed["objectives"]) == ("failed", False, [])
    assert "model" in failed["error"]
    both = metrics(tmp_path)
    seeds = [both[run["evaluation_signature"]]["validation_accuracy"] for run in good["runs"]]
    assert good["objectives"][0] == pytest.approx(sum(seeds) / 2)
    report = [sys.executable, "-m", "snnrobust", "report", "runs"]
    subprocess.run(report, cwd=tmp_path, check=True, capture_output=True)
    page = (tmp_path / "report/index.html").read_text()
    assert "Search: tiny" in page
    assert "2 trials, 1 failed, 1 on the front; each is the mean over seeds 0, 1" in page
    assert (tmp_path / "report/pareto_1.svg").exists()


def test_a_mistake_is_answered_before_anything_is_made(tmp_path):
    done = subprocess.run(command("model.channels=choice([4],[0])"), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("snnrobust: model.channels: got [0]")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
