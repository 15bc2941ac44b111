"""Runs whose evaluation is the matter: one small network, trained once, and commands as processes of their own."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

NETWORK = ("model.channels=[8]", "model.hidden=32", "encoder.steps=4", "training.epochs=3", "training.batch_size=32",
           "training.optimizer.lr=0.02")  # fmt: skip
HERE = ("device=cpu", "threads=1", "tracker=none")
JOURNAL = "evaluation.jsonl"
WAIT = 240
"""Seconds after which a process that says nothing is taken for hung."""


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "MASTER_"))}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


def alone(*words: str) -> list[str]:
    """One process."""
    return [sys.executable, "-m", "snnrobust", *words, *HERE]


def several(*words: str, number: int = 2) -> list[str]:
    """Processes that `torchrun` starts; `--standalone` finds a free port."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={number}"]
    return [*torchrun, *alone(*words)[1:]]


def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=WAIT, check=False, **options
    )


def done(command: Sequence[str]) -> str:
    """The standard output of a command that must succeed."""
    answer = run(command)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def trained(runs: Path) -> Path:
    """The directory of a trained run with its first, quick evaluation."""
    done(alone("train", *NETWORK, f"runs={runs}"))
    (home,) = [path for path in runs.iterdir() if path.is_dir()]
    return home


def copied(home: Path, to: Path) -> Path:
    return Path(shutil.copytree(home, to / home.name))


def folder(home: Path) -> Path:
    """Of the one further evaluation of a run."""
    (path,) = [path for path in home.iterdir() if path.is_dir()]
    return path


def results(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((path / "results.json").read_text())
    return content


def outcomes(path: Path) -> Mapping[str, Any]:
    return dict(np.load(path / "outcomes.npz"))


def same(one: Path, other: Path) -> None:
    """Equal outcome bits and measures, down to the last digit, whatever words the evaluations were asked for in."""
    first, second = outcomes(one), outcomes(other)
    assert list(first) == list(second)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    apart = {"durations", "finished", "resumed_evaluation", "config", "git"}
    first, second = results(one), results(other)
    assert {k: v for k, v in first.items() if k not in apart} == {k: v for k, v in second.items() if k not in apart}


def lines(home: Path) -> int:
    """Finished batches of all further evaluations of a run."""
    return sum(path.read_bytes().count(b"\n") - 1 for path in home.glob(f"*/{JOURNAL}"))


def wait_until(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + WAIT
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
