"""The table: mean ± standard deviation over seeds, for terminal, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions
from rich.table import Table
from tabulate import tabulate

from snnrobust.reporting.records import Collection, Raised, Record
from snnrobust.reporting.settings import Estimate, Setting, settings_of, short, show

HEADLINE = ("clean_accuracy", "noise_accuracy", "fgsm_accuracy", "pgd_accuracy", "worst_accuracy")
MEASURES = ("gradient_sparsity", "gradient_zero_fraction", "gradient_l1", "firing_rate")
COSTS = ("sparsity", "energy_ratio", "spikes")
"""Where a run has absent connections, or another run to compare with."""
HIDDEN = ("validation_accuracy",)
TITLES = {"pgd_accuracy": "PGD", "fgsm_accuracy": "FGSM", "sparsity": "connections absent"}
TERMINAL = {
    "clean_accuracy": "clean %",
    "pgd_accuracy": "PGD %",
    "worst_accuracy": "worst %",
    "noise_accuracy": "noise %",
    "sparsity": "absent",
    "energy_ratio": "energy ratio",
    "gradient_sparsity": "sparsity",
}
GAUSSIAN = "gaussian_noise_accuracy"
MISSING, DAGGER = "–", "†"


@dataclass(frozen=True)
class Summary:
    """The settings of a report, the metrics shown of them, and what a reader must know beside them."""

    settings: tuple[Setting, ...]
    metrics: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def common(self) -> str:
        """What all runs share, in words."""
        choices = [setting.records[0].choices for setting in self.settings]
        names = ("dataset", "model", "encoder", "neuron", "regularizer", "defence", "training", "threat")
        shared = [f"{n} {choices[0][n]}" for n in names if n in choices[0] and len({c.get(n) for c in choices}) == 1]
        return ", ".join(shared)

    @cached_property
    def keys(self) -> list[str]:
        return list(dict.fromkeys(key for setting in self.settings for key, _ in setting.labels))

    def labels(self, setting: Setting) -> list[str]:
        """The values of a setting's labels as text, one for each of `keys`."""
        return [MISSING if (value := setting.label(key)) is None else show(value) for key in self.keys]

    def header(self) -> list[str]:
        return [*self.keys, "n", *map(title, self.metrics)]

    def rows(self) -> list[list[str]]:
        return self._rows

    @cached_property
    def _rows(self) -> list[list[str]]:
        """Every form of the table shows them."""
        return [self._row(setting) for setting in self.settings]

    def _row(self, setting: Setting) -> list[str]:
        shown = [(metric, cell(metric, setting.estimate(metric), len(setting.records))) for metric in self.metrics]
        doubtful = [setting.flagged and text != MISSING and under_attack(metric) for metric, text in shown]
        flagged = [text + DAGGER * doubt for (_, text), doubt in zip(shown, doubtful, strict=True)]
        return [*self.labels(setting), str(len(setting.records)), *flagged]

    def to_terminal(self, width: int) -> Table:
        """As many measures as fit into `width` columns, the most telling ones first; never fewer labels."""
        order = [m for m in TERMINAL if m in self.metrics]
        order[4:4] = [m for m in self.metrics if m.endswith("_accuracy") and m not in (*HEADLINE, GAUSSIAN)]
        while len(order) > 1 and self._terminal(order).__rich_measure__(*_unbounded()).maximum > width:
            order.pop()
        return self._terminal(order)

    def _terminal(self, metrics: Sequence[str]) -> Table:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for key in self.keys:
            table.add_column(short(key), no_wrap=True)
        for name in ("n", *(TERMINAL.get(metric, title(metric).replace(" [%]", " %")) for metric in metrics)):
            table.add_column(name, justify="right", no_wrap=True)
        labels = len(self.keys)
        columns = [labels + 1 + self.metrics.index(metric) for metric in metrics]
        for row in self.rows():
            table.add_row(*row[: labels + 1], *(row[i].replace(" ", "") for i in columns))
        return table

    def to_markdown(self) -> str:
        aligned = ["left"] * len(self.keys) + ["right"] * (1 + len(self.metrics))
        table = tabulate(self.rows(), self.header(), tablefmt="pipe", colalign=aligned, disable_numparse=True)
        return "\n".join([table, "", *(f"- {note}" for note in self.notes)]).rstrip() + "\n"

    def to_latex(self) -> str:
        """A booktabs tabular; special characters are escaped by tabulate, the signs of this table here."""
        text = tabulate(self.rows(), self.header(), tablefmt="latex_booktabs", disable_numparse=True)
        for sign, command in (("±", r"$\pm$"), (DAGGER, r"$^\dagger$"), (MISSING, "--")):
            text = text.replace(sign, command)
        notes = "".join(f"% {note}\n" for note in self.notes)
        return notes + text + "\n"

    def to_csv(self) -> str:
        """Full precision; `<metric>_mean`, `<metric>_std` and `<metric>_n`, accuracies as fractions."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*self.keys, "n", *(f"{m}_{part}" for m in self.metrics for part in ("mean", "std", "n"))])
        for setting in self.settings:
            values: list[object] = [setting.label(key) for key in self.keys]
            values.append(len(setting.records))
            for metric in self.metrics:
                found = setting.estimate(metric)
                values += (
                    ["", "", 0] if found is None else [found.mean, "" if found.std is None else found.std, found.n]
                )
            writer.writerow(values)
        return out.getvalue()


def summarise(collection: Collection) -> Summary:
    """Groups, labels and annotates all records."""
    settings = settings_of(collection.records)
    present = list(dict.fromkeys(name for record in collection.records for name in record.metrics))
    repeated = {record.config["suite"]["headline"].get("noise_accuracy") for record in collection.records}
    others = [
        name
        for name in present
        if name.endswith("_accuracy")
        and name not in (*HEADLINE, *HIDDEN)
        and name.removesuffix("_accuracy") not in repeated
    ]
    spent = COSTS if any(map(_tells_of_costs, collection.records)) else ()
    metrics = [*(m for m in HEADLINE if m in present), *others, *(m for m in (*MEASURES, *spent) if m in present)]
    return Summary(settings, tuple(metrics), tuple(_notes(settings, collection)))


def _tells_of_costs(record: Record) -> bool:
    return record.metrics.get("sparsity", 0.0) > 0 or record.metrics.get("energy_ratio", 1.0) != 1


def runs_csv(records: Sequence[Record]) -> str:
    """One line per run with all of its metrics, at full precision."""
    names = list(dict.fromkeys(name for record in records for name in record.metrics))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["training_signature", "evaluation_signature", "seed", "overrides", "flags", *names])
    for record in records:
        overrides = " ".join(map(str, record.content.get("overrides", ())))
        flags = " ".join(flag.name for flag in record.flags)
        values = (record.metrics.get(name, "") for name in names)
        writer.writerow([*record.identity, record.seed, overrides, flags, *values])
    return out.getvalue()


def title(metric: str) -> str:
    """Column headings: accuracies in percent."""
    if metric.endswith("_accuracy"):
        name = TITLES.get(metric, metric.removesuffix("_accuracy").replace("_", " "))
        return f"{name} [%]"
    return TITLES.get(metric, metric.replace("_", " "))


def under_attack(metric: str) -> bool:
    """True for the accuracies that a flag of the evaluation speaks against."""
    return metric.endswith("_accuracy") and not metric.startswith(("clean_", "noise_", "gaussian_noise_"))


def cell(metric: str, estimate: Estimate | None, runs: int) -> str:
    """One estimate as text; it says so if it rests on fewer than all runs of its row."""
    if estimate is None:
        return MISSING
    fewer = f" (n = {estimate.n})" if estimate.n < runs else ""
    percent = metric.endswith("_accuracy")
    values = [estimate.mean] if estimate.std is None else [estimate.mean, estimate.std]
    digits = (".3g", ".2g")
    return (
        " ± ".join(f"{100 * v:.1f}" if percent else format(v, d) for v, d in zip(values, digits, strict=False)) + fewer
    )


def _unbounded() -> tuple[Console, ConsoleOptions]:
    """A console on which any table fits, to ask how wide it would be."""
    console = Console(width=10_000)
    return console, console.options


def _notes(settings: Sequence[Setting], collection: Collection) -> Iterator[str]:
    records = collection.records
    counts = sorted({len(setting.records) for setting in settings})
    spread = "mean ± sample standard deviation over seeds" if counts[-1] > 1 else "single runs: no spread is known"
    samples = sorted({record.content.get("samples", {}).get("test", 0) for record in records})
    yield f"{spread}; test samples: {', '.join(map(str, samples))}"
    for metric, word in (("pgd_accuracy", "PGD"), ("noise_accuracy", "noise")):
        names = sorted({str(record.config["suite"]["headline"].get(metric, "none")) for record in records})
        yield f"{word}: the attack {' or '.join(names)}" + (", not the same in all runs" if len(names) > 1 else "")
    yield from _flags(records)
    if len({setting.seeds for setting in settings}) > 1:
        yield "the rows do not have the same seeds"
    if any(len(set(setting.seeds)) < len(setting.seeds) for setting in settings):
        yield "a seed occurs twice in a row: the same setting was evaluated with different evaluation seeds"
    made = [part for record in records for part in (record.content, record.content.get("training", {}))]
    commits = {str((part.get("git") or {}).get("commit", "unknown"))[:10] for part in made if "git" in part}
    if len(commits) > 1:
        yield f"the runs come from {len(commits)} commits: {', '.join(sorted(commits))}"
    if any((record.content.get("git") or {}).get("dirty") for record in records):
        yield "some runs were made with uncommitted changes"
    cards = {str(record.content.get("hardware", {}).get("cpu")) for record in records}
    if len(cards) > 1:
        yield f"the runs come from different machines: {', '.join(sorted(cards))}"
    if collection.failures:
        failed = len(collection.failures)
        yield f"{failed} runs failed and are not in the table" if failed > 1 else "1 run failed and is not in the table"
    if collection.problems:
        yield f"{len(collection.problems)} records could not be used"


def _flags(records: Sequence[Record]) -> Iterator[str]:
    """A note for each flag that some record raised, in the words of the one with the largest number."""
    raised: dict[str, list[Raised]] = {}
    for record in records:
        for flag in record.flags:
            raised.setdefault(flag.name, []).append(flag)
    for name, flags in sorted(raised.items()):
        worst = max(flags, key=lambda flag: flag.value)
        numbers = f"{len(flags)} of {len(records)} runs, at most {worst.value:.3g}"
        yield f"{DAGGER} {name} ({numbers}): {worst.sentence}" + f"; see {worst.anchor}" * bool(worst.anchor)
