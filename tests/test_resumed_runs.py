"""Runs whose processes are killed, from the command line to the records: nothing replaced, real signals."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SMALL = ("model.channels=[8]", "model.hidden=32", "encoder.steps=4", "device=cpu", "threads=1", "tracker=none")
TRAIN = ("train", *SMALL, "training.epochs=6", "training.batch_size=32", "training.optimizer.lr=0.02")
EVERYTHING = (
    *TRAIN, "training.ema=0.9", "training.clip=1", "defence=rat", "regularizer=none", "encoder=poisson",
    "training/validation=robust", "training.validation.samples=20", "training.validation.attack.steps=1",
)  # fmt: skip
PRUNED = (
    "start=hydra", "start.sparsity=0.7", "start.training.epochs=4", "start.training.batch_size=32",
    "regularizer=none",
)  # fmt: skip


def started(arguments: tuple[str, ...], runs: Path, limit: int | None = None) -> subprocess.Popen[str]:
    """A process of its own; with a limit to the bytes of any file that it writes, as on a full disk."""

    def limited() -> None:
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "snnrobust", *arguments, f"runs={runs}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, cwd=runs.parent, preexec_fn=limited, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(arguments: tuple[str, ...], runs: Path, limit: int | None = None) -> tuple[int, str]:
    process = started(arguments, runs, limit)
    _, err = process.communicate(timeout=120)
    return process.returncode, err


def killed(arguments: tuple[str, ...], runs: Path, moment: Callable[[], bool]) -> None:
    """Starts a process and kills it as soon as the moment is there."""
    with started(arguments, runs) as process:
        deadline = time.monotonic() + 120
        while not moment():
            assert time.monotonic() < deadline
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def only(runs: Path) -> Path:
    (run,) = [path for path in runs.glob("*") if (path / "config.yaml").exists()]
    return run


def rows(runs: Path) -> list[dict[str, Any]]:
    """Whole lines of the history."""
    files = [*runs.glob("*/history.jsonl")]
    return [json.loads(line) for line in files[0].read_text().split("\n")[:-1]] if files else []


def results(runs: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((only(runs) / "results.json").read_text())
    return content


def finished(arguments: tuple[str, ...], runs: Path) -> dict[str, Any]:
    status, err = ended(arguments, runs)
    assert (status, err) == (0, "")
    assert not [*runs.glob("*/training.pt")]
    return results(runs)


def alone(tmp_path_factory: Any, *arguments: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    runs = tmp_path_factory.mktemp("alone") / "runs"
    return finished(arguments, runs), rows(runs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return alone(tmp_path_factory, *TRAIN)


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_bits(whole, runs):
    killed(TRAIN, runs, lambda: len(rows(runs)) >= 3)
    assert not [*runs.glob("*/checkpoint.pt")]
    there = len(rows(runs))
    content = finished(TRAIN, runs)
    assert content["metrics"] == whole[0]["metrics"]
    assert content["resumed_at"] in ([there], [there + 1])  # its state may not be written when its line is
    assert content["training"]["resumed_at"] == content["resumed_at"]
    assert whole[0]["resumed_at"] == []
    assert rows(runs) == whole[1]
    assert [row["epoch"] for row in rows(runs)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.long
@pytest.mark.parametrize("words", [TRAIN, EVERYTHING], ids=["plain", "everything"])
def test_kills_at_random_moments_change_nothing(words, runs, tmp_path_factory):
    content, lines = alone(tmp_path_factory, *words)
    draw = random.Random(0)
    for epochs in (0, 1, 2, 4, 5):
        until = time.monotonic() + 1e9

        def moment(epochs: int = epochs) -> bool:
            nonlocal until
            if [*runs.glob("*/history.jsonl")] and len(rows(runs)) >= epochs and until > time.monotonic() + 1e8:
                until = time.monotonic() + draw.random() * 0.2
            return time.monotonic() > until

        killed(words, runs, moment)
    again = finished(words, runs)
    assert again["metrics"] == content["metrics"]
    assert again["estimators"] == content["estimators"]
    assert rows(runs) == lines
    assert again["resumed_at"] == sorted(set(again["resumed_at"]))
    assert again["resumed_at"]


@pytest.mark.long
def test_a_run_that_was_killed_when_its_weights_were_there_does_not_train_again(whole, runs):
    killed(TRAIN, runs, lambda: bool([*runs.glob("*/checkpoint.pt")]))
    assert not [*runs.glob("*/results.json")]
    before = (only(runs) / "checkpoint.pt").read_bytes()
    shutil.copy(only(runs) / "checkpoint.pt", only(runs) / "training.pt")  # as if the kill had come before its removal
    content = finished(TRAIN, runs)
    assert (only(runs) / "checkpoint.pt").read_bytes() == before
    assert content["metrics"] == whole[0]["metrics"]
    assert rows(runs) == whole[1]


@pytest.mark.long
def test_a_start_is_taken_up_and_not_done_again(runs, tmp_path_factory, tmp_path):
    source = tmp_path / "source"
    finished(("train", *SMALL, "training=debug", "regularizer=none"), source)
    words = (*TRAIN, *PRUNED, f"start.source={only(source)}")
    content, lines = alone(tmp_path_factory, *words)
    assert len(lines) == 4 + 6
    killed(words, runs, lambda: len(rows(runs)) >= 2)
    killed(words, runs, lambda: len(rows(runs)) >= 6)
    log = only(runs) / "run.log"
    written = len(log.read_text())
    again = finished(words, runs)
    assert again["metrics"] == content["metrics"]
    assert rows(runs) == lines
    start = again["training"]["start"]
    assert start["resumed_at"][0] in (2, 3)
    assert {key: value for key, value in start.items() if key != "resumed_at"} == content["training"]["start"]
    assert again["resumed_at"][0] in (2, 3)
    said = [line for line in log.read_text()[written:].splitlines() if "validation loss" in line]
    assert 1 <= len(said) <= 5


@pytest.mark.long
def test_a_full_disk_fails_in_one_line_and_the_run_goes_on_later(whole, runs):
    killed(TRAIN, runs, lambda: len(rows(runs)) >= 3)
    state = only(runs) / "training.pt"
    before = state.read_bytes()
    status, err = ended(TRAIN, runs, limit=len(before) // 2)
    assert status == 1
    assert str(state) in err
    assert "File too large" in err
    assert "Traceback" not in err
    assert state.read_bytes() == before
    assert not [*runs.glob("*/.training.pt*")]
    assert "File too large" in json.loads((only(runs) / "failure.json").read_text())["error"]
    assert finished(TRAIN, runs)["metrics"] == whole[0]["metrics"]
    assert rows(runs) == whole[1]


@pytest.mark.long
def test_a_torn_state_is_said_and_the_training_begins_again(whole, runs):
    killed(TRAIN, runs, lambda: len(rows(runs)) >= 3)
    state = only(runs) / "training.pt"
    state.write_bytes(state.read_bytes()[:5000])
    status, err = ended(TRAIN, runs)
    assert status == 0
    (line,) = err.splitlines()
    assert line == f"warning: {state}: damaged (ValueError); training begins again"
    assert line.removeprefix("warning: ") in (only(runs) / "run.log").read_text()
    assert results(runs)["metrics"] == whole[0]["metrics"]
    assert results(runs)["resumed_at"] == []
    assert rows(runs) == whole[1]


@pytest.mark.long
def test_the_state_of_another_network_is_refused_until_it_is_forced(whole, runs, tmp_path):
    other = tmp_path / "other" / "runs"
    other.parent.mkdir()
    killed((*TRAIN, "model.hidden=16"), other, lambda: len(rows(other)) >= 2)
    killed(TRAIN, runs, lambda: len(rows(runs)) >= 2)
    state = only(runs) / "training.pt"
    shutil.copy(only(other) / "training.pt", state)
    status, err = ended(TRAIN, runs)
    assert status == 1
    assert f"{state}: of training {only(other).name}, but this is {only(runs).name}; force=true" in err
    assert state.exists()
    content = finished((*TRAIN, "force=true"), runs)
    assert (content["metrics"], content["resumed_at"]) == (whole[0]["metrics"], [])


def test_memory_that_does_not_suffice_is_recorded_with_the_batch_size(runs):
    status, err = ended((*TRAIN, "encoder.steps=100000000", "regularizer=none"), runs)
    assert status == 1
    (line,) = err.splitlines()
    said = "out of memory with training.batch_size=32 (tried to allocate "
    assert said in line
    failure = json.loads((only(runs) / "failure.json").read_text())
    assert (failure["kind"], failure["batch_size"]) == ("out of memory", 32)
    assert failure["error"].startswith(said)
    assert failure["error"].endswith("): try training.auto_batch=true, or a smaller training.batch_size")
    status, err = ended((*TRAIN, "encoder.steps=100000000", "regularizer=none", "training.auto_batch=true"), runs)
    assert status == 1
    assert err.count("warning: out of memory with ") == 4
    failure = json.loads((only(runs) / "failure.json").read_text())
    assert "batch_size=32, and 2 samples per pass are the fewest (tried to allocate" in failure["error"]
