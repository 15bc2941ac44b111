"""The table of sparse connectivity: what is run, what the page says, and whether it agrees with the paper."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from snnrobust.convert import Conversion
from snnrobust.job import SCHEMA
from snnrobust.launchers.base import Launcher
from snnrobust.launchers.parallel import Parallel
from snnrobust.stages import plan
from sweeps import sparse
from sweeps.declarations import read_as
from sweeps.sparse import __main__ as command
from sweeps.sparse.claims import Claim, claims
from sweeps.sparse.declaration import DENSE, Network, Table, networks, words
from sweeps.sparse.figure import draw
from sweeps.sparse.page import page
from sweeps.sparse.published import ACCURACIES, ENERGY
from sweeps.sparse.results import Results

FILE = Path(sparse.__file__).parents[1] / "sparse_connectivity.yaml"
SMALL = {
    "title": "Small",
    "runs": "runs/none",
    "seeds": [0, 1],
    "common": ["tracker=none"],
    "datasets": {
        "digits": {
            "words": ["experiment=digits_sparse"],
            "sparsities": [0.5, 0.9, 0.95, 0.99],
            "prunings": ["magnitude", "hydra", "harp"],
            "results": ["snn", "static_ann", "static_random", "rewired"],
        }
    },
}
HYDRA, RANDOM = Network("snn", 0.9, "hydra"), Network("static_random", 0.9)


def table(**changes: Any) -> Table:
    return Table.model_validate(SMALL | changes)


def record(pgd: float, operations: float = 100.0, clean: float = 0.95, name: str = "a", flags: tuple[str, ...] = ()):
    metrics = dict.fromkeys(("noise_accuracy", "fgsm_accuracy", "worst_accuracy", "pgd_accuracy"), pgd)
    metrics |= {"clean_accuracy": clean, "stored_weights": 5277.0, "stored_bytes": 32710.0, "spikes": 5000.0}
    return {
        "schema": SCHEMA,
        "training_signature": name,
        "evaluation_signature": name,
        "metrics": metrics | {"synaptic_operations": operations},
        "layers": {"density": {"first": 0.9, "second": 0.05}},
        "flags": [{"name": flag} for flag in flags],
        "durations": {"train": 1800.0},
        "samples": {"train": 1000, "test": 200},
        "config": {"threat": {"eps": 8 / 255}, "training": {"epochs": 12, "optimizer": {"lr": 0.01}}},
        "git": {"commit": f"{name:0>10}ffff", "dirty": False},
        "hardware": {"cpu": "a CPU"},
        "versions": {"torch": "2"},
        "finished": "2025-01-02T00:00:00+00:00",
    }


def results(
    its: Table, pgd: Mapping[Network, tuple[float, ...]], operations: Mapping[Network, float] | None = None
) -> Results:
    """Robust accuracies by seed; networks that are not named are missing."""
    saved = operations or {}
    found = {
        (dataset, network, seed): {network.result: record(pgd[network][seed], saved.get(network, 100.0))}
        if seed < len(pgd.get(network, ()))
        else {network.result: None}
        for dataset, part in its.datasets.items()
        for network in networks(part)
        for seed in its.seeds
    }
    return Results(its, found)


def as_published(its: Table) -> Results:
    """The numbers of the paper, the same for all seeds."""
    accuracies = {network: (value.pgd / 100,) * len(its.seeds) for network, value in ACCURACIES.items()}
    made = results(its, accuracies, {network: 100 / ratio for network, ratio in ENERGY.items()})
    for (_, network, _), stages in made.found.items():
        if (own := stages[network.result]) is not None:
            own["metrics"]["clean_accuracy"] = ACCURACIES[network].clean / 100
    return made


def verdicts(made: Results) -> dict[str, str]:
    return {claim.what: claim.verdict for claim in claims(made, "digits")}


@pytest.mark.parametrize("dataset", ["digits", "fashion_mnist"])
def test_every_kind_of_network_is_in_order_and_a_training_of_its_own(dataset):
    its = read_as(Table, FILE)
    part = its.datasets[dataset]
    first = [network for network in networks(part) if network.sparsity in (None, part.sparsities[0])]
    ends = [plan(words(its, dataset, network, 0))[-1] for network in first]
    assert [end.name for end in ends] == [network.result for network in first]
    assert len({end.job.training for end in ends}) == len(first)
    assert all("estimator=nineteen" in end.job.overrides for end in ends)


def test_energy_is_that_of_the_dense_network_of_the_same_seed_divided_by_its_own():
    its = table()
    made = results(its, {DENSE: (0.8, 0.8), HYDRA: (0.7, 0.6)})
    for seed, dense, own in ((0, 600.0, 100.0), (1, 900.0, 300.0)):
        made.found["digits", DENSE, seed]["dense_snn"]["metrics"]["synaptic_operations"] = dense  # type: ignore[index]
        made.found["digits", HYDRA, seed]["snn"]["metrics"]["synaptic_operations"] = own  # type: ignore[index]
    assert made.of("digits", HYDRA, "energy") == {0: 6.0, 1: 3.0}
    made.found["digits", HYDRA, 0]["snn"]["metrics"]["synaptic_operations"] = 0.0  # type: ignore[index]
    assert made.of("digits", HYDRA, "energy") == {1: 3.0}
    assert made.of("digits", HYDRA, "least_density") == {0: 0.05, 1: 0.05}


def test_differences_are_between_networks_of_the_same_seed():
    made = results(table(), {HYDRA: (0.7, 0.6), RANDOM: (0.5,)})
    assert made.differences("digits", HYDRA, RANDOM, "pgd") == [pytest.approx(0.2)]
    assert made.has("digits", HYDRA)
    assert not made.has("digits", RANDOM)


def test_the_paper_agrees_with_itself():
    found = [*claims(as_published(table()), "digits")]
    assert len(found) == 16
    assert {claim.verdict for claim in found} == {"agrees"}
    collapses = {claim.what: (claim.published, claim.ours) for claim in found if "collapses" in claim.what}
    assert collapses == {
        "LWM collapses at": ("95%", "95%"),
        "HYDRA collapses at": ("95%", "95%"),
        "HARP collapses at": ("99%", "99%"),
    }


def test_one_seed_with_the_other_sign_does_not_agree_and_a_missing_one_is_not_measured():
    ahead = "90%: conversion is ahead of training from scratch with random connections"
    assert verdicts(results(table(), {HYDRA: (0.7, 0.6), RANDOM: (0.5, 0.5)}))[ahead] == "agrees"
    assert verdicts(results(table(), {HYDRA: (0.9, 0.5), RANDOM: (0.5, 0.6)}))[ahead] == "does not agree"
    assert verdicts(results(table(), {HYDRA: (0.7,), RANDOM: (0.5, 0.5)}))[ahead] == "not measured"


def test_orders_are_those_of_means_and_a_collapse_elsewhere_does_not_agree():
    low, high = Network("snn", 0.95, "hydra"), Network("snn", 0.95, "harp")
    dense = {DENSE: (0.8, 0.8)}
    found = verdicts(results(table(), dense | {low: (0.6, 0.4), high: (0.5, 0.4)}))
    assert found["95%: HYDRA is below HARP"] == "does not agree"
    harp = {s: Network("snn", s, "harp") for s in (0.5, 0.9, 0.95, 0.99)}
    kept = results(table(), dense | {network: (0.701, 0.701) for network in harp.values()})
    ours = [claim for claim in claims(kept, "digits") if claim.what == "HARP collapses at"]
    assert ours == [Claim("HARP collapses at", "99%", "none of them", False)]


def test_statements_about_networks_that_are_not_declared_are_left_out():
    part = SMALL["datasets"]["digits"] | {"prunings": ["hydra", "harp"], "sparsities": [0.9], "results": ["snn"]}  # type: ignore[index]
    assert [*verdicts(results(table(datasets={"digits": part}), {}))] == [
        "90%: HYDRA is below HARP",
        "HYDRA collapses at",
        "HARP collapses at",
        "90%: the energy ratio of HARP is below that of HYDRA",
    ]


def test_the_page_says_what_is_there_and_what_is_missing():
    made = results(table(), {DENSE: (0.8, 0.9), HYDRA: (0.7,)})
    made.found["digits", HYDRA, 0]["tuned"] = record(0.75, clean=0.99, name="b")  # type: ignore[index]
    made.found["digits", HYDRA, 0]["snn"]["flags"].append({"name": "black_box"})  # type: ignore[index]
    said = page(Path("some.yaml"), made, "some.svg")
    assert (
        "3 of 66 networks, 2 runs with their earlier stages, 1.0 hours of one core (a CPU, torch 2, 2025-01-02)" in said
    )
    assert "commits 000000000a, 000000000b. The table mixes commits" in said
    assert "1,000 training and 200 test samples, one of which is 0.50 points; budget 8/255. Epochs" in said
    assert "Epochs and learning rates: pruned ANN 12 at 0.01, converted network 12 at 0.01." in said
    assert (
        "| 0% | converted, dense |  |  |  | 95.0 ± 0.0 | 85.0 ± 7.1 | 85.0 ± 7.1 | 85.0 ± 7.1 | 85.0 ± 7.1 | 2 |"
        in said
    )
    assert "| 90% | converted, HYDRA | 99.0 | 75.0 |  | 95.0 | 70.0 | 70.0 | 70.0 | 70.0† | 1 of 2 |" in said
    assert "| 90% | converted, HYDRA | 5,277 | 32,710 | 5,000 | 1.00 | 0.05 to 0.9 | 1 of 2 |" in said
    assert "| 90% | end to end, random connections |  |  |  |  |  |  |  |  | missing |" in said
    assert "| 90% | converted, HYDRA | -2.5 | 0.0 | -5.0 | -10.0 | 6.12 | 1.00 |" in said
    assert "- digits, converted, HYDRA, 90%: black_box (1 of 1)" in said


def test_the_figure_has_a_line_for_each_way_to_a_network():
    drawn = draw(as_published(table())).decode()
    for label in ("converted, dense", "converted, LWM", "converted, HARP", "end to end, random connections"):
        assert f">{label}<" in drawn
    assert "rewired" not in drawn


def test_records_are_found_by_their_signatures_and_only_what_is_missing_is_run(tmp_path, monkeypatch, capsys):
    file = tmp_path / "tiny.yaml"
    file.write_text(f"""
