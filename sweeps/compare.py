"""Runs a comparison and writes its table and its figure beside it.

    python -m sweeps.compare sweeps/defences.yaml              everything that is missing: hours
    python -m sweeps.compare sweeps/defences.yaml --quick      the thin column alone: minutes
    python -m sweeps.compare sweeps/defences.yaml --render     what is there

What a contender leaves open is chosen on validation data, of the first seed: the value with the highest accuracy under
attack among those that cost at most `tolerance` of clean accuracy, or the smallest, where each costs more. What is on
record is never run again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snnrobust.schema import ConfigError
from sweeps.comparison import Comparison, read
from sweeps.render import write
from sweeps.runs import Overrides, results, run_all


def settings(comparison: Comparison, dataset: str, name: str, value: float | None, seed: int) -> Overrides:
    """The training of a contender."""
    contender = comparison.contenders[name]
    shared = (f"runs={comparison.runs}", *comparison.common, *comparison.datasets[dataset])
    tuned = () if value is None or contender.tune is None else (f"{contender.tune.key}={value:g}",)
    return (*shared, *contender.overrides, *tuned, f"seed={seed}")


def trials(comparison: Comparison, dataset: str) -> dict[tuple[str, float | None], Overrides]:
    """The runs that values are chosen by, under the thin suite: those of every value and of what it is held against."""
    tunings = {name: c.tune for name, c in comparison.of(dataset).items() if c.tune is not None}
    references = dict.fromkeys(tune.against or comparison.baseline for tune in tunings.values())
    wanted: list[tuple[str, float | None]] = [(name, None) for name in references]
    wanted += [(name, value) for name, tune in tunings.items() for value in tune.values[dataset]]
    return {
        (name, value): (*settings(comparison, dataset, name, value, comparison.seeds[0]), *comparison.quick)
        for name, value in wanted
    }


def choose(comparison: Comparison, dataset: str) -> dict[str, float | None]:
    """The value of every contender; the smallest where each costs too much, or where nothing is on record yet."""
    found = {key: results(overrides) for key, overrides in trials(comparison, dataset).items()}
    metrics = {key: record["metrics"] for key, record in found.items() if record is not None}
    chosen: dict[str, float | None] = {}
    for name, contender in comparison.of(dataset).items():
        if contender.tune is None:
            chosen[name] = None
            continue
        values = contender.tune.values[dataset]
        reference = metrics.get((contender.tune.against or comparison.baseline, None))
        least = (reference["validation_accuracy"] if reference else 0.0) - comparison.tolerance
        allowed = [
            (metrics[name, value]["validation_robust_accuracy"], -value)
            for value in values
            if (name, value) in metrics and metrics[name, value]["validation_accuracy"] >= least
        ]
        chosen[name] = -max(allowed)[1] if allowed else min(values)
    return chosen


def column(
    comparison: Comparison, dataset: str, chosen: Mapping[str, float | None], suite: Overrides
) -> dict[tuple[str, int], Overrides]:
    """The runs of a column, by contender and seed; seed by seed, so that a part is a table too."""
    return {
        (name, seed): (*settings(comparison, dataset, name, chosen[name], seed), *suite)
        for seed in comparison.seeds
        for name in comparison.of(dataset)
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs a comparison and writes its table and figure.")
    parser.add_argument("file", type=Path, help="sweeps/NAME.yaml")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (2)")
    parser.add_argument("--quick", action="store_true", help="the thin column alone")
    parser.add_argument("--render", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    try:
        return compare(arguments.file, arguments.jobs, arguments.quick, arguments.render)
    except (ValueError, ConfigError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2


def compare(file: Path, jobs: int, quick: bool, render: bool) -> int:
    comparison = read(file)
    failures: list[str] = []
    chosen: dict[tuple[str, str], float | None] = {}
    records: dict[str, dict[tuple[str, str, int], Mapping[str, Any] | None]] = {"quick": {}, "full": {}}

    def run(dataset: str, wanted: Mapping[tuple[str, Any], Overrides]) -> None:
        if not render:
            named = {" ".join(map(str, (dataset, *key))): overrides for key, overrides in wanted.items()}
            failures.extend(run_all(named, jobs))

    for dataset in comparison.datasets:
        run(dataset, trials(comparison, dataset))
        values = choose(comparison, dataset)
        chosen |= {(dataset, name): value for name, value in values.items()}
        for kind, suite in {"quick": comparison.quick, "full": comparison.full}.items():
            wanted = column(comparison, dataset, values, suite)
            if kind == "quick" or not quick:
                run(dataset, wanted)
            records[kind] |= {(dataset, *key): results(overrides) for key, overrides in wanted.items()}
    write(file, comparison, chosen, records)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
