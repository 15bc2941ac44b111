"""What the proofs of the launchers share: sweeps as processes, what lies in their folders, and a line per proof."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from snnrobust.claims import holder
from snnrobust.job import STATE, TRAINING_LOCK

COMMON = ("train", "-m", "tracker=none", "device=cpu")
FOUR = ("seed=0,1,2,3", "training.epochs=25")
"""Four runs of the digits, of some seconds each."""
# Started in the background, Ctrl-C is ignored here and in all processes that are started and interrupted from here.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Sweep:
    """`snnrobust train -m` in a process of its own, in the current folder, with its output in a file.

    Args:
        runs: name of the folder of the runs.
        words: what the command says beyond `COMMON`.
    """

    def __init__(self, runs: str, *words: str) -> None:
        self.runs = Path(runs)
        self.log = Path(f"{runs}.{time.monotonic_ns()}.log")
        environment = {**os.environ, "OMP_NUM_THREADS": "7", "CI": "1"}  # threads that no run may follow
        with self.log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "snnrobust", *COMMON, f"runs={runs}", *words],
                stdout=file,
                stderr=file,
                env=environment,
            )

    @property
    def text(self) -> str:
        return self.log.read_text()

    def ends(self, status: int, seconds: float = 400) -> Sweep:
        """Waits, and compares the exit status."""
        found = self.process.wait(seconds)
        expect(found == status, f"exit status {status}, got {found}", self)
        return self

    def until(self, holds: Callable[[], Any], what: str, seconds: float = 120) -> Any:
        """The first true value of `holds`."""
        end = time.monotonic() + seconds
        while not (found := holds()):
            expect(time.monotonic() < end, f"{what} within {seconds:.0f} s", self)
            expect(self.process.poll() is None, f"{what} before the sweep ended", self)
            time.sleep(0.05)
        return found

    def under_way(self, epochs: int = 2) -> list[Path]:
        """Runs that have saved so many epochs and that a process is training."""
        histories = [path for path in self.runs.glob("*/history.jsonl") if len(path.read_text().split("\n")) > epochs]
        runs = [path.parent for path in histories if path.with_name(STATE).exists()]
        return [run for run in runs if holder(run / TRAINING_LOCK)]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)


def owner(run: Path) -> int:
    """The process that is at work on a run."""
    found = re.match(r"process (\d+)", (run / TRAINING_LOCK).read_text())
    assert found is not None
    return int(found[1])


def environment_of(process: int) -> dict[str, str]:
    """What a process was started with."""
    words = Path(f"/proc/{process}/environ").read_bytes().decode().split("\0")
    return dict((name, value) for name, _, value in (word.partition("=") for word in words))


def results(runs: str | Path) -> dict[str, dict[str, Any]]:
    """Records by training signature."""
    return {path.parent.name: json.loads(path.read_text()) for path in Path(runs).glob("*/results.json")}


def same(runs: str | Path, reference: str | Path) -> bool:
    """Whether two sweeps have the same runs with the same metrics, bit for bit."""
    first, second = results(runs), results(reference)
    return (
        bool(first)
        and first.keys() == second.keys()
        and all(first[run]["metrics"] == second[run]["metrics"] for run in first)
    )


def trainings(runs: str | Path) -> list[int]:
    """How often each run was trained to its end."""
    return [path.read_text().count("epochs trained: ") for path in Path(runs).glob("*/run.log")]


def expect(holds: object, what: str, *sweeps: Sweep) -> None:
    """Ends the proofs where something does not hold, after the output of the sweeps that it is about."""
    if not holds:
        for sweep in sweeps:
            print(sweep.text, file=sys.stderr)
        sys.exit(f"FAILED: {what}")


def proved(text: str, start: float) -> None:
    print(f"ok  {text} ({time.monotonic() - start:.0f} s)", flush=True)


def finish(sweeps: Sequence[Sweep]) -> None:
    """Ends what is left of them."""
    for sweep in sweeps:
        if sweep.process.poll() is None:
            sweep.kill()
