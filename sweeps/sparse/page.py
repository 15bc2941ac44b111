"""The page of sparse connectivity, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from snnrobust.reporting.settings import Estimate
from sweeps.render import percent, plain
from sweeps.sparse.claims import RULES, claims, signed
from sweeps.sparse.declaration import DENSE, PRUNINGS, Network, networks
from sweeps.sparse.published import ACCURACIES, ENERGY
from sweeps.sparse.results import Record, Results

Cells = Sequence[str]
ACCURACY = (
    ("ann_clean", "ANN clean"), ("ann_pgd", "ANN PGD-10"), ("converted_clean", "SNN clean, as converted"),
    ("clean", "SNN clean"), ("noise", "noise"), ("fgsm", "FGSM"), ("pgd", "PGD-10"), ("worst", "worst case"),
)  # fmt: skip
"""Columns in percent."""
RAISED = "†"
"""Beside the worst case of a network that a check of masking objects to."""


def page(file: Path, results: Results, figure: str) -> str:
    """Tables of every dataset, the figure, and the comparison with the paper."""
    table = results.table
    lines = [f"# {table.title}", "", *_head(file, results), "", f"![Robustness and energy]({figure})", ""]
    lines += [*_about_the_tables(results), ""]
    for dataset in table.datasets:
        lines += [
            f"## {dataset}",
            "",
            *_about(results, dataset),
            "Accuracy in percent:",
            "",
            *_accuracies(results, dataset),
            "",
        ]
        lines += ["What it costs:", "", *_costs(results, dataset), ""]
    lines += ["## Against the paper", "", *_paper(results)]
    lines += [*_flags(results)]
    return "\n".join(lines).rstrip() + "\n"


def _head(file: Path, results: Results) -> Iterator[str]:
    found = list(results.records())
    wanted = len(results.found)
    done = sum(results.record(*key) is not None for key in results.found)
    hours = sum(seconds for record in found for seconds in record["durations"].values()) / 3600
    machines = sorted({f"{record['hardware']['cpu']}, torch {record['versions']['torch']}" for record in found})
    commits = sorted({_commit(record) for record in found})
    days = sorted(record["finished"][:10] for record in found)
    mixed = " The table mixes commits: runs that were on record are not repeated." if len(commits) > 1 else ""
    when = f", {days[0]}" + (f" to {days[-1]}" if days[-1] != days[0] else "") if days else ""
    yield (
        f"`python -m sweeps.sparse {file.as_posix()}`: {done} of {wanted} networks, {len(found)} runs with their "
        f"earlier stages, {hours:.1f} hours of one core ({'; '.join(machines) or 'nothing has run yet'}{when}), "
        f"commit{'s' if len(commits) > 1 else ''} {', '.join(commits) or 'none'}.{mixed}"
    )


def _commit(record: Record) -> str:
    git = record.get("git") or {}
    return str(git.get("commit", "unknown"))[:10] + (" with changes" if git.get("dirty") else "")


def _about_the_tables(results: Results) -> Iterator[str]:
    seeds = results.table.seeds
    yield (
        f"Mean ± sample standard deviation over n trainings (seeds {', '.join(map(str, seeds))}), each with its own "
        "ANN. **Converted**: a network of ReLUs is trained by TRADES, pruned, trained on, converted and trained on as "
        f"a spiking network ({', '.join(PRUNINGS.values())}: how it is pruned; `docs/conversion.md`). **End to end**: "
        "a spiking network is trained from scratch, with absent connections that are those of the pruned ANN, or "
        "random ones, or rewired in the course of the training."
    )
    yield ""
    yield (
        "Attacks have the l_inf budget of the training. FGSM and PGD-10 of spiking networks: a sample counts as right "
        "that withstands all of 19 gradients (`estimator=nineteen`). Worst case: that withstands both, and noise of "
        "the same size. ANN: PGD-10 with its one exact gradient, before the conversion; **the columns of ANNs and of "
        "spiking networks are not comparable**. As converted: before the spiking network is trained on. Energy ratio: "
        "synaptic operations of the dense conversion of the same seed divided by those of the network, with the "
        "spikes of each; above 1 is a saving. Densities: share of weights that are there, in the layer with the "
        "fewest and in the one with the most."
    )


def _about(results: Results, dataset: str) -> Iterator[str]:
    """Of the data, as the runs have recorded it."""
    for seed in results.table.seeds:
        record = results.record(dataset, DENSE, seed)
        if record is not None:
            samples, eps = record["samples"], record["config"]["threat"]["eps"]
            yield (
                f"{samples['train']:,} training and {samples['test']:,} test samples, one of which is "
                f"{100 / samples['test']:.2f} points; budget {_budget(eps)}. {_lengths(results, dataset)}"
            )
            yield ""
            return


LENGTHS = {"ann": "ANN", "tuned": "pruned ANN", "snn": "converted network", "static_random": "from scratch"}
"""Stages that train, and what they are called."""


def _lengths(results: Results, dataset: str) -> str:
    """How long and how fast each stage trained, as the runs have recorded it."""
    found: dict[str, str] = {}
    for (name, _, _), stages in results.found.items():
        for stage, record in stages.items() if name == dataset else ():
            if record is not None and stage in LENGTHS:
                its = record["config"]["training"]
                found[stage] = f"{LENGTHS[stage]} {its['epochs']} at {its['optimizer']['lr']:g}"
    return f"Epochs and learning rates: {', '.join(found[stage] for stage in LENGTHS if stage in found)}."


def _budget(eps: float) -> str:
    """As papers write it, where it is a number of grey levels."""
    levels = 255 * eps
    return f"{round(levels)}/255" if abs(levels - round(levels)) < 1e-6 else f"{eps:g}"


def _accuracies(results: Results, dataset: str) -> Iterator[str]:
    yield _line(["sparsity", "network", *(title for _, title in ACCURACY), "n"])
    yield _ruler(2, len(ACCURACY) + 1)
    for network in networks(results.table.datasets[dataset]):
        n = len(results.of(dataset, network, "clean"))
        cells = [_cell(results.estimate(dataset, network, column), n, percent) for column, _ in ACCURACY]
        cells[-1] += RAISED if _raised(results, dataset, network) else ""
        yield _line([*_name(network), *cells, _count(results, n)])


def _costs(results: Results, dataset: str) -> Iterator[str]:
    yield _line(
        ["sparsity", "network", "weights", "stored bytes", "spikes per sample", "energy ratio", "densities", "n"]
    )
    yield _ruler(2, 6)
    for network in networks(results.table.datasets[dataset]):
        n = len(results.of(dataset, network, "clean"))
        cells = [_cell(results.estimate(dataset, network, c), n, _whole) for c in ("weights", "bytes", "spikes")]
        cells.append(_cell(results.estimate(dataset, network, "energy"), n, _ratio))
        low, high = (results.estimate(dataset, network, c) for c in ("least_density", "largest_density"))
        cells.append(f"{_share(low.mean)} to {_share(high.mean)}" if low and high else "")
        yield _line([*_name(network), *cells, _count(results, n)])


def _name(network: Network) -> Cells:
    return [network.share, network.label]


def _count(results: Results, n: int) -> str:
    wanted = len(results.table.seeds)
    return "missing" if n == 0 else str(n) if n == wanted else f"{n} of {wanted}"


def _cell(found: Estimate | None, n: int, show: Callable[[Estimate | None], str]) -> str:
    """With its own n, where that is not the one of the row."""
    return show(found) + ("" if found is None or found.n == n else f" (n = {found.n})")


def _whole(value: Estimate | None) -> str:
    """The deviation only where there is one: numbers of weights are the same for all seeds."""
    if value is None:
        return ""
    return f"{value.mean:,.0f}" + (f" ± {value.std:,.0f}" if value.std else "")


def _ratio(value: Estimate | None) -> str:
    """That of the dense conversion to itself has no deviation."""
    return plain(value, 2) if value is None or value.std else f"{value.mean:.2f}"


def _share(density: float) -> str:
    return f"{density:.2g}"


def _raised(results: Results, dataset: str, network: Network) -> dict[str, int]:
    """Checks that were raised, and for how many seeds."""
    found = [results.record(dataset, network, seed) for seed in results.table.seeds]
    names = [flag["name"] for record in found if record is not None for flag in record["flags"]]
    return {name: names.count(name) for name in dict.fromkeys(names)}


def _flags(results: Results) -> Iterator[str]:
    raised = [
        (dataset, network, its)
        for dataset, part in results.table.datasets.items()
        for network in networks(part)
        if (its := _raised(results, dataset, network))
    ]
    if not raised:
        return
    yield from ("", f"{RAISED} Checks that were raised (docs/checks.md), and for how many trainings:", "")
    for dataset, network, its in raised:
        n = len(results.of(dataset, network, "clean"))
        counts = ", ".join(f"{name} ({k} of {n})" for name, k in its.items())
        yield f"- {dataset}, {network.label}, {network.share}: {counts}"


def _paper(results: Results) -> Iterator[str]:
    yield (
        "Published: tables 1, 3 and B1 of CPAL 2025 ([arXiv 2505.15833](https://arxiv.org/abs/2505.15833)), VGG-16 on "
        "CIFAR-10, one training each; PGD-10 with the worst of 19 gradients at 2/255, the budget of its training. What "
        "is here is another dataset, a small network, another budget, fewer epochs and few test samples, with "
        f"{len(results.table.seeds)} seeds: levels cannot agree, only what is ahead of what, and where."
    )
    yield ""
    yield RULES
    for dataset in results.table.datasets:
        its = list(claims(results, dataset))
        counts = [sum(claim.verdict == verdict for claim in its) for verdict in ("agrees", "does not agree")]
        yield from ("", f"### {dataset}", "")
        yield f"Of {len(its)} statements, {counts[0]} agree, {counts[1]} do not, {len(its) - sum(counts)} not measured."
        yield from ("", _line(["statement", "published", "here", ""]), "|---|---:|---:|---|")
        for claim in its:
            verdict = f"**{claim.verdict}**" if claim.agrees is False else claim.verdict
            yield _line([claim.what, claim.published, claim.ours, verdict])
        yield from (
            "",
            "Side by side; accuracies in points against the dense conversion, over the seeds that both have:",
            "",
        )
        yield from _side_by_side(results, dataset)
        yield from ("", *_ahead(results, dataset))


def _side_by_side(results: Results, dataset: str) -> Iterator[str]:
    yield _line(
        [
            "sparsity",
            "network",
            "clean, published",
            "here",
            "PGD-10, published",
            "here",
            "energy ratio, published",
            "here",
        ]
    )
    yield _ruler(2, 6)
    dense = ACCURACIES[DENSE]
    for network in networks(results.table.datasets[dataset]):
        its = ACCURACIES.get(network)
        if network == DENSE or its is None:
            continue
        clean, pgd = (signed(results.differences(dataset, network, DENSE, column)) for column in ("clean", "pgd"))
        energy = f"{ENERGY[network]:.2f}" if network in ENERGY else ""
        ours = plain(results.estimate(dataset, network, "energy"), 2)
        cells = [f"{its.clean - dense.clean:+.1f}", clean, f"{its.pgd - dense.pgd:+.1f}", pgd, energy, ours]
        yield _line([*_name(network), *cells])


def _ahead(results: Results, dataset: str) -> Iterator[str]:
    """Converted minus random connections from scratch, in points, at every sparsity and for every pruning."""
    part = results.table.datasets[dataset]
    if not {"snn", "static_random"} <= {*part.results}:
        return
    yield "Converted minus trained from scratch with random connections, in points, seed by seed:"
    yield ""
    yield _line(["accuracy", "pruning", *(network.share for network in (Network("snn", s) for s in part.sparsities))])
    yield _ruler(2, len(part.sparsities))
    for column, title in (("clean", "clean"), ("pgd", "PGD-10")):
        for pruning in part.prunings:
            pairs = [(Network("snn", s, pruning), Network("static_random", s)) for s in part.sparsities]
            cells = [signed(results.differences(dataset, *pair, column)) for pair in pairs]
            yield _line([title, PRUNINGS[pruning], *cells])


def _line(cells: Cells) -> str:
    return f"| {' | '.join(cells)} |"


def _ruler(texts: int, numbers: int) -> str:
    return "|" + "---|" * texts + "---:|" * numbers
