"""Where a gradient becomes zero on its way back through the layers, as a figure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from snnrobust.reporting.estimators import estimators_of
from snnrobust.reporting.figures import (
    COLOURS,
    LEGEND_ROW,
    LONGEST,
    MARKERS,
    MOST_SERIES,
    PANEL,
    STYLE,
    left_out,
    spread,
)
from snnrobust.reporting.records import Record
from snnrobust.reporting.tables import Summary
from snnrobust.reporting.trainings import Training, trainings_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ARRIVING, LEAVING = "zero_spike_gradient", "zero_current_gradient"
BESIDE = 0.18
"""Distance of the two marks of a layer from its tick, in layers."""


@dataclass(frozen=True)
class Path:
    """Shares of zeros on the way back, of one training configuration under one estimator.

    Args:
        labels: of the training, by key, as text.
        estimator: by name.
        stops: by layer, the last one first: what arrives at its spikes and what leaves it, a value for each seed.
    """

    labels: Mapping[str, str]
    estimator: str
    stops: Mapping[str, tuple[Sequence[float], Sequence[float]]]


def layers(summary: Summary) -> Figure | None:
    """Share of exact zeros in the gradient, layer by layer; None if no run has measured it."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    tasks: dict[str, list[Path]] = {}
    for training in trainings_of(summary.settings):
        for path in _paths(training):
            tasks.setdefault(training.task, []).append(path)
    if not tasks:
        return None
    with mpl.rc_context(STYLE):
        rows = max(min(len(paths), MOST_SERIES) for paths in tasks.values()) // 2
        figure = Figure(layout="constrained", figsize=(PANEL[0] * len(tasks), PANEL[1] + LEGEND_ROW * rows))
        for axes, (task, paths) in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks.items(), strict=True):
            axes.set_title(task, fontsize=9)
            _draw(axes, paths)
    return figure


def _paths(training: Training) -> Iterator[Path]:
    for name in dict.fromkeys(name for record in training.records for name in estimators_of(record)):
        records = training.of_each_model(partial(_has_shares, name))
        shares = [_shares(record, name) for record in records]
        whole = [layer for layer in shares[0] if all(layer in found for found in shares)] if shares else []
        if whole:
            pairs = {layer: [found[layer] for found in shares] for layer in reversed(whole)}
            stops = {layer: ([a for a, _ in values], [b for _, b in values]) for layer, values in pairs.items()}
            yield Path(training.labels, name, stops)


def _has_shares(estimator: str, record: Record) -> bool:
    return bool(_shares(record, estimator))


def _shares(record: Record, estimator: str) -> dict[str, tuple[float, float]]:
    """By layer, what arrives at the spikes and what leaves, under one estimator; {} if that was not measured."""
    if estimator not in estimators_of(record):
        return {}
    # The declared estimator's come without its name.
    suffix = "" if estimator == next(iter(estimators_of(record))) else f"/{estimator}"
    found = record.content.get("layers", {})
    arriving, leaving = found.get(ARRIVING + suffix, {}), found.get(LEAVING + suffix, {})
    both = {layer: (arriving.get(layer), leaving[layer]) for layer in leaving}
    return {layer: (a, b) for layer, (a, b) in both.items() if a is not None and b is not None}


def _draw(axes: Axes, paths: Sequence[Path]) -> None:
    deepest = max((path.stops for path in paths), key=len)
    names = [*deepest]
    for i, path in enumerate(spread(paths)):
        # A network with fewer layers stands over the last of the deeper ones.
        places = [names.index(name) if name in names else k for k, name in enumerate(path.stops)]
        x = [place + side for place in places for side in (-BESIDE, BESIDE)]
        values = [value for pair in path.stops.values() for value in pair]
        y, deviations = (
            [statistics.fmean(v) for v in values],
            [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values],
        )
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        axes.plot(x, y, "-", color=colour, lw=1.2, label=_label(path, paths), marker=marker, ms=5)
        axes.plot(x[::2], y[::2], ls="", color=colour, marker=marker, ms=5, mfc="white")
        low, high = (
            [a - b for a, b in zip(y, deviations, strict=True)],
            [a + b for a, b in zip(y, deviations, strict=True)],
        )
        axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
    axes.set_xticks(range(len(names)), [name.removeprefix("backbone.") for name in names], fontsize=8)
    if len(names) > 4:
        axes.tick_params(axis="x", rotation=45)
    axes.set_xlabel("layer, from the output back to the input")
    axes.set_ylabel("share of exact zeros in the gradient")
    axes.set_ylim(-0.02, 1.02)
    _legend(axes, paths)


def _label(path: Path, among: Sequence[Path]) -> str:
    """What tells a path apart from the others of its panel."""
    keys = dict.fromkeys(key for other in among for key in other.labels)
    words = [path.labels.get(key, "") for key in keys if len({other.labels.get(key) for other in among}) > 1]
    if len({other.estimator for other in among}) > 1:
        words.append(path.estimator)
    text = ", ".join(word for word in words if word) or path.estimator
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _legend(axes: Axes, paths: Sequence[Path]) -> None:
    """Below the axes; a long one names the first series."""
    title = f"hollow: at the spikes; filled: behind the neurons{left_out(paths)}"
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > MOST_SERIES:
        title += f" (the first {MOST_SERIES} of {len(labels)} are named)"
    axes.legend(
        handles[:MOST_SERIES], labels[:MOST_SERIES], title=title, fontsize=8, title_fontsize=8,
        loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2,
    )  # fmt: skip
