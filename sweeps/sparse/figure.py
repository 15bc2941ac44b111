"""The figure of sparse connectivity: what absent connections cost, and what they save."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from snnrobust.reporting.figures import COLOURS, STYLE
from snnrobust.reporting.settings import Estimate
from sweeps.sparse.declaration import DENSE, OF_AN_ANN, Network, Part
from sweeps.sparse.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOOK: dict[str | None, dict[str, Any]] = {
    "magnitude": {"color": COLOURS[0], "marker": "o"},
    "hydra": {"color": COLOURS[1], "marker": "s"},
    "harp": {"color": COLOURS[2], "marker": "^"},
    None: {"color": "#555555", "marker": "x"},
}
"""By the pruning that connections come from."""
DASHES = {"snn": "-", "static_ann": (0, (4, 2)), "static_random": (0, (4, 2)), "rewired": (0, (1, 1.5))}
"""Converted: solid; end to end: dashed, and dotted where connections are rewired."""
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Of the energy ratio."""


def draw(results: Results) -> bytes:
    """SVG: one row of panels per dataset."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    datasets = results.table.datasets
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 3.7 * len(datasets) + 0.9), layout="constrained")
        grid = figure.subplots(len(datasets), 2, squeeze=False, sharey="row")
        for line, dataset in zip(grid, datasets, strict=True):
            _against_sparsity(line[0], results, dataset)
            _against_energy(line[1], results, dataset)
        handles: dict[str, Any] = {}
        for handle, label in (
            pair for axes in grid.flat for pair in zip(*axes.get_legend_handles_labels(), strict=True)
        ):
            handles.setdefault(label, handle)
        figure.legend(
            handles.values(),
            handles.keys(),
            title="solid: converted; broken: trained end to end; bands and bars: one standard deviation over seeds",
            loc="outside lower center",
            ncols=3,
        )
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def lines(part: Part) -> Iterator[list[Network]]:
    """Networks that differ in their sparsity alone, for each line of the figure."""
    for result in part.results:
        for pruning in part.prunings if result in OF_AN_ANN else (None,):
            yield [Network(result, sparsity, pruning) for sparsity in part.sparsities]


def _against_sparsity(axes: Axes, results: Results, dataset: str) -> None:
    """Worst case; the axis is logarithmic in the share of weights that are there."""
    part = results.table.datasets[dataset]
    for networks in lines(part):
        found = _known(results, dataset, networks, "worst")
        if not found:
            continue
        across = [_place(network) for network, _ in found]
        means = [100 * value.mean for _, value in found]
        spreads = [100 * (value.std or 0.0) for _, value in found]
        style = _style(networks[0])
        axes.plot(across, means, **style, label=networks[0].label)
        low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
        axes.fill_between(across, low, high, color=style["color"], alpha=0.12, lw=0)
    dense = results.estimate(dataset, DENSE, "worst")
    if dense is not None:
        level, spread = 100 * dense.mean, 100 * (dense.std or 0.0)
        axes.axhline(level, color="black", lw=0.8, label=DENSE.label)
        axes.axhspan(level - spread, level + spread, color="black", alpha=0.1, lw=0)
    places = [_place(network) for network in next(lines(part))]
    axes.set_xticks(places, [network.share for network in next(lines(part))])
    axes.set_xlim(min(places) - 0.1, max(places) + 0.1)
    axes.set_xlabel("absent weights (log scale of those that are there)")
    axes.set_ylabel("worst-case accuracy [%]")
    axes.set_title(dataset, fontsize=9)


def _against_energy(axes: Axes, results: Results, dataset: str) -> None:
    """Worst case against what is saved: the upper right is where to be."""
    dense = results.estimate(dataset, DENSE, "worst")
    if dense is not None:
        axes.plot(1, 100 * dense.mean, "*", color="black", ms=9)
        axes.annotate("dense", (1, 100 * dense.mean), xytext=(6, 3), textcoords="offset points", fontsize=8)
    for networks in lines(results.table.datasets[dataset]):
        ratios = dict(_known(results, dataset, networks, "energy"))
        found = [(ratios[n], value) for n, value in _known(results, dataset, networks, "worst") if n in ratios]
        if not found:
            continue
        style = _style(networks[0])
        axes.errorbar(
            [ratio.mean for ratio, _ in found],
            [100 * value.mean for _, value in found],
            xerr=[ratio.std or 0.0 for ratio, _ in found],
            yerr=[100 * (value.std or 0.0) for _, value in found],
            elinewidth=0.6,
            capsize=1.5,
            **style,
        )
    axes.set_xscale("log")
    limits = axes.get_xlim()
    axes.set_xticks(TICKS, [str(tick) for tick in TICKS])
    axes.set_xlim(limits)
    axes.minorticks_off()
    axes.set_xlabel("energy of the dense conversion / energy")
    axes.set_title(dataset, fontsize=9)


def _known(results: Results, dataset: str, networks: Sequence[Network], column: str) -> list[tuple[Network, Estimate]]:
    found = [(network, results.estimate(dataset, network, column)) for network in networks]
    return [(network, value) for network, value in found if value is not None]


def _place(network: Network) -> float:
    return -math.log10(1 - (network.sparsity or 0.0))


def _style(network: Network) -> dict[str, Any]:
    solid = network.result == "snn"
    look = LOOK[network.pruning] | {"ls": DASHES[network.result], "lw": 1.6 if solid else 1.1, "ms": 5}
    if network.result == "rewired":
        look |= {"color": COLOURS[3], "marker": "D", "ms": 4}
    return look if solid else look | {"markerfacecolor": "white"}
