"""Costs where users meet them: in the files of a run, the terminal, the tracker and the report."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from snnrobust import compressed
from snnrobust.cli import main
from snnrobust.console import results_table, stdout
from snnrobust.record import summary
from snnrobust.reporting.records import collect
from snnrobust.reporting.report import write_report
from snnrobust.reporting.tables import summarise
from snnrobust.training.checkpoint import Checkpoint

SMALL = ("model.channels=[4]", "model.hidden=8", "encoder.steps=3", "neuron=if", "regularizer=none", "training=debug")
COSTS = {
    "sparsity",
    "stored_weights",
    "stored_bytes",
    "spikes",
    "synaptic_operations",
    "energy_ratio",
    "energy_nanojoule",
}


def results(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "results.json").read_text())
    return content


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A run, and one that keeps a fifth of its connections."""
    root = tmp_path_factory.mktemp("runs")
    found: dict[str, Path] = {}
    for name in ("dense", "sparse"):
        more: list[str] = []
        if name == "sparse":
            more = ["training=none", "start=magnitude", "start.sparsity=0.8"]
            more += [f"{key}={found['dense']}" for key in ("start.source", "reference")]
        both = [*SMALL, "attacks.pgd.steps=1", "tracker=none", "device=cpu", f"runs={root}", *more]
        assert main(["train", *both]) == 0
        (found[name],) = [path.parent for path in root.glob("*/results.json") if path.parent not in found.values()]
    return found


def shown(content: dict[str, Any]) -> str:
    console = stdout()
    with console.capture() as text:
        console.print(results_table(content))
    return text.get()


def test_a_run_records_what_its_network_costs(runs):
    content = results(runs["dense"])
    metrics, costs = content["metrics"], content["costs"]
    assert metrics.keys() >= COSTS
    assert (metrics["sparsity"], metrics["energy_ratio"]) == (0, 1)
    assert metrics["stored_weights"] == costs["weights"] == 4 * 9 + 64 * 8 + 8 * 10
    assert costs["synaptic_operations_if_dense"] == costs["synaptic_operations"] == metrics["synaptic_operations"]
    assert costs["multiply_accumulates"] == 4 * 22 * 22
    assert costs["reference"] is costs["energy_ratio_to_reference"] is None
    energy = costs["accumulate_picojoule"] * costs["synaptic_operations"] + 4.6 * 4 * 22 * 22
    assert metrics["energy_nanojoule"] == pytest.approx(energy / 1000)


def test_spikes_are_those_of_the_firing_rates(runs):
    layers = results(runs["dense"])["layers"]
    neurons = {"backbone.features.2": 4 * 64, "backbone.classifier.2": 8}
    expected = {name: rate * 3 * neurons[name] for name, rate in layers["firing_rate"].items()}
    assert layers["spikes"] == pytest.approx(expected)
    assert layers["density"].keys() == {"backbone.features.0", "backbone.classifier.1", "backbone.classifier.3"}
    assert layers["synaptic_operations"].keys() == layers["density"].keys() - {"backbone.features.0"}


def test_the_energy_is_compared_with_the_reference(runs):
    dense, sparse = results(runs["dense"]), results(runs["sparse"])
    own, other = sparse["metrics"], dense["metrics"]
    assert own["sparsity"] == pytest.approx(0.8, abs=0.01)
    assert own["energy_ratio"] == other["synaptic_operations"] / own["synaptic_operations"]
    costs = sparse["costs"]
    assert costs["energy_ratio_to_reference"] == own["energy_ratio"] != costs["energy_ratio_to_itself_dense"]
    assert costs["energy_ratio_to_itself_dense"] == costs["synaptic_operations_if_dense"] / own["synaptic_operations"]
    assert costs["spikes_ratio_to_reference"] == other["spikes"] / own["spikes"]
    assert costs["reference"] == {key: dense["costs"][key] for key in costs["reference"]}
    assert sparse["config"]["reference"]["training_signature"] == dense["training_signature"]


def test_absent_connections_take_no_place_on_the_disk(runs):
    file, state = "weights.sparse.safetensors", Checkpoint.load(runs["sparse"] / "checkpoint.pt").state
    assert not (runs["dense"] / file).exists()
    assert (runs["sparse"] / file).stat().st_size == results(runs["sparse"])["metrics"]["stored_bytes"]
    assert compressed.same_bits(compressed.read(runs["sparse"] / file), state)
    sizes = [results(runs[name])["metrics"]["stored_bytes"] for name in ("sparse", "dense")]
    assert sizes[0] < sizes[1]


