"""One self-contained HTML page: no scripts, no requests, everything from a record escaped."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, StrictUndefined

from snnrobust.reporting.estimators import EstimatorTable
from snnrobust.reporting.pareto import FrontTable
from snnrobust.reporting.records import Collection, Record
from snnrobust.reporting.tables import MISSING, Summary

SHOWN = ("clean_accuracy", "noise_accuracy", "pgd_accuracy", "worst_accuracy")


@dataclass(frozen=True)
class Picture:
    """A figure as base64-encoded SVG, and what it shows in a sentence."""

    svg: str
    caption: str
    wide: bool


@dataclass(frozen=True)
class Gradients:
    """The section on gradients: heat maps, measures under every estimator, and what is not shown."""

    heatmaps: Sequence[Picture]
    table: EstimatorTable
    notes: Sequence[str]


@dataclass(frozen=True)
class Searched:
    """The section on a search: its front as a figure, which may be absent, and as a table."""

    name: str
    note: str
    figure: Picture | None
    table: FrontTable


@dataclass(frozen=True)
class Run:
    """A line of the table of runs, as text."""

    name: str
    labels: tuple[str, ...]
    seed: int
    values: tuple[str, ...]
    flags: str
    seconds: str
    commit: str
    command: str


def picture(svg: bytes, caption: str, wide: bool) -> Picture:
    """`wide`: more than one panel; takes the whole width of the page."""
    return Picture(base64.b64encode(svg).decode(), caption, wide)


def render(
    title: str,
    summary: Summary,
    collection: Collection,
    pictures: Sequence[Picture],
    gradients: Gradients,
    searches: Sequence[Searched] = (),
) -> str:
    """The page as text."""
    source = resources.files(__package__ or "").joinpath("page.html.j2").read_text(encoding="utf-8")
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(source)
    return template.render(
        title=title,
        summary=summary,
        records=collection.records,
        failures=collection.failures,
        problems=collection.problems,
        figures=pictures,
        gradients=gradients,
        searches=searches,
        runs=[_run(record, summary.labels(setting)) for setting in summary.settings for record in setting.records],
    )


def _run(record: Record, labels: Sequence[str]) -> Run:
    content = record.content
    git = content.get("git") or {}
    commit = str(git.get("commit", "unknown"))[:10] + (" +" if git.get("dirty") else "")
    found = (record.metrics.get(name) for name in SHOWN)
    return Run(
        name="/".join(record.identity),
        labels=tuple(labels),
        seed=record.seed,
        values=tuple(MISSING if value is None else f"{100 * value:.1f}" for value in found),
        flags=", ".join(flag.name for flag in record.flags),
        seconds=f"{sum(content.get('durations', {}).values()):.0f}",
        commit=commit,
        command=shlex.join(["snnrobust", "train", *content.get("overrides", ())]),
    )
