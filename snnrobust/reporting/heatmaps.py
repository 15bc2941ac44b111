"""Pictures of input gradients: a column for each sample; rows for the input, every estimator, and the attack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from snnrobust.reporting.examples import Array, Examples
from snnrobust.reporting.figures import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

COLOURS = "cividis"
"""From dark over grey to light, so that signs can be told apart without colour, too."""
SMALL = 1e-3
"""As the measure defines it."""
WIDTH, HEIGHT, BESIDE, LETTER, ABOVE = 0.92, 1.08, 0.75, 0.068, 0.25
"""Inches: of a picture and the text below it; of the colour bar; of a letter of a row's name; of the classes."""


def heatmap(examples: Examples) -> Figure:
    """Inputs, signed gradients and signed perturbations; each picture is scaled to its own largest entry."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = [(f"gradient\n({name})", array) for name, array in examples.gradients.items()]
    if examples.perturbation is not None:
        rows.append((f"perturbation\n({examples.budget})", examples.perturbation))
    letters = max(len(line) for name, _ in rows for line in name.splitlines())
    size = WIDTH * len(examples.labels) + BESIDE + LETTER * letters, HEIGHT * (1 + len(rows)) + ABOVE
    with mpl.rc_context({**STYLE, "axes.grid": False, "axes.spines.left": False, "axes.spines.bottom": False}):
        figure = Figure(layout="constrained", figsize=size)
        grid = figure.subplots(1 + len(rows), len(examples.labels), squeeze=False)
        _draw_inputs(grid[0], examples)
        drawn = [_draw_signed(axes, name, array) for axes, (name, array) in zip(grid[1:], rows, strict=True)]
        for axes, array in zip(grid[1:], examples.gradients.values(), strict=False):
            _tell(axes, [f"sparsity {share:.2f}" for share in _sparsity(array)])
        if examples.attacked is not None:
            pairs = zip(examples.labels, examples.attacked, strict=True)
            _tell(grid[-1], [f"still {after}" if before == after else f"taken for {after}" for before, after in pairs])
        bar = figure.colorbar(drawn[0], ax=[*grid[1]], ticks=[-1, 0, 1], aspect=9)
        bar.ax.set_yticklabels(["−max", "0", "+max"], fontsize=8)
        bar.ax.tick_params(length=0)
        bar.outline.set_visible(False)
    return figure


def _draw_inputs(grid: Sequence[Axes], examples: Examples) -> None:
    for axes, x, label, predicted in zip(grid, examples.inputs, examples.labels, examples.predicted, strict=True):
        axes.imshow(_input(x), cmap="gray", interpolation="none")
        axes.set_title(f"{label}" if label == predicted else f"{label} (seen as {predicted})", fontsize=9)
    _frame(grid, "input")


def _draw_signed(grid: Sequence[Axes], name: str, arrays: Array) -> AxesImage:
    for axes, array in zip(grid, arrays, strict=True):
        flat = _flat(array)
        largest = np.abs(flat).max()
        scaled = flat / largest if 0 < largest < np.inf else np.zeros_like(flat)
        image = axes.imshow(scaled, cmap=COLOURS, vmin=-1, vmax=1, interpolation="none")
    _frame(grid, name)
    return image


def _frame(grid: Sequence[Axes], name: str) -> None:
    for axes in grid:
        axes.set_xticks([])
        axes.set_yticks([])
    grid[0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=6, fontsize=9)


def _tell(grid: Sequence[Axes], texts: Sequence[str]) -> None:
    for axes, text in zip(grid, texts, strict=True):
        axes.set_xlabel(text, fontsize=8, labelpad=3)


def _input(x: Array) -> Array:
    """A colour picture as it is, `[H, W, 3]`; anything else as brightness, `[H, W]`."""
    return np.moveaxis(x, 0, -1).clip(0, 1) if x.ndim == 3 and len(x) == 3 else _flat(x)


def _flat(x: Array) -> Array:
    """Channels, and the time steps and polarities of events, added up: `[H, W]`."""
    with np.errstate(invalid="ignore"):  # a gradient may hold infinities
        summed: Array = x.reshape(-1, *x.shape[-2:]).astype(np.float64).sum(0)
    return summed


def _sparsity(gradients: Array) -> Any:
    """`[S]`: `gradient_sparsity` of each sample, of all channels and steps."""
    size = np.abs(gradients.reshape(len(gradients), -1))
    return (size <= SMALL * size.max(1, keepdims=True)).mean(1)
