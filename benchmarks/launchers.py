"""Times sweeps as commands: runs beside each other, what a run costs beyond its own work, the memory of the parent.

Run with: python -m benchmarks.launchers [pairs] [cost] [plan]    (all: some ten minutes)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from snnrobust.job import RESULTS

ROUNDS = 3
FEW, MANY = 20, 200
TINY = ("training=debug", "device=cpu", "model.channels=[4]", "model.hidden=8", "encoder.steps=2")
PAIR = ("seed=0,1", "training.epochs=80", "tracker=none", "device=cpu")
PARALLEL = ("launcher=parallel", "launcher.jobs=2")


@dataclass(frozen=True)
class Done:
    """One command: its seconds, the peak memory of its own process in MiB, and the seconds that its runs record."""

    seconds: float
    peak: float
    work: float


def command(verb: str, runs: Path, *words: str) -> Done:
    """A command in a process of its own, which may leave out `-m` for `plan`."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "snnrobust", verb, *(["-m"] if verb == "train" else []), f"runs={runs}", *words],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_SILENT": "true"},
    )
    peak = 0.0
    while process.poll() is None:
        peak = _peak(process.pid) or peak
        time.sleep(0.05)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{words} ended with {process.returncode}")
    return Done(seconds, peak, sum(map(_work, runs.glob(f"*/{RESULTS}"))))


def _peak(process: int) -> float:
    """MiB, of this process alone: what `wait4` says includes its workers. 0 once it has ended."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def _work(results: Path) -> float:
    """Seconds of reading data, training and evaluation."""
    return sum(json.loads(results.read_text())["durations"].values())


def seeds(count: int) -> str:
    return f"seed=range({count})"


def pairs() -> None:
    """Two runs beside each other, and one after the other."""
    taken: dict[str, list[float]] = {"local": [], "parallel": []}
    for _ in range(ROUNDS):
        taken["local"].append(_fresh(lambda runs: command("train", runs, *PAIR)).seconds)
        taken["parallel"].append(_fresh(lambda runs: command("train", runs, *PAIR, *PARALLEL)).seconds)
    ratios = [first / second for first, second in zip(taken["local"], taken["parallel"], strict=True)]
    print(f"| two runs on 2 cores, n={ROUNDS} | s, median | range |\n|---|---:|---:|")
    for name, seconds in taken.items():
        print(f"| `launcher={name}` | {median(seconds):.1f} | {min(seconds):.1f} - {max(seconds):.1f} |")
    print(f"\nBeside each other {median(ratios):.2f} times as fast, median of pairs ({_range(ratios)}).\n")


def cost() -> None:
    """What a run costs beyond its own work (wall * workers / runs, less what its results record), and the parent."""
    print(
        "| tiny runs, 2 workers | s, wall | s a run: wall * 2 / runs | of it work | fixed | parent at its peak, MiB |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    offline = ("tracker=wandb", "tracker.mode=offline")
    for count, tracker in ((FEW, ("tracker=none",)), (MANY, ("tracker=none",)), (MANY, offline)):
        words = (*TINY, *tracker, *PARALLEL, seeds(count))
        done = _fresh(lambda runs, w=words: command("train", runs, *w))
        a_run, work = 2 * done.seconds / count, done.work / count
        columns = f"{done.seconds:.0f} | {a_run:.2f} | {work:.2f} | {a_run - work:.2f} | {done.peak:.1f}"
        print(f"| {count}, {' '.join(tracker)} | {columns} |", flush=True)
    print()


def plan() -> None:
    """The plan of a sweep of which some runs are done."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        command("train", runs, *TINY, "tracker=none", *PARALLEL, seeds(FEW))
        taken = [command("plan", runs, "-m", *TINY, "tracker=none", seeds(MANY)).seconds for _ in range(5)]
    print(
        f"`snnrobust plan` for {MANY} runs, {FEW} of them done: {median(taken):.2f} s, median of 5 ({_range(taken)}).\n"
    )


def _fresh(measure: Callable[[Path], Done]) -> Done:
    with tempfile.TemporaryDirectory() as folder:
        return measure(Path(folder) / "runs")


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.2f} - {max(values):.2f}"


def main(words: Sequence[str]) -> None:
    parts: dict[str, Callable[[], None]] = {"pairs": pairs, "cost": cost, "plan": plan}
    for name in words or parts:
        parts[name]()
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
