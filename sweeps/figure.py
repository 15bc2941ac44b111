"""The figure of a comparison: what a contender costs, and whether sparse gradients narrow the gap."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from snnrobust.reporting.figures import COLOURS, MARKERS, STYLE
from snnrobust.reporting.settings import Estimate
from sweeps.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = (
    ("clean", "worst", "clean accuracy [%]", "worst-case accuracy [%]"),
    ("sparsity", "gap", "gradient sparsity", "gap between noise and worst case [points]"),
)
"""Columns and labels of the two axes."""


class Estimates(Protocol):
    """By column."""

    def __getitem__(self, column: str) -> Estimate | None: ...


Rows = Mapping[tuple[str, str], Estimates]


def draw(comparison: Comparison, rows: Rows) -> bytes:
    """SVG: one row of panels per dataset; numbers beside points are those of the table."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    families = list(dict.fromkeys(contender.family for contender in comparison.contenders.values()))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 4.2 * len(comparison.datasets) + 0.4), layout="constrained")
        grid = figure.subplots(len(comparison.datasets), len(PANELS), squeeze=False)
        for line, dataset in zip(grid, comparison.datasets, strict=True):
            for axes, panel in zip(line, PANELS, strict=True):
                _points(axes, comparison, rows, dataset, panel, families)
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            title="numbers: rows of the table; bars: one standard deviation over seeds",
            loc="outside lower center",
            ncols=len(families),
        )
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def _points(
    axes: Axes, comparison: Comparison, rows: Rows, dataset: str, panel: tuple[str, str, str, str], families: list[str]
) -> None:
    across, up, label, other = panel
    named: set[str] = set()
    for name, contender in comparison.of(dataset).items():
        x, y = rows[dataset, name][across], rows[dataset, name][up]
        if x is None or y is None:
            continue
        i = families.index(contender.family)
        style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        (px, dx), (py, dy) = _drawn(across, x), _drawn(up, y)
        axes.errorbar(
            px, py, xerr=dx, yerr=dy, ls="none", ms=6, elinewidth=0.7, capsize=2,
            label=None if contender.family in named else contender.family, **style,
        )  # fmt: skip
        axes.annotate(str(comparison.number(name)), (px, py), xytext=(4, 4), textcoords="offset points", fontsize=8)
        named.add(contender.family)
    if across == "sparsity" and named:
        axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel(other)
    axes.set_title(dataset, fontsize=9)


def _drawn(column: str, value: Estimate) -> tuple[float, float]:
    factor = 1.0 if column == "sparsity" else 100.0
    return factor * value.mean, factor * (value.std or 0.0)
