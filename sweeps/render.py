"""The table of a comparison, as Markdown beside its yaml file."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnrobust.files import write_atomically
from snnrobust.reporting.settings import Estimate
from sweeps.comparison import Comparison
from sweeps.figure import draw

Records = Mapping[tuple[str, str, int], Mapping[str, Any] | None]
"""`results.json` by dataset, contender and seed; None where a run is missing."""


@dataclass(frozen=True)
class Row:
    """One contender on one dataset.

    Args:
        estimates: over seeds, by column; None where nothing is on record.
        ahead: its worst case is above that of the baseline for every seed of the comparison.
    """

    estimates: Mapping[str, Estimate | None]
    ahead: bool

    def __getitem__(self, column: str) -> Estimate | None:
        return self.estimates[column]


HEADER = (
    ("contender", "---"), ("chosen", "---:"), ("clean [%]", "---:"), ("noise [%]", "---:"), ("PGD-10 [%]", "---:"),
    ("worst case [%]", "---:"), ("against the baseline", "---:"), ("gap [points]", "---:"), ("sparsity", "---:"),
    ("gradient l1", "---:"), ("training [s]", "---:"), ("n", "---:"),
)  # fmt: skip


def write(
    file: Path, comparison: Comparison, chosen: Mapping[tuple[str, str], float | None], records: Mapping[str, Records]
) -> None:
    """Writes `<file>.md` and `<file>.svg`; what is missing is left open in both."""
    rows = {
        (dataset, name): row(comparison, records, dataset, name)
        for dataset in comparison.datasets
        for name in comparison.of(dataset)
    }
    figure = file.with_suffix(".svg")
    write_atomically(figure, draw(comparison, rows))
    lines = [f"# {comparison.title}", "", *_head(file, comparison, records), ""]
    for dataset in comparison.datasets:
        lines += [f"## {dataset}", "", *_table(comparison, chosen, rows, dataset), ""]
        lines += [*_correlations([rows[dataset, name] for name in comparison.of(dataset)]), ""]
    lines += [f"![Trade-offs]({figure.name})", "", *_flags(comparison, records["full"])]
    write_atomically(file.with_suffix(".md"), "\n".join(lines).rstrip() + "\n")
    print(f"{file.with_suffix('.md')}, {figure}")


def row(comparison: Comparison, records: Mapping[str, Records], dataset: str, name: str) -> Row:
    """What is on record of it; `difference` is paired, seed by seed against the baseline."""

    def of(kind: str, metric: str, contender: str = name) -> dict[int, float]:
        found = {seed: records[kind].get((dataset, contender, seed)) for seed in comparison.seeds}
        return {seed: record["metrics"][metric] for seed, record in found.items() if record is not None}

    worst, base = of("full", "worst_accuracy"), of("full", "worst_accuracy", comparison.baseline)
    noise = of("full", "noise_accuracy")
    differences = [value - base[seed] for seed, value in worst.items() if seed in base]
    estimates = {
        "clean": estimate(of("quick", "clean_accuracy").values()),
        "noise": estimate(of("quick", "noise_accuracy").values()),
        "pgd": estimate(of("quick", "pgd_accuracy").values()),
        "worst": estimate(worst.values()),
        "difference": estimate(differences),
        "gap": estimate([noise[seed] - value for seed, value in worst.items()]),
        "sparsity": estimate(of("quick", "gradient_sparsity").values()),
        "l1": estimate(of("quick", "gradient_l1").values()),
        "seconds": estimate(_seconds(comparison, records, dataset, name)),
    }
    return Row(estimates, len(differences) == len(comparison.seeds) and min(differences) > 0)


def _seconds(comparison: Comparison, records: Mapping[str, Records], dataset: str, name: str) -> Iterator[float]:
    """Of the training, which is on record with the evaluation that came first."""
    for seed in comparison.seeds:
        found = [record for kind in records.values() if (record := kind.get((dataset, name, seed))) is not None]
        yield from [record["durations"]["train"] for record in found if "train" in record["durations"]][:1]


def estimate(values: Iterable[float]) -> Estimate | None:
    """Mean and sample standard deviation."""
    found = list(values)
    if not found:
        return None
    return Estimate(statistics.mean(found), statistics.stdev(found) if len(found) > 1 else None, len(found))


def _head(file: Path, comparison: Comparison, records: Mapping[str, Records]) -> Iterator[str]:
    found = [record for kind in records.values() for record in kind.values() if record is not None]
    wanted = sum(len(kind) for kind in records.values())
    hours = sum(seconds for record in found for seconds in record["durations"].values()) / 3600
    commits = sorted({(record.get("git") or {}).get("commit", "unknown")[:10] for record in found})
    machines = sorted({f"{record['hardware']['cpu']}, torch {record['versions']['torch']}" for record in found})
    yield (
        f"`python -m sweeps.compare {file.as_posix()}`: {len(found)} of {wanted} evaluations, {hours:.1f} hours of one "
        f"core ({'; '.join(machines) or 'nothing has run yet'}), commits {', '.join(commits) or 'none'}."
    )
    yield ""
    yield (
        f"Seeds {', '.join(map(str, comparison.seeds))}; mean ± sample standard deviation over the n trainings that "
        f"are there. Chosen: the value of the setting that a contender leaves open, by PGD accuracy on validation data "
        f"of seed {comparison.seeds[0]} among those that cost at most {100 * comparison.tolerance:g} points of clean "
        "accuracy there (the smallest, where each costs more); other settings are those of their yaml files, and "
        "nobody looked for better ones. Worst case: per sample, over all attacks and estimators of the suite. Against "
        "the baseline: difference of worst cases, seed by seed; **bold** where it is positive for every seed, which "
        "with three seeds one in eight rows that make no difference are by chance. Gap: accuracy under random noise of "
        "the same size minus worst case. Sparsity: share of entries of the input gradient below 1e-3 of the largest. "
        "Seconds of a training beside other processes."
    )


def _table(
    comparison: Comparison, chosen: Mapping[tuple[str, str], float | None], rows: Mapping[tuple[str, str], Row],
    dataset: str,
) -> Iterator[str]:  # fmt: skip
    yield "| " + " | ".join(title for title, _ in HEADER) + " |"
    yield "|" + "|".join(ruler for _, ruler in HEADER) + "|"
    for name, contender in comparison.of(dataset).items():
        its, value = rows[dataset, name], chosen[dataset, name]
        difference = "" if name == comparison.baseline else percent(its["difference"])
        known = value is not None and its["clean"] is not None
        n = max((found.n for found in (its["worst"] or its["clean"],) if found), default=0)
        accuracies = [percent(its[column]) for column in ("clean", "noise", "pgd", "worst")]
        ahead = f"**{difference}**" if its.ahead else difference
        others = [plain(its["sparsity"], 4), plain(its["l1"], 2), plain(its["seconds"], 0), str(n)]
        label = f"{comparison.number(name)}. {contender.label}"
        cells = [label, f"{value:g}" if known else "", *accuracies, ahead, percent(its["gap"]), *others]
        yield "| " + " | ".join(cells) + " |"


def _correlations(rows: Sequence[Row]) -> Iterator[str]:
    """Spearman's, of means over seeds: contenders are no sample of anything, so that nothing is tested."""
    from scipy.stats import spearmanr

    found = [r for r in rows if r["gap"] and r["sparsity"] and r["l1"]]
    if len(found) < 3:
        return
    of = {name: [_mean(r, name) for r in found] for name in ("gap", "sparsity", "l1")}
    sparsity, length = (float(spearmanr(of[name], of["gap"]).statistic) for name in ("sparsity", "l1"))
    yield (
        f"Rank correlation with the gap, over the {len(found)} contenders: of the sparsity {sparsity:.2f}, of the l1 "
        f"norm {length:.2f}."
    )


def _mean(row: Row, column: str) -> float:
    value = row[column]
    assert value is not None
    return value.mean


def percent(value: Estimate | None) -> str:
    """In percent, or points."""
    if value is None:
        return ""
    return f"{100 * value.mean:.1f}" + ("" if value.std is None else f" ± {100 * value.std:.1f}")


def plain(value: Estimate | None, digits: int) -> str:
    if value is None:
        return ""
    return f"{value.mean:.{digits}f}" + ("" if value.std is None else f" ± {value.std:.{digits}f}")


def _flags(comparison: Comparison, records: Records) -> Sequence[str]:
    """Which masking checks were raised, by contender: how many of its runs."""
    lines = []
    for dataset in comparison.datasets:
        for name, contender in comparison.of(dataset).items():
            found = [r for seed in comparison.seeds if (r := records.get((dataset, name, seed))) is not None]
            names = [flag["name"] for record in found for flag in record["flags"]]
            if names:
                counts = ", ".join(f"{flag} ({names.count(flag)} of {len(found)})" for flag in dict.fromkeys(names))
                lines.append(f"- {dataset}, {contender.label}: {counts}")
    return ["Checks that were raised (docs/checks.md):", "", *lines] if lines else []
