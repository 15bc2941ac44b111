"""What the paper's numbers say, and whether those of the table say the same; by rules that are stated beside them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Literal

from sweeps.render import estimate, percent
from sweeps.sparse.declaration import DENSE, PRUNINGS, Network, networks
from sweeps.sparse.published import ACCURACIES, ENERGY
from sweeps.sparse.results import Results

Column = Literal["clean", "pgd"]
COLLAPSE = 10.0
"""Points below the dense conversion."""
NINETY = 0.9
"""The sparsity at which the paper has end-to-end training."""
RULES = (
    "Rules. Ahead: the difference, in points, has the published sign for every seed. Below: the means over seeds "
    f"are in the published order. Collapses: the first sparsity whose mean is more than {COLLAPSE:g} points below "
    "that of the dense conversion, among the sparsities that both have, is the same. Accuracy is that under "
    "PGD-10 with the worst of 19 gradients, as in the paper, where clean is not said. Not measured: a training "
    "that is needed is missing."
)


@dataclass(frozen=True)
class Claim:
    """One line of the comparison.

    Args:
        what: is claimed.
        published: the numbers of the paper.
        ours: those of the table.
        agrees: whether they say the same; None if something is missing.
    """

    what: str
    published: str
    ours: str
    agrees: bool | None

    @property
    def verdict(self) -> str:
        return "not measured" if self.agrees is None else "agrees" if self.agrees else "does not agree"


def claims(results: Results, dataset: str) -> Iterator[Claim]:
    """Those about networks that the declaration has for a dataset."""
    part = results.table.datasets[dataset]
    declared = {*networks(part)}
    converted = Network("snn", NINETY, "hydra")
    chosen, random = Network("static_ann", NINETY, "hydra"), Network("static_random", NINETY)
    for what, one, other in (
        ("conversion is ahead of training from scratch with random connections", converted, random),
        ("conversion is ahead of training from scratch with the ANN's connections", converted, chosen),
        ("from scratch, random connections are ahead of the ANN's", random, chosen),
    ):
        if {one, other} <= declared:
            yield _more(results, dataset, what, one, other, "pgd")
    if {converted, random} <= declared:
        yield _more(results, dataset, "conversion is ahead of random connections, clean", converted, random, "clean")
    for sparsity in (0.9, 0.95, 0.99):
        for less, more in (("magnitude", "hydra"), ("hydra", "harp")):
            if {Network("snn", sparsity, less), Network("snn", sparsity, more)} <= declared:
                yield _order(results, dataset, sparsity, less, more)
    if "snn" in part.results:
        for pruning in part.prunings:
            yield _collapse(results, dataset, pruning)
    yield from _energies(results, dataset, declared)


def _more(results: Results, dataset: str, what: str, one: Network, other: Network, column: Column) -> Claim:
    """Accuracy of one network minus that of another."""
    published = getattr(ACCURACIES[one], column) - getattr(ACCURACIES[other], column)
    found = results.differences(dataset, one, other, column)
    complete = results.has(dataset, one) and results.has(dataset, other)
    agrees = all(value * published > 0 for value in found) if complete else None
    return Claim(f"90%: {what}", f"{published:+.1f}", signed(found), agrees)


def _order(results: Results, dataset: str, sparsity: float, less: str, more: str) -> Claim:
    """Robust accuracy of one pruning is below that of another."""
    low, high = Network("snn", sparsity, less), Network("snn", sparsity, more)
    found = _means(results, dataset, [low, high], "pgd")
    return Claim(
        f"{low.share}: {PRUNINGS[less]} is below {PRUNINGS[more]}",
        f"{ACCURACIES[low].pgd} < {ACCURACIES[high].pgd}",
        "" if found is None else f"{100 * found[low]:.1f}, {100 * found[high]:.1f}",
        None if found is None else found[low] < found[high],
    )


def _collapse(results: Results, dataset: str, pruning: str) -> Claim:
    """Where the robust accuracy of a pruning falls far below that of the dense conversion."""
    its = [n for n in ACCURACIES if n.result == "snn" and n.pruning == pruning]
    its = [n for n in its if n.sparsity in results.table.datasets[dataset].sparsities]
    published = _first(its, {network: ACCURACIES[network].pgd for network in (DENSE, *its)})
    found = _means(results, dataset, [DENSE, *its], "pgd") if its else None
    ours = None if found is None else _first(its, {network: 100 * value for network, value in found.items()})
    return Claim(
        f"{PRUNINGS[pruning]} collapses at", published, ours or "", None if ours is None else ours == published
    )


def _first(networks: list[Network], accuracies: Mapping[Network, float]) -> str:
    low = [network.share for network in networks if accuracies[network] < accuracies[DENSE] - COLLAPSE]
    return low[0] if low else "none of them"


def _energies(results: Results, dataset: str, declared: Set[Network]) -> Iterator[Claim]:
    """A uniform share saves more operations than a learned one; all save some, more the sparser."""
    uniform, learned = Network("snn", NINETY, "hydra"), Network("snn", NINETY, "harp")
    if {uniform, learned} <= declared:
        found = _means(results, dataset, [uniform, learned], "energy")
        yield Claim(
            "90%: the energy ratio of HARP is below that of HYDRA",
            f"{ENERGY[learned]:.2f} < {ENERGY[uniform]:.2f}",
            "" if found is None else f"{found[learned]:.2f}, {found[uniform]:.2f}",
            None if found is None else found[learned] < found[uniform],
        )
    for pruning in ("hydra", "harp"):
        its = [network for network in ENERGY if network.pruning == pruning and network in declared]
        if len(its) > 1:
            means = _means(results, dataset, its, "energy")
            ours = [] if means is None else [means[network] for network in its]
            yield Claim(
                f"{', '.join(network.share for network in its)}: the energy ratio of {PRUNINGS[pruning]} grows, from "
                "above 1",
                ", ".join(f"{ENERGY[network]:.2f}" for network in its),
                ", ".join(f"{ratio:.2f}" for ratio in ours),
                None if means is None else ours == sorted(ours) and ours[0] > 1,
            )


def _means(results: Results, dataset: str, networks: list[Network], column: str) -> dict[Network, float] | None:
    """Over all seeds; None if one of them is missing."""
    found = {network: results.of(dataset, network, column) for network in networks}
    if any(len(values) < len(results.table.seeds) for values in found.values()):
        return None
    return {network: statistics.mean(values.values()) for network, values in found.items()}


def signed(values: list[float]) -> str:
    """Mean and deviation of differences, in points."""
    found = estimate(values)
    return "" if found is None else f"{'+' if found.mean > 0 else ''}{percent(found)}"
