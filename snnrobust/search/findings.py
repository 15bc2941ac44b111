"""What a search found: `search.json`, and the table of its Pareto front."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from snnrobust import __version__
from snnrobust.files import write_json
from snnrobust.job import SCHEMA, SEARCH, Job, results_of
from snnrobust.search.objectives import MEASURES
from snnrobust.search.pareto import front
from snnrobust.search.settings import Search
from snnrobust.search.space import Space
from snnrobust.search.study import Trial

TEST = {"clean_accuracy": "test clean %", "worst_accuracy": "test worst %"}


@dataclass(frozen=True)
class Found:
    """A trial and its runs.

    Args:
        trial: what it was, and what came out of it.
        jobs: its runs, one for each seed.
        best: whether it is on the front.
    """

    trial: Trial
    jobs: tuple[Job, ...]
    best: bool


def judged(trials: Sequence[Trial], jobs: Mapping[int, tuple[Job, ...]], settings: Search) -> list[Found]:
    """Trials with their runs, by number, and which of them are on the front."""
    done = [trial for trial in trials if trial.state == "done"]
    larger = [MEASURES[name].larger_is_better for name in settings.objectives]
    best = front([trial.objectives for trial in done], larger)
    numbers = {trial.number for trial, on_it in zip(done, best, strict=True) if on_it}
    return [Found(trial, jobs[trial.number], trial.number in numbers) for trial in trials]


def write(folder: Path, settings: Search, space: Space, found: Sequence[Found]) -> None:
    """Replaces `search.json`."""
    write_json(folder / SEARCH, _content(settings, space, found))


def _content(settings: Search, space: Space, found: Sequence[Found]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "name": settings.name,
        "version": __version__,
        "objectives": [
            {"name": name, "larger_is_better": MEASURES[name].larger_is_better} for name in settings.objectives
        ],
        "fixed": list(space.fixed),
        "space": list(space.typed.values()),
        "sampler": {name: getattr(settings, name) for name in ("sampler", "seed", "startup", "population", "batch")},
        "over_seeds": settings.over_seeds,
        "trials": [_trial(space, one) for one in found],
    }


def _trial(space: Space, one: Found) -> dict[str, Any]:
    return {
        "number": one.trial.number,
        "state": one.trial.state,
        "words": list(space.own(one.trial.values)),
        "objectives": list(one.trial.objectives),
        "front": one.best,
        "error": one.trial.error,
        "runs": [
            {"training_signature": job.training, "evaluation_signature": job.evaluation, "seed": job.config["seed"]}
            for job in one.jobs
        ],
    }


def table(settings: Search, space: Space, found: Sequence[Found]) -> Table:
    """The front, the best in the first objective first, with what its runs do on test data."""
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for key in ("trial", *(key.rpartition(".")[2] for key in space.dimensions)):
        shown.add_column(key, no_wrap=True)
    for name in (*settings.objectives, *TEST):
        shown.add_column(TEST.get(name) or title(name), justify="right")
    sign = -1 if MEASURES[settings.objectives[0]].larger_is_better else 1
    for one in sorted((one for one in found if one.best), key=lambda one: sign * one.trial.objectives[0]):
        values = [text(name, value) for name, value in zip(settings.objectives, one.trial.objectives, strict=True)]
        words = (word.partition("=")[2] for word in space.own(one.trial.values))
        shown.add_row(str(one.trial.number), *words, *values, *(_tested(one, name) for name in TEST))
    return shown


def _tested(one: Found, metric: str) -> str:
    found = [(results_of(job) or {"metrics": {}})["metrics"].get(metric) for job in one.jobs]
    values = [value for value in found if value is not None]
    return f"{100 * statistics.fmean(values):.1f}" if values else "–"


def title(name: str) -> str:
    """`validation_accuracy` reads `validation accuracy %`."""
    return name.replace("_", " ") + (" %" if name.endswith("_accuracy") else "")


def text(name: str, value: float) -> str:
    return f"{100 * value:.1f}" if name.endswith("_accuracy") else f"{value:.4g}"


def line(settings: Search, objectives: Sequence[float]) -> str:
    """What came out of a trial: `validation accuracy 93.3 %, stored bytes 3792`."""
    pairs = zip(settings.objectives, objectives, strict=True)
    return ", ".join(f"{name.replace('_', ' ')} {text(name, v)}{title(name)[len(name) :]}" for name, v in pairs)