def test_a_run_that_was_killed_before_its_sparse_file_was_written_gets_it_later(runs, tmp_path):
    home = tmp_path / runs["sparse"].name
    shutil.copytree(runs["sparse"], home)
    for name in ("weights.sparse.safetensors", "results.json"):
        (home / name).unlink()
    said = [word for word in yaml.safe_load((home / "overrides.yaml").read_text()) if not word.startswith("runs=")]
    assert main(["train", *said, f"runs={tmp_path}"]) == 0
    assert (home / "results.json").exists()
    assert compressed.same_bits(
        compressed.read(home / "weights.sparse.safetensors"), Checkpoint.load(home / "checkpoint.pt").state
    )


def test_an_evaluation_does_not_need_the_run_that_the_weights_began_with(runs, tmp_path):
    away = tmp_path / "away"
    runs["dense"].rename(away)
    try:
        again = ["evaluate", f"checkpoint={runs['sparse']}", "threat.eps=0.02", f"reference={away}", "tracker=none"]
        assert main(again) == 0
    finally:
        away.rename(runs["dense"])
    (made,) = runs["sparse"].glob("*/results.json")
    assert json.loads(made.read_text())["training_signature"] == results(runs["sparse"])["training_signature"]
    shutil.rmtree(made.parent)


def test_the_terminal_shows_costs_where_they_tell_something(runs):
    dense, sparse = shown(results(runs["dense"])), shown(results(runs["sparse"]))
    assert not [name for name in COSTS if f" {name} " in dense]
    assert {name for name in COSTS if f" {name} " in sparse} == {"sparsity", "stored_bytes", "spikes", "energy_ratio"}
    assert {line.split()[1] for line in dense.splitlines() if "│" in line} < {
        line.split()[1] for line in sparse.splitlines() if "│" in line
    }


def test_the_table_of_an_older_record_has_no_costs():
    content = {"metrics": {"clean_accuracy": 0.9}, "flags": [], "config": {"suite": {"headline": {}}}}
    assert "90.0 %" in shown(content)


def test_the_tracker_is_told_everything(runs):
    content = results(runs["sparse"])
    told = summary(content)
    assert {f"test/{name}" for name in COSTS} <= told.keys()
    assert told["test/density/backbone.features.0"] == content["layers"]["density"]["backbone.features.0"]
    assert "test/spikes/backbone.classifier.2" in told


def test_a_report_shows_costs_where_connections_are_absent(runs, tmp_path):
    both = summarise(collect([runs["dense"].parent]))
    assert both.metrics[-3:] == ("sparsity", "energy_ratio", "spikes")
    header = both.header()
    assert header[-3:] == ["connections absent", "energy ratio", "spikes"]
    assert any(row[-3] == f"{results(runs['sparse'])['metrics']['sparsity']:.3g}" for row in both.rows())
    alone = summarise(collect([runs["dense"]]))
    assert not COSTS & {*alone.metrics}
    page = write_report([runs["dense"].parent], tmp_path, "costs").page.read_text()
    assert "<dt>energy ratio</dt>" in page


def test_a_reference_of_another_kind_fails_in_one_line(tmp_path, capsys):
    analog = [*SMALL[:2], "encoder.steps=1", "neuron=relu", "regularizer=none", "training=debug"]
    given = [*analog, "attacks.pgd.steps=1", "tracker=none", "device=cpu", f"runs={tmp_path}/analog"]
    assert main(["train", *given]) == 0
    (run,) = [path.parent for path in (tmp_path / "analog").glob("*/results.json")]
    assert "energy_ratio" not in results(run)["metrics"]
    assert results(run)["metrics"]["energy_nanojoule"] == pytest.approx((4 * 22 * 22 + 64 * 8 + 80) * 4.6 / 1000)
    capsys.readouterr()
    overrides = [*SMALL, f"reference={run}", "tracker=none", "device=cpu", f"runs={tmp_path}/failing"]
    assert main(["train", *overrides]) == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line.endswith("reference: it has no spiking neurons; allowed: runs of spiking networks")
