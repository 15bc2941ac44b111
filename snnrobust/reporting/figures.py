"""Trade-off figures. Colours of Okabe and Ito, and a marker for each, so that they read in print and for everyone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from snnrobust.reporting.settings import Estimate, Setting, short, show
from snnrobust.reporting.tables import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.hashsalt": "snnrobust",
    "svg.fonttype": "none",
    "legend.frameon": False,
}
EPS = "threat.eps"
PANEL = (4.6, 4.1)
LEGEND_ROW = 0.17
"""Inches."""
MOST_SERIES, LONGEST = 12, 30
"""Of a legend: entries, and characters of each; beyond them the table is the place to look."""
MOST_LINES, MOST_POINTS = 24, 60
"""Of a panel: lines, beyond which as many as a legend names are drawn; points that have bars, lines and numbers."""

Series = tuple[str, list[Setting]]
Line = TypeVar("Line")


def tradeoff(summary: Summary) -> Figure | None:
    """Clean accuracy against PGD accuracy."""
    return _scatter(summary, "clean_accuracy", "clean accuracy [%]")


def sparsity(summary: Summary) -> Figure | None:
    """Gradient sparsity against PGD accuracy."""
    return _scatter(summary, "gradient_sparsity", "gradient sparsity")


def _scatter(summary: Summary, metric: str, label: str) -> Figure | None:
    """One point per setting with the spread over seeds; settings that differ in one number are joined."""
    usable = [s for s in summary.settings if s.pairs(metric, "pgd_accuracy")]
    if not usable:
        return None

    def draw(axes: Axes, settings: list[Setting]) -> None:
        number = _joining_key(settings)
        crowded = len(settings) > MOST_POINTS
        for i, (name, members) in enumerate(_series(settings, number)):
            points = [(_need(s, metric), _need(s, "pgd_accuracy")) for s in members]
            _draw_points(axes, points, metric, i, name, crowded)
            x, y = zip(*(pair for s in members for pair in s.pairs(metric, "pgd_accuracy")), strict=True)
            size, alpha = (2, 0.25) if crowded else (6, 0.5)
            axes.plot(_percent(metric, x), _percent("pgd_accuracy", y), ".", ms=size, alpha=alpha, color=_colour(i))
            for setting in () if crowded else members:
                if number is not None and setting.label(number) is not None:
                    _annotate(axes, setting, metric, show(setting.label(number)))
        axes.set_xlabel(label)
        axes.locator_params(axis="x", nbins=6)
        axes.set_ylabel("PGD accuracy [%]")
        joined = f"{'points of a series differ in' if crowded else 'numbers beside points:'} {short(number or '')}"
        _legend_below(axes, joined if number else None)

    return _panels(usable, draw)


def budget(summary: Summary) -> Figure | None:
    """Accuracy against the size of adversarial and of random perturbations; size 0 is the clean accuracy."""
    needed = ("clean_accuracy", "pgd_accuracy", "noise_accuracy")
    usable = [s for s in summary.settings if all(s.estimate(metric) for metric in needed) and _is_number(_eps(s))]
    if not usable:
        return None

    def draw(axes: Axes, settings: list[Setting]) -> None:
        series = _series(settings, EPS)
        for i, (name, members) in enumerate(spread(series)):
            sizes = [0.0, *(_eps(s) for s in members)]
            clean = _need(members[0], "clean_accuracy")
            adversarial = [clean, *(_need(s, "pgd_accuracy") for s in members)]
            random = [clean, *(_need(s, "noise_accuracy") for s in members)]
            _draw_curve(axes, sizes, adversarial, i, "-", _colour(i), name or "PGD")
            _draw_curve(axes, sizes, random, i, "--", "white", "_")
        axes.set_xlabel("perturbation size eps [input units]")
        axes.set_ylabel("accuracy [%]")
        axes.set_ylim(-2, 102)
        ticks = sorted({0.0, *(_eps(s) for s in settings)})
        if len(ticks) <= 6:
            axes.set_xticks(ticks)
        _legend_below(axes, f"solid: PGD; dashed: noise{left_out(series)}")

    return _panels(usable, draw)


def spread(lines: Sequence[Line]) -> list[Line]:
    """All lines, or of very many as many as a legend names, evenly spaced."""
    if len(lines) <= MOST_LINES:
        return list(lines)
    return [lines[round(i * (len(lines) - 1) / (MOST_SERIES - 1))] for i in range(MOST_SERIES)]


def left_out(lines: Sequence[object]) -> str:
    """What `spread` leaves out, for the title of a legend."""
    return f" ({MOST_SERIES} of {len(lines)} series, evenly spaced)" if len(lines) > MOST_LINES else ""


def _eps(setting: Setting) -> Any:
    return setting.records[0].config["threat"].get("eps")


def _panels(settings: Sequence[Setting], draw: Callable[[Axes, list[Setting]], None]) -> Figure:
    """One panel for each combination of dataset and model: points of different tasks are not to be compared."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    tasks: dict[str, list[Setting]] = {}
    for setting in settings:
        choices = setting.records[0].choices
        tasks.setdefault(f"{choices.get('dataset', '?')}, {choices.get('model', '?')}", []).append(setting)
    with mpl.rc_context(STYLE):
        figure = Figure(layout="constrained")
        rows = 0
        for axes, (task, members) in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks.items(), strict=True):
            draw(axes, members)
            n = sorted({len(setting.records) for setting in members})
            axes.set_title(f"{task} (n = {', '.join(map(str, n))})", fontsize=9)
            rows = max(rows, min(len(axes.get_legend_handles_labels()[0]), MOST_SERIES) // 2)
        figure.set_size_inches(PANEL[0] * len(tasks), PANEL[1] + LEGEND_ROW * rows)
    return figure


def _joining_key(settings: Sequence[Setting]) -> str | None:
    """The numeric label whose values a line joins: the one with most values, the budget only if there is no other."""
    keys = dict.fromkeys(key for setting in settings for key, value in setting.labels if _is_number(value))
    values = {key: {setting.label(key) for setting in settings} for key in keys}
    several = {key: found for key, found in values.items() if len(found) > 1}
    return max(several, key=lambda key: (key != EPS, len(several[key]), key), default=None)


def _series(settings: Sequence[Setting], number: str | None) -> list[Series]:
    """Settings that differ in `number` alone, in its order, by the name of what they share."""
    found: dict[str, list[Setting]] = {}
    constant = {key for key, _ in settings[0].labels if len({s.label(key) for s in settings}) == 1}
    for setting in settings:
        shared = [f"{short(k)} {show(v)}" for k, v in setting.labels if k != number and k not in constant]
        found.setdefault(", ".join(shared), []).append(setting)
    if number is not None:
        for members in found.values():
            members.sort(key=lambda s: (s.label(number) is None, s.label(number) or 0))
    return list(found.items())


def _draw_points(
    axes: Axes, points: list[tuple[Estimate, Estimate]], metric: str, i: int, name: str, crowded: bool
) -> None:
    """Means and deviations, joined; among very many points means alone."""
    (x, dx), (y, dy) = (_bars(metric, [p[0] for p in points]), _bars("pgd_accuracy", [p[1] for p in points]))
    style: dict[str, Any] = {
        "color": _colour(i),
        "marker": MARKERS[i % len(MARKERS)],
        "ms": 4 if crowded else 6,
        "lw": 0 if crowded else 1,
        "capsize": 2,
        "elinewidth": 0.8,
    }
    bars: dict[str, Any] = {} if crowded else {"xerr": dx, "yerr": dy}
    axes.errorbar(x, y, **bars, label=name or ("mean" if crowded else "mean ± std"), **style)


def _draw_curve(
    axes: Axes, sizes: list[float], curve: list[Estimate], i: int, line: str, fill: str, label: str
) -> None:
    y, dy = _bars("pgd_accuracy", curve)
    axes.plot(sizes, y, line, color=_colour(i), marker=MARKERS[i % len(MARKERS)], mfc=fill, ms=5, lw=1.4, label=label)
    low, high = [a - b for a, b in zip(y, dy, strict=True)], [a + b for a, b in zip(y, dy, strict=True)]
    axes.fill_between(sizes, low, high, color=_colour(i), alpha=0.15, lw=0)


def _legend_below(axes: Axes, title: str | None) -> None:
    """Under the axes, where it hides no point."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > MOST_SERIES:
        title = f"{title or ''} (the first {MOST_SERIES} of {len(labels)} series are named)".strip()
    axes.legend(
        handles[:MOST_SERIES],
        [label if len(label) <= LONGEST else label[: LONGEST - 1] + "…" for label in labels[:MOST_SERIES]],
        title=title, fontsize=8, title_fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2,
    )  # fmt: skip


def _annotate(axes: Axes, setting: Setting, metric: str, text: str) -> None:
    x, y = _percent(metric, [_need(setting, metric).mean])[0], 100 * _need(setting, "pgd_accuracy").mean
    axes.annotate(text, (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8)


def _bars(metric: str, estimates: Sequence[Estimate]) -> tuple[list[float], list[float]]:
    """Means and deviations as drawn; a single run has no deviation, which shows as a bar of length 0."""
    return _percent(metric, [e.mean for e in estimates]), _percent(metric, [e.std or 0.0 for e in estimates])


def _percent(metric: str, values: Sequence[float]) -> list[float]:
    return [100 * v if metric.endswith("_accuracy") else v for v in values]


def _need(setting: Setting, metric: str) -> Estimate:
    found = setting.estimate(metric)
    assert found is not None
    return found


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
