"""Everything that is made from the records of a set of runs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from snnrobust.files import write_atomically
from snnrobust.reporting import figures
from snnrobust.reporting.estimators import estimator_table
from snnrobust.reporting.examples import MOST_TRAININGS, select
from snnrobust.reporting.heatmaps import heatmap
from snnrobust.reporting.layers import layers
from snnrobust.reporting.page import Gradients, Picture, Searched, picture, render
from snnrobust.reporting.pareto import CAPTION, front_table, judged, note, pareto
from snnrobust.reporting.records import Collection, RecordError, collect
from snnrobust.reporting.tables import Summary, runs_csv, summarise
from snnrobust.reporting.trainings import trainings_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = {
    "tradeoff": (
        figures.tradeoff,
        "Clean accuracy against accuracy under PGD. Bars are one standard deviation over seeds, dots single runs.",
    ),
    "sparsity": (
        figures.sparsity,
        "Accuracy under PGD against the sparsity of the input gradient, with the same bars and dots.",
    ),
    "budget": (
        figures.budget,
        "Accuracy against the size of the perturbation: adversarial (PGD, solid) and random (noise, dashed). "
        "Bands are one standard deviation over seeds; size 0 is the clean accuracy.",
    ),
    "layers": (
        layers,
        "Exact zeros in the gradient on its way back: what arrives at the spikes of each layer (hollow) and what its "
        "neurons pass on to their current (filled). A rise from filled to hollow is the work of what lies between two "
        "layers, such as max pooling. Bands are one standard deviation over seeds.",
    ),
}
FRONT = "pareto_"
HEATMAPS = [f"gradients_{number}" for number in range(1, MOST_TRAININGS + 1)]


@dataclass(frozen=True)
class Report:
    """What was written, and the summary behind it."""

    page: Path
    files: tuple[Path, ...]
    summary: Summary


def write_report(paths: Sequence[Path], out: Path, title: str) -> Report:
    """Writes table.{md,csv,tex}, runs.csv, the figures as SVG and PNG, and index.html into `out`.

    Raises:
        RecordError: if a folder does not exist, or holds no usable record.
        OSError: if `out` cannot be written.
    """
    collection = collect(paths)
    if not collection.records:
        raise RecordError(
            f"no results in {', '.join(map(str, paths))} "
            f"({len(collection.failures)} failed runs, {len(collection.problems)} unusable records)"
        )
    summary = summarise(collection)
    out.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes | str] = {
        "table.md": summary.to_markdown(),
        "table.csv": summary.to_csv(),
        "table.tex": summary.to_latex(),
        "runs.csv": runs_csv(collection.records),
    }
    pictures, drawn = _figures(summary)
    gradients, maps = _gradients(summary)
    searches, fronts = _searches(collection)
    files |= drawn | maps | fronts
    files["index.html"] = render(title, summary, collection, pictures, gradients, searches)
    for name, content in files.items():
        write_atomically(out / name, content)
    old = {f"{name}.{kind}" for name in (*FIGURES, *HEATMAPS) for kind in ("svg", "png")}
    old |= {path.name for path in out.glob(f"{FRONT}*.*")}
    for stale in old - files.keys():
        (out / stale).unlink(missing_ok=True)
    return Report(out / "index.html", tuple(out / name for name in files), summary)


def _figures(summary: Summary) -> tuple[list[Picture], dict[str, bytes]]:
    """Those that the records have numbers for, for the page and as files."""
    pictures: list[Picture] = []
    files: dict[str, bytes] = {}
    for name, (make, caption) in FIGURES.items():
        figure = make(summary)
        if figure is not None:
            files |= _files(name, figure)
            pictures.append(picture(files[f"{name}.svg"], caption, wide=len(figure.axes) > 1))
    return pictures, files


def _gradients(summary: Summary) -> tuple[Gradients, dict[str, bytes]]:
    """The section on gradients, and its pictures as files."""
    trainings = trainings_of(summary.settings)
    selection = select(trainings)
    pictures: list[Picture] = []
    files: dict[str, bytes] = {}
    for name, examples in zip(HEATMAPS, selection.shown, strict=False):
        files |= _files(name, heatmap(examples))
        pictures.append(picture(files[f"{name}.svg"], f"{examples.training} ({examples.run})", wide=False))
    return Gradients(pictures, estimator_table(trainings), selection.notes), files


def _searches(collection: Collection) -> tuple[list[Searched], dict[str, bytes]]:
    """A section for each search, and its figure as files."""
    sections: list[Searched] = []
    files: dict[str, bytes] = {}
    for number, search in enumerate(collection.searches, 1):
        trials = judged(search, collection.records)
        figure = pareto(search, trials)
        shown = None
        if figure is not None:
            files |= _files(f"{FRONT}{number}", figure)
            shown = picture(files[f"{FRONT}{number}.svg"], CAPTION, wide=True)
        sections.append(Searched(search.name, note(search), shown, front_table(search, trials)))
    return sections, files


def _files(name: str, figure: Figure) -> dict[str, bytes]:
    return {f"{name}.{kind}": _drawn(figure, kind) for kind in ("svg", "png")}


def _drawn(figure: Figure, kind: str) -> bytes:
    """The figure as a file, the same bytes every time."""
    import matplotlib as mpl

    content = io.BytesIO()
    metadata = {"svg": {"Date": None}, "png": {"Software": None}}[kind]
    with mpl.rc_context(figures.STYLE):
        figure.savefig(content, format=kind, dpi=160, metadata=metadata)
    return content.getvalue()
