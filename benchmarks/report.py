"""Times the report over 2,000 recorded runs: the command itself, and its page in a browser.

Run with: python -m benchmarks.report

The records are those of one real run, written again under the configs of a sweep, each with its own signatures, seed
and metrics: what a report reads and draws depends on how many there are and how they differ, not on who trained them.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from snnrobust.identity import evaluation_signature, training_signature
from snnrobust.job import CONFIG, GRADIENTS, RESULTS

ROUNDS = 3
WEIGHTS = tuple(round(0.0005 * 1.1**k, 6) for k in range(40))
HIDDEN, STEPS, SEEDS = (32, 48, 64, 96, 128), (4, 8), range(5)
"""2,000 runs in 400 settings."""
TINY = (
    "training=debug", "training/validation=robust", "training.validation.samples=20", "tracker=none", "device=cpu",
    "regularizer.weight=0.001", "seed=0",
)  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """Seconds and MiB: of the process at its largest, or of the page on disk."""

    seconds: tuple[float, ...]
    size: float


def template(folder: Path) -> Path:
    """The directory of one real run, trained for one epoch."""
    command = [sys.executable, "-m", "snnrobust", "train", *TINY, f"runs={folder}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    (found,) = folder.glob(f"*/{RESULTS}")
    return found.parent


def write_records(run: Path, root: Path) -> int:
    """Writes the records of a sweep, as the run at `run` would have left them, and counts them."""
    contents = list(_sweep(json.loads((run / RESULTS).read_text())))
    for content in contents:
        folder = root / content["training_signature"]
        folder.mkdir(parents=True)
        (folder / CONFIG).write_text(json.dumps(content["config"]))
        (folder / RESULTS).write_text(json.dumps(content, indent=1))
        os.link(run / GRADIENTS, folder / GRADIENTS)
    return len(contents)


def _sweep(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    draws = random.Random(0)
    for weight, hidden, steps, seed in product(WEIGHTS, HIDDEN, STEPS, SEEDS):
        config = _seeded(json.loads(json.dumps(record["config"])), seed)
        config["regularizer"]["weight"] = weight
        config["model"]["hidden"] = hidden
        config["encoder"]["steps"] = steps
        training = training_signature(config)
        gain = 2000 * weight / 45 + 0.01 * steps
        moved = {
            name: min(max(value - 0.002 * gain + draws.gauss(0, 0.01), 0), 1)
            for name, value in record["metrics"].items()
            if name.endswith("_accuracy")
        }
        under = {"pgd_accuracy", "fgsm_accuracy", "worst_accuracy"}
        moved |= {name: min(max(0.2 + 0.3 * gain + draws.gauss(0, 0.02), 0), 1) for name in under}
        words = [f"regularizer.weight={weight}", f"model.hidden={hidden}", f"encoder.steps={steps}", f"seed={seed}"]
        yield {
            **record,
            "training_signature": training,
            "evaluation_signature": evaluation_signature(config),
            "metrics": {**record["metrics"], **moved, "gradient_sparsity": draws.uniform(0.1, 0.6)},
            "config": config,
            "overrides": [*TINY[:-2], *words],
            "seeds": {"training": seed, "evaluation": seed},
        }


def _seeded(node: Any, seed: int) -> Any:
    """Nodes repeat the seed of their run."""
    if isinstance(node, Mapping):
        return {key: seed if key == "seed" else _seeded(value, seed) for key, value in node.items()}
    return node


def command(runs: Path, out: Path) -> tuple[Cost, Cost]:
    """`snnrobust report`, in processes of its own: by the clock, and the time that the processor spent on it."""
    seconds, busy, peaks = [], [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "snnrobust", "report", str(runs), "--out", str(out)],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds.append(time.perf_counter() - start)
        busy.append(usage.ru_utime + usage.ru_stime)
        peaks.append(usage.ru_maxrss / 1024)
        if process.returncode:
            raise SystemExit(f"the report ended with {process.returncode}")
    return Cost(tuple(seconds), max(peaks)), Cost(tuple(busy), max(peaks))


def page(file: Path) -> Cost:
    """From the start of the navigation until the page is drawn: loaded, every picture decoded, two frames shown."""
    from playwright.sync_api import sync_playwright

    browser_path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    seconds = []
    with sync_playwright() as player:
        for _ in range(ROUNDS):
            browser = player.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
            view = browser.new_page(viewport={"width": 1280, "height": 900})
            start = time.perf_counter()
            view.goto(file.as_uri(), wait_until="load")
            view.evaluate(DRAWN)
            seconds.append(time.perf_counter() - start)
            browser.close()
    return Cost(tuple(seconds), file.stat().st_size / 2**20)


DRAWN = """async () => {
  await Promise.all([...document.images].filter(i => i.loading !== "lazy").map(i => i.decode()));
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""


def row(name: str, cost: Cost) -> str:
    low, high = min(cost.seconds), max(cost.seconds)
    return f"| {name} | {median(cost.seconds):.1f} | {low:.1f} - {high:.1f} | {cost.size:.1f} |"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        number = write_records(template(root / "one"), root / "runs")
        made, computed = command(root / "runs", root / "out")
        shown = page(root / "out" / "index.html")
    print(f"| report over {number:,} runs | s, median of {ROUNDS} | range | MiB |\n|---|---:|---:|---:|")
    print(row("`snnrobust report` (memory at its peak)", made))
    print(row("the same, time of the processor", computed))
    print(row("the page, opened in Chromium (size of the file)", shown))


if __name__ == "__main__":
    main()
