"""Runs for `make test-wandb`, and what a server has to have of them."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import yaml

from scripts.wandb_server import KEY, Server
from snnrobust.record import summary

SMALL = ("model.channels=[8]", "model.hidden=32", "encoder.steps=4", "device=cpu", "training.batch_size=64")
TRACKS = """
import sys
from pathlib import Path
from snnrobust.tracking import Description, Wandb
for i in range(int(sys.argv[2])):
    folder = Path(sys.argv[1]) / f"run{i}"
    folder.mkdir(parents=True)
    identity = f"{folder.parent.name}-{i}"
    run = Wandb().start(Description(identity, identity, None, "train", (), {"seed": i}, folder))
    for epoch in range(1, 31):
        run.log({"epoch": epoch, "train/loss": i + 1 / epoch})
    run.finish({"test/clean_accuracy": 0.5})
"""
KILLED = """
import os, signal, sys, time
from pathlib import Path
from snnrobust.tracking import Description, Wandb
folder = Path(sys.argv[1])
folder.mkdir(parents=True)
identity = sys.argv[1].replace("/", "-")
run = Wandb().start(Description(identity, identity, None, "train", (), {}, folder))
for epoch in range(1, int(sys.argv[2]) + 1):
    run.log({"epoch": epoch, "train/loss": 1 / epoch} | {f"filling/{i}": epoch * i for i in range(8)})
time.sleep(1)
os.killpg(0, signal.SIGKILL)
"""


class Runs:
    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        outside = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        self.env = outside | {
            "WANDB_BASE_URL": server.url,
            "WANDB_API_KEY": KEY,
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_CONFIG_DIR": str(folder / "config"),
            "WANDB_CACHE_DIR": str(folder / "cache"),
            "WANDB_DATA_DIR": str(folder / "staging"),
            "OMP_NUM_THREADS": "1",
        }

    # --- what is done

    def begin(self, *words: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """A command of ours in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "snnrobust", *words],
            env={**self.env, **(env or {})}, cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def done(self, *words: str, status: int = 0, env: Mapping[str, str] | None = None) -> tuple[str, str]:
        """What a command prints that ends with this status."""
        process = self.begin(*words, env=env)
        out, err = process.communicate(timeout=600)
        assert process.returncode == status, f"{' '.join(words)}: status {process.returncode}\n{out}{err}"
        return out, err

    def train(self, runs: str, *words: str, mode: str, epochs: int = 3) -> list[str]:
        return ["train", *SMALL, f"runs={runs}", f"tracker.mode={mode}", f"training.epochs={epochs}", *words]

    def tracked(self, runs: str, number: int) -> list[str]:
        """Short runs that were tracked offline, and their names at the server."""
        command = [sys.executable, "-c", TRACKS, runs, str(number)]
        subprocess.run(command, env=self.env, cwd=self.folder, check=True, capture_output=True)
        return [f"{runs}-{i}" for i in range(number)]

    def stopped_after(self, epochs: int, runs: str, command: list[str], how: signal.Signals = signal.SIGKILL) -> None:
        """Starts a training and stops it, and its client with it, once so many epochs are on record."""
        process = self.begin(*command)
        while sum(len(file.read_text().splitlines()) for file in self.homes(runs, "history.jsonl")) < epochs:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        os.killpg(process.pid, how)
        process.communicate()
        assert not self.homes(runs, "results.json")

    # --- what came of it

    def homes(self, runs: str, name: str) -> list[Path]:
        return sorted((self.folder / runs).glob(f"*/{name}"))

    def same(self, home: Path, exact: bool = True) -> None:
        """The server has of a run what its directory has: curves, every point once, summary, config."""
        results = json.loads((home / "results.json").read_text())
        run = f"{results['training_signature']}-{results['evaluation_signature']}"
        history = [json.loads(line) for line in (home / "history.jsonl").read_text().splitlines()]
        for key, value in history[0].items():
            if isinstance(value, int | float):
                expected = [(step, row[key]) for step, row in enumerate(history, 1)]
                equal(f"{run} {key}", self.server.points(run)[key], expected, exact)
        found = self.server.run(run)
        for key, value in summary(results).items():
            if isinstance(value, int | float) and not math.isnan(value):
                assert math.isclose(found["summary"][key], value, rel_tol=1e-9), (key, found["summary"].get(key), value)
        config = yaml.safe_load((home / "config.yaml").read_text())
        for key in ("seed", "threat", "regularizer", "training"):
            assert found["config"][key]["value"] == config[key], key
        assert found["state"] == "finished", found["state"]

    def thirty(self, runs: list[str], exact: bool = True) -> None:
        """The server has the runs that `tracked` made."""
        for run in runs:
            expected = [(epoch, int(run.rpartition("-")[2]) + 1 / epoch) for epoch in range(1, 31)]
            equal(run, self.server.points(run)["train/loss"], expected, exact)
            assert self.server.run(run)["summary"]["test/clean_accuracy"] == 0.5


def equal(what: str, found: list[tuple[int, float]], expected: list[tuple[int, float]], exact: bool) -> None:
    """Exactly: every point once. Otherwise the same point may have been sent twice, which this server keeps twice."""
    points = found if exact else sorted(set(found))
    close = len(points) == len(expected) and all(
        step == at and math.isclose(value, other, rel_tol=1e-9, abs_tol=1e-12)
        for (step, value), (at, other) in zip(points, expected, strict=True)
    )
    assert close, f"{what}: at the server {found}, expected {expected}"
