"""Everything that is made from the records of a set of runs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from snnrobust.files import write_atomically
from snnrobust.reporting import figures
from snnrobust.reporting.page import Picture, picture, render
from snnrobust.reporting.records import RecordError, collect
from snnrobust.reporting.tables import Summary, runs_csv, summarise

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
}


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
    pictures: list[Picture] = []
    for name, (make, caption) in FIGURES.items():
        figure = make(summary)
        if figure is not None:
            svg = _drawn(figure, "svg")
            files |= {f"{name}.svg": svg, f"{name}.png": _drawn(figure, "png")}
            pictures.append(picture(svg, caption, wide=len(figure.axes) > 1))
    files["index.html"] = render(title, summary, collection, pictures)
    for name, content in files.items():
        write_atomically(out / name, content)
    for stale in {f"{name}.{kind}" for name in FIGURES for kind in ("svg", "png")} - files.keys():
        (out / stale).unlink(missing_ok=True)
    return Report(out / "index.html", tuple(out / name for name in files), summary)


def _drawn(figure: Figure, kind: str) -> bytes:
    """The figure as a file, the same bytes every time."""
    import matplotlib as mpl

    content = io.BytesIO()
    metadata = {"svg": {"Date": None}, "png": {"Software": None}}[kind]
    with mpl.rc_context(figures.STYLE):
        figure.savefig(content, format=kind, dpi=160, metadata=metadata)
    return content.getvalue()
