"""What the table of sparse connectivity consists of, and the command line of each of its networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from sweeps.declarations import Strict
from sweeps.runs import Overrides

Pruning = Literal["magnitude", "hydra", "harp"]
Result = Literal["snn", "static_ann", "static_random", "rewired"]
PRUNINGS: Mapping[str, str] = {"magnitude": "LWM", "hydra": "HYDRA", "harp": "HARP"}
"""As papers call them: least weight magnitude; a uniform share of absent weights; a learned share for each layer."""
OF_AN_ANN = ("snn", "static_ann")
"""Results whose connections are those of a pruned ANN."""


class Part(Strict):
    """The networks of a dataset.

    Args:
        words: of the command line, of every network.
        sparsities: shares of absent weights.
        prunings: of the ANN.
        results: stages of the conversion that are compared, besides the dense conversion.
    """

    words: tuple[str, ...]
    sparsities: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(min_length=1)
    prunings: tuple[Pruning, ...] = Field(min_length=1)
    results: tuple[Result, ...] = Field(min_length=1)


class Table(Strict):
    """Networks with absent connections, on several datasets.

    Args:
        title: of the page.
        runs: folder of the runs.
        seeds: of the trainings.
        common: words of every network.
        datasets: parts by name.
    """

    title: str
    runs: str
    seeds: tuple[int, ...] = Field(min_length=1)
    common: tuple[str, ...]
    datasets: Mapping[str, Part] = Field(min_length=1)


@dataclass(frozen=True)
class Network:
    """One row.

    Args:
        result: the stage of the conversion.
        sparsity: share of absent weights; None for the dense conversion.
        pruning: of the ANN; None where none is pruned.
    """

    result: str
    sparsity: float | None = None
    pruning: str | None = None

    @property
    def label(self) -> str:
        name = PRUNINGS.get(self.pruning or "", "")
        return {
            "dense_snn": "converted, dense",
            "snn": f"converted, {name}",
            "static_ann": f"end to end, connections of {name}",
            "static_random": "end to end, random connections",
            "rewired": "end to end, rewired",
        }[self.result]

    @property
    def share(self) -> str:
        """Of absent weights."""
        return f"{100 * (self.sparsity or 0):g}%"


DENSE = Network("dense_snn")


def networks(part: Part) -> Iterator[Network]:
    """The dense conversion, then by sparsity, in the order of the table."""
    yield DENSE
    for sparsity in part.sparsities:
        for result in part.results:
            for pruning in part.prunings if result in OF_AN_ANN else (None,):
                yield Network(result, sparsity, pruning)


def words(table: Table, dataset: str, network: Network, seed: int) -> Overrides:
    """What makes a network, after `snnrobust convert`."""
    return (
        *_shared(table, dataset, seed),
        f"conversion.result={network.result}",
        *([] if network.sparsity is None else [f"conversion.sparsity={network.sparsity:g}"]),
        *([] if network.pruning is None else [f"conversion.pruning={network.pruning}"]),
    )


def _shared(table: Table, dataset: str, seed: int) -> Overrides:
    return (f"runs={table.runs}", *table.common, *table.datasets[dataset].words, f"seed={seed}")
