"""What the terminal shows: progress bars (quiet where nobody looks) and tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

PERCENT = "{:.1f} %"
COSTS = frozenset({"stored_weights", "synaptic_operations", "energy_nanojoule"})
ALL_COSTS = COSTS | {"sparsity", "stored_bytes", "spikes", "energy_ratio"}
"""Measures of costs that the table of a run leaves out, where connections are absent and elsewhere; `results.json` has
all of them."""


def stdout() -> Console:
    return Console(highlight=False)


def stderr() -> Console:
    return Console(stderr=True, highlight=False)


def counted(runs: int) -> str:
    return f"{runs} run{'s' * (runs != 1)}"


class Terminal:
    """Progress on standard error. Nothing is drawn into a pipe or in CI, where bars only fill logs.

    Args:
        brief: one of many runs, which are reported together.
        quiet: draws nothing.
    """

    def __init__(self, brief: bool = False, quiet: bool = False) -> None:
        self.brief = brief
        self.console = stderr()
        self.quiet = quiet or not self.console.is_terminal or bool(os.environ.get("CI"))

    def tracked_offline(self, folder: str) -> None:
        if not self.brief:
            print(f"tracked offline; upload with: snnrobust sync {Path(folder).parents[1]}")

    @contextmanager
    def training(self, name: str, steps: int) -> Iterator[Callable[[float, float], None]]:
        with self._bar(name, steps) as advance:
            yield lambda loss, accuracy: advance(1, f"loss {loss:.3f}  accuracy {PERCENT.format(100 * accuracy)}")

    @contextmanager
    def evaluation(self, name: str, samples: int) -> Iterator[Callable[[int, float], None]]:
        with self._bar(name, samples) as advance:
            yield lambda done, accuracy: advance(done, f"accuracy {PERCENT.format(100 * accuracy)}")

    @contextmanager
    def _bar(self, name: str, total: int) -> Iterator[Callable[[int, str], None]]:
        columns = (
            TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
        )  # fmt: skip
        with Progress(*columns, console=self.console, disable=self.quiet, transient=self.brief) as bar:
            task = bar.add_task(name, total=total, status="")
            yield lambda done, status: bar.update(task, advance=done, status=status)
            bar.update(task, total=bar.tasks[task].completed)  # less than announced where a training stops early


def results_title(results: Mapping[str, Any]) -> str:
    """What a run is about, in one line."""
    choices, config = results["choices"], results["config"]
    words = [choices[group] for group in ("dataset", "model", "regularizer") if group in choices]
    if "regularizer" in config:  # a model made elsewhere was trained who knows how
        words.append(f"weight {config['regularizer'].get('weight')}")
    if choices.get("defence", "none") != "none":
        words.append(choices["defence"])
    budget = {name: value for name, value in config["threat"].items() if not name.startswith("_")}
    words += [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in budget.items()
    ]
    return ", ".join([*words, f"seed {config['seed']}"])


def results_line(name: str, results: Mapping[str, Any]) -> str:
    """One run of many: the headline in a line."""
    shown = {"clean": "clean_accuracy", "noise": "noise_accuracy", "PGD": "pgd_accuracy", "worst": "worst_accuracy"}
    metrics = results["metrics"]
    values = [f"{word} {100 * metrics[key]:.1f}" for word, key in shown.items() if key in metrics]
    flags = ", ".join(flag["name"] for flag in results["flags"])
    return f"{name}: {', '.join(values)} %" + f" † {flags}" * bool(flags)


def results_table(results: Mapping[str, Any]) -> Group:
    """The measures of one run, for the terminal, and under them what speaks against trusting them."""
    table = Table()
    table.add_column("measure")
    table.add_column("value", justify="right")
    repeated = {m for m, attack in results["config"]["suite"]["headline"].items() if m != f"{attack}_accuracy"}
    left_out = repeated | (COSTS if tells_of_costs(results) else ALL_COSTS)
    for name, value in results["metrics"].items():
        if name.startswith("validation") or name in left_out:
            continue
        text = "–" if value is None else PERCENT.format(100 * value) if name.endswith("_accuracy") else f"{value:.4g}"
        table.add_row(name, text)
    return Group(table, *(Text(flag_line(flag)) for flag in results["flags"]))


def tells_of_costs(results: Mapping[str, Any]) -> bool:
    """Connections are absent, or the energy is compared with another run's."""
    costs = results.get("costs") or {}
    return bool(costs.get("sparsity") or costs.get("reference"))


def flag_line(flag: Mapping[str, Any]) -> str:
    """Name, number, sentence, and where more is said; records of earlier versions lack the last."""
    more = f" ({flag['anchor']})" if "anchor" in flag else ""
    return f"† {flag['name']} {flag['value']:.3g}: {flag['sentence']}{more}"
