"""Makes the networks of the table and writes its page and its figure beside the declaration.

    python -m sweeps.sparse sweeps/sparse_connectivity.yaml                               what is missing: hours
    python -m sweeps.sparse sweeps/sparse_connectivity.yaml --datasets digits --seeds 0   a part of it
    python -m sweeps.sparse sweeps/sparse_connectivity.yaml --render                      what is there

Whatever part is run, the page shows all that is on record. What is on record is never run again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from snnrobust.convert import Conversion, convert_all
from snnrobust.files import write_atomically
from snnrobust.launchers.parallel import Parallel
from snnrobust.schema import ConfigError
from snnrobust.stages import plan
from sweeps.declarations import read_as
from sweeps.sparse.declaration import Network, Table, networks, words
from sweeps.sparse.figure import draw
from sweeps.sparse.page import page
from sweeps.sparse.results import Results, load

Value = TypeVar("Value", str, int)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="sparse", description="Makes the networks of the table, and writes it.")
    parser.add_argument("file", type=Path, help="sweeps/NAME.yaml")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (2)")
    parser.add_argument("--datasets", nargs="+", help="those that are run (all)")
    parser.add_argument("--seeds", nargs="+", type=int, help="those that are run (all)")
    parser.add_argument("--render", action="store_true", help="run nothing")
    given = parser.parse_args(arguments)
    try:
        table = read_as(Table, given.file)
        datasets = _some("--datasets", given.datasets, [*table.datasets])
        seeds = _some("--seeds", given.seeds, table.seeds)
        failures = [] if given.render else make(table, datasets, seeds, given.jobs)
        write(given.file, load(table))
    except (ValueError, ConfigError) as error:
        print(f"sparse: {error}", file=sys.stderr)
        return 2
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def make(table: Table, datasets: Sequence[str], seeds: Sequence[int], jobs: int) -> list[str]:
    """Runs what is missing, and returns one line per failure. What networks share is made once."""
    results = load(table)
    missing = [
        Conversion(
            f"{dataset}, {network.label}, {network.share}, seed {seed}", plan(words(table, dataset, network, seed))
        )
        for dataset in datasets
        for seed in seeds
        for network in networks(table.datasets[dataset])
        if results.record(dataset, network, seed) is None
    ]
    print(f"{len(missing)} networks to make", flush=True)
    return convert_all(missing, Parallel(jobs))


def _name(dataset: str, network: Network, seed: int) -> str:
    return f"{dataset}, {network.label}, {network.share}, seed {seed}"


def write(file: Path, results: Results) -> None:
    """Writes `<file>.md` and `<file>.svg`; what is missing is shown as missing."""
    figure = file.with_suffix(".svg")
    write_atomically(figure, draw(results))
    write_atomically(file.with_suffix(".md"), page(file, results, figure.name))
    print(f"{file.with_suffix('.md')}, {figure}")


def _some(option: str, given: Sequence[Value] | None, allowed: Sequence[Value]) -> Sequence[Value]:
    if given is None:
        return allowed
    if unknown := [value for value in given if value not in allowed]:
        raise ValueError(f"{option}: got {unknown[0]}; allowed: {', '.join(map(str, allowed))}")
    return given


if __name__ == "__main__":
    sys.exit(main())