title: Tiny
runs: {tmp_path}/runs
seeds: [0]
common: [tracker=none, estimator=nineteen]
datasets:
  digits: {{words: [experiment=digits_sparse], sparsities: [0.9], prunings: [hydra], results: [snn, static_random]}}
""")
    its = read_as(Table, file)
    for network in (DENSE, HYDRA):
        job = plan(words(its, "digits", network, 0))[-1].job
        job.folder.mkdir(parents=True)
        made = record(0.7, 100 if network == HYDRA else 450) | {"evaluation_signature": job.evaluation}
        (job.folder / "results.json").write_text(json.dumps(made))
    started: list[str] = []

    def convert_all(conversions: Sequence[Conversion], launcher: Launcher) -> list[str]:
        assert launcher == Parallel(3)
        started.extend(conversion.name for conversion in conversions)
        assert all(conversion.stages[-1].name == "static_random" for conversion in conversions)
        return []

    monkeypatch.setattr(command, "convert_all", convert_all)
    assert command.main([str(file), "--jobs", "3"]) == 0
    assert started == ["digits, end to end, random connections, 90%, seed 0"]
    assert "| 90% | converted, HYDRA | 5,277 | 32,710 | 5,000 | 4.50 |" in (tmp_path / "tiny.md").read_text()
    assert (tmp_path / "tiny.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("harp]", "random]", "prunings.1"),
        ("[0.9]", "[90]", "sparsities.0"),
        ("seeds: [0]", "", "seeds: Field required"),
        ("title: Tiny", "title: [", "no yaml"),
        ("words:", "word:", "words: Field required"),
    ],
)
def test_a_mistake_in_a_declaration_is_one_line(tmp_path, capsys, old, new, said):
    file = tmp_path / "tiny.yaml"
    content = """
title: Tiny
seeds: [0]
runs: runs/none
common: []
datasets: {digits: {words: [], sparsities: [0.9], prunings: [hydra, harp], results: [snn]}}
"""
    assert old in content
    file.write_text(content.replace(old, new))
    assert command.main([str(file), "--render"]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "tiny.md").exists()


def test_a_dataset_that_the_declaration_does_not_have_is_one_line(capsys):
    assert command.main([str(FILE), "--datasets", "mnist"]) == 2
    assert capsys.readouterr().err == "sparse: --datasets: got mnist; allowed: digits, fashion_mnist\n"
