"""The Pareto front of a search, as a figure and a table: chosen on validation data, and what the test says of it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snnrobust.reporting.figures import COLOURS, LEGEND_ROW, PANEL, STYLE
from snnrobust.reporting.records import Record
from snnrobust.reporting.searches import Search, Trial
from snnrobust.reporting.settings import Estimate
from snnrobust.reporting.tables import cell, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEST = ("clean_accuracy", "worst_accuracy")
CAPTION = (
    "Every trial of the search, by what it was chosen by (left) and on test data, which chose nothing (right). "
    "Coloured and numbered: the trials that no other beats in all objectives. A front on validation data need not be "
    "one on test data."
)
MOST_NUMBERED = 20
"""Points with the number of their trial beside them."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Tested:
    """A finished trial with the records of its runs, as far as the folders of the report hold them."""

    trial: Trial
    records: tuple[Record, ...]

    def estimate(self, metric: str) -> Estimate | None:
        values = [record.metrics[metric] for record in self.records if metric in record.metrics]
        if not values:
            return None
        return Estimate(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class FrontTable:
    """As text: the first columns, so many of them, are labels."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int


def judged(search: Search, records: Sequence[Record]) -> list[Tested]:
    """The finished trials, in order."""
    known = {record.identity: record for record in records}
    return [Tested(t, tuple(known[run.identity] for run in t.runs if run.identity in known)) for t in search.done]


def front_table(search: Search, trials: Sequence[Tested]) -> FrontTable:
    """A row for each trial on the front, the best in the first objective first."""
    keys = [word.partition("=")[0] for word in search.space]
    header = ("trial", *keys, *(_named(objective.name) for objective in search.objectives))
    sign = -1 if search.objectives[0].larger_is_better else 1
    ordered = sorted((t for t in trials if t.trial.front), key=lambda t: sign * t.trial.objectives[0])
    rows = tuple((*_row(search, one), *(_cell(one, metric) for metric in TEST)) for one in ordered)
    return FrontTable((*header, *(f"test: {title(metric)}" for metric in TEST)), rows, 1 + len(keys))


def note(search: Search) -> str:
    """How the search went, in a sentence."""
    counts = {state: sum(trial.state == state for trial in search.trials) for state in ("failed", "running")}
    others = "".join(f", {number} {state}" for state, number in counts.items() if number)
    front = sum(trial.front for trial in search.trials)
    seeds = f"; each is the mean over seeds {', '.join(map(str, search.over_seeds))}" if search.over_seeds else ""
    return f"{len(search.trials)} trials{others}, {front} on the front{seeds}; over {'; '.join(search.space)}"


def pareto(search: Search, trials: Sequence[Tested]) -> Figure | None:
    """The trials by their first two objectives, and by clean and worst-case accuracy; None where none is done."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    if not trials:
        return None
    chosen = {one.trial.number: _chosen_by(search, one.trial) for one in trials}
    on_test = {one.trial.number: point for one in trials if (point := _on_test(one)) is not None}
    front = [one.trial.number for one in trials if one.trial.front]
    with mpl.rc_context(STYLE):
        figure = Figure(layout="constrained", figsize=(2 * PANEL[0], PANEL[1] + LEGEND_ROW))
        left, right = figure.subplots(1, 2)
        _draw(left, chosen, front)
        first, *others = [objective.name for objective in search.objectives]
        left.set_xlabel(_named(first) if others else "trial")
        left.set_ylabel(_named(others[0] if others else first))
        left.set_title("what the trials were chosen by", fontsize=9)
        _draw(right, on_test, front)
        right.set_xlabel(f"test: {title(TEST[0])}")
        right.set_ylabel(f"test: {title(TEST[1])}")
        right.set_title("the same trials on test data", fontsize=9)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def _draw(axes: Axes, points: Mapping[int, Point], front: Sequence[int]) -> None:
    others = [point for number, point in points.items() if number not in front]
    if others:
        axes.plot(*zip(*others, strict=True), "o", ms=4, color="#999999", alpha=0.7, label="other trials")
    best = {number: points[number] for number in front if number in points}
    if best:
        axes.plot(
            *zip(*best.values(), strict=True), "D", ms=6, color=COLOURS[0], label="Pareto front on validation data"
        )
    for number, point in [*best.items()][:MOST_NUMBERED]:
        axes.annotate(str(number), point, xytext=(5, 5), textcoords="offset points", fontsize=8)


def _chosen_by(search: Search, trial: Trial) -> Point:
    values = [_scaled(o.name, value) for o, value in zip(search.objectives, trial.objectives, strict=True)]
    return (values[0], values[1]) if len(values) > 1 else (float(trial.number), values[0])


def _on_test(one: Tested) -> Point | None:
    clean, worst = (one.estimate(metric) for metric in TEST)
    return (100 * clean.mean, 100 * worst.mean) if clean and worst else None


def _named(objective: str) -> str:
    """The accuracy on clean validation data by its full name, beside that under attack."""
    return "validation clean [%]" if objective == "validation_accuracy" else title(objective)


def _scaled(name: str, value: float) -> float:
    return 100 * value if name.endswith("_accuracy") else value


def _row(search: Search, one: Tested) -> tuple[str, ...]:
    values = (word.partition("=")[2] for word in one.trial.words)
    pairs = zip(search.objectives, one.trial.objectives, strict=True)
    return str(one.trial.number), *values, *(cell(o.name, Estimate(value, None, 1), 1) for o, value in pairs)


def _cell(one: Tested, metric: str) -> str:
    return cell(metric, one.estimate(metric), len(one.trial.runs))
