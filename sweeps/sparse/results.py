"""What is on record of the networks of the table: by seed, and over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from snnrobust.job import results_of
from snnrobust.reporting.settings import Estimate
from snnrobust.stages import plan
from sweeps.render import estimate
from sweeps.runs import Overrides
from sweeps.sparse.declaration import DENSE, Network, Table, networks, words

Record = Mapping[str, Any]
Stages = Mapping[str, Record | None]
"""`results.json` by stage of a conversion, the last of which is its result; None where a run is missing."""

ANN: Mapping[str, str] = {"snn": "tuned", "dense_snn": "ann"}
"""The stage that holds the ANN that a network was converted from."""
CONVERTED: Mapping[str, str] = {"snn": "converted", "dense_snn": "dense_converted"}
"""The stage that holds the spiking network before its fine-tuning."""
METRICS: Mapping[str, str] = {
    "clean": "clean_accuracy",
    "noise": "noise_accuracy",
    "fgsm": "fgsm_accuracy",
    "pgd": "pgd_accuracy",
    "worst": "worst_accuracy",
    "weights": "stored_weights",
    "bytes": "stored_bytes",
    "spikes": "spikes",
    "operations": "synaptic_operations",
}
"""Of a spiking network, by column."""
EARLIER: Mapping[str, tuple[Mapping[str, str], str]] = {
    "ann_clean": (ANN, "clean_accuracy"),
    "ann_pgd": (ANN, "pgd_accuracy"),
    "converted_clean": (CONVERTED, "clean_accuracy"),
}
"""Columns about earlier stages: which one, and the metric."""


def stages(overrides: Overrides) -> Stages:
    """What is on record of `snnrobust convert` with these words."""
    return {stage.name: results_of(stage.job) for stage in plan(overrides)}


@dataclass(frozen=True)
class Results:
    """All that is on record.

    Args:
        table: what was to be run.
        found: by dataset, network and seed.
    """

    table: Table
    found: Mapping[tuple[str, Network, int], Stages]

    def record(self, dataset: str, network: Network, seed: int) -> Record | None:
        """Of the network itself."""
        return self.found[dataset, network, seed].get(network.result)

    def of(self, dataset: str, network: Network, column: str) -> dict[int, float]:
        """By seed; seeds that are missing are left out."""
        found = {seed: self._value(dataset, network, column, seed) for seed in self.table.seeds}
        return {seed: value for seed, value in found.items() if value is not None}

    def estimate(self, dataset: str, network: Network, column: str) -> Estimate | None:
        return estimate(self.of(dataset, network, column).values())

    def differences(self, dataset: str, one: Network, other: Network, column: str) -> list[float]:
        """One network minus the other, for every seed that both have."""
        if (dataset, one, self.table.seeds[0]) not in self.found:
            return []
        if (dataset, other, self.table.seeds[0]) not in self.found:
            return []
        its, theirs = self.of(dataset, one, column), self.of(dataset, other, column)
        return [value - theirs[seed] for seed, value in its.items() if seed in theirs]

    def has(self, dataset: str, network: Network) -> bool:
        """Every seed is on record."""
        wanted = [(dataset, network, seed) for seed in self.table.seeds]
        return all(key in self.found and self.record(*key) is not None for key in wanted)

    def records(self) -> Iterator[Record]:
        """Every evaluation once, those of earlier stages too."""
        seen = set()
        for its in self.found.values():
            for record in its.values():
                if record is not None:
                    name = (record["training_signature"], record["evaluation_signature"])
                    if name not in seen:
                        seen.add(name)
                        yield record

    def _value(self, dataset: str, network: Network, column: str, seed: int) -> float | None:
        if column in EARLIER:
            stage, metric = EARLIER[column]
            record = self.found[dataset, network, seed].get(stage.get(network.result, ""))
            return None if record is None else float(record["metrics"][metric])
        own = self.record(dataset, network, seed)
        if own is None:
            return None
        if column == "energy":
            return _ratio(self.record(dataset, DENSE, seed), own)
        if column in ("least_density", "largest_density"):
            densities = own["layers"]["density"].values()
            return float(min(densities) if column == "least_density" else max(densities))
        return float(own["metrics"][METRICS[column]])


def _ratio(dense: Record | None, own: Record) -> float | None:
    """Of synaptic operations; a network without any spike has none."""
    operations = own["metrics"]["synaptic_operations"]
    if dense is None or operations == 0:
        return None
    return float(dense["metrics"]["synaptic_operations"] / operations)


def load(table: Table) -> Results:
    """Plans every network of the table, and reads what is there.

    Raises:
        ConfigError: if any of them is not in order.
    """
    return Results(
        table,
        {
            (dataset, network, seed): stages(words(table, dataset, network, seed))
            for dataset, part in table.datasets.items()
            for network in networks(part)
            for seed in table.seeds
        },
    )
