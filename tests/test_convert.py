"""`snnrobust convert` on the digits, from the command line to the files: small networks, one epoch a stage."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from snnrobust.spiking.synapses import densities, synapses
from tests.test_end_to_end import command, done

SMALL = (
    "experiment=digits_sparse", "model.channels=[4,8]", "model.hidden=16", "ann.training.epochs=2", "device=cpu",
    "conversion.scores.hydra=['start.training.epochs=1']", "tuned.training.epochs=1", "snn.training.epochs=1",
    "conversion.steps=4", "converted.start.steps=10", "converted.start.batches=2", "conversion.sparsity=0.8",
)  # fmt: skip


def planned(*words):
    from snnrobust.stages import plan

    return {stage.name: stage.job.home for stage in plan(words)}


def weights(home):
    return torch.load(home / "checkpoint.pt", weights_only=True)["state"]


def results(home):
    return json.loads((home / "results.json").read_text())


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def layers(home):
    """The weights of convolutions and linear layers, by name, from the file alone."""
    return {name: w for name, w in weights(home).items() if w.dim() in (2, 4)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A conversion, and its run directories by stage."""
    runs = tmp_path_factory.mktemp("runs")
    words = (*SMALL, f"runs={runs}")
    answer = done("convert", *words)
    return words, planned(*words), answer


def test_every_stage_is_a_run_and_is_reported(whole):
    _, homes, answer = whole
    assert [*homes] == ["ann", "pruned", "tuned", "converted", "dense_converted", "dense_snn", "snn"]
    for home in homes.values():
        assert {"results.json", "checkpoint.pt", "config.yaml", "overrides.yaml"} <= {p.name for p in home.iterdir()}
    lines = [line.partition(":")[0] for line in answer.out.splitlines()]
    assert [name for name in lines if name in homes] == [*homes][:-1]
    assert f"results: {homes['snn']}/results.json" in answer.out


def test_density_is_the_same_in_every_stage(whole):
    _, homes, _ = whole
    kept = {name: w != 0 for name, w in layers(homes["pruned"]).items()}
    total = sum(mask.numel() for mask in kept.values())
    assert sum(int(mask.sum()) for mask in kept.values()) == round(0.2 * total)
    for stage in ("tuned", "converted", "snn"):
        found = layers(homes[stage])
        assert all(torch.equal(found[name] != 0, mask) for name, mask in kept.items()), stage
        record = results(homes[stage])
        assert record["metrics"]["sparsity"] == 1 - round(0.2 * total) / total
        shares = {name.removesuffix(".weight"): float(mask.double().mean()) for name, mask in kept.items()}
        assert record["layers"]["density"] == pytest.approx(shares)
        assert record["training"]["start"]["densities"] == pytest.approx(shares)
    assert not any((w == 0).any() for w in layers(homes["dense_snn"]).values())


def test_stages_change_what_they_should(whole):
    _, homes, _ = whole
    ann, pruned, tuned, converted, snn = (weights(homes[n]) for n in ("ann", "pruned", "tuned", "converted", "snn"))
    for name, weight in layers(homes["pruned"]).items():
        assert torch.equal(weight, ann[name] * (weight != 0))  # what is left has the bits of the ANN
        assert not torch.equal(weight, tuned[name])
        assert torch.equal(tuned[name], converted[name])
        assert not torch.equal(tuned[name], snn[name])
    thresholds = [name for name in snn if name.endswith("threshold")]
    assert len(thresholds) == 3
    assert not any(torch.equal(converted[name], snn[name]) for name in thresholds)
    kept = [name for name, w in ann.items() if w.dim() == 1 and "running" not in name]
    assert len(kept) == 6  # weights and biases of batch norm, biases of linear layers
    assert all(pruned[name].equal(ann[name]) for name in kept)


def test_energy_is_compared_with_the_dense_conversion(whole):
    _, homes, _ = whole
    sparse, dense = results(homes["snn"]), results(homes["dense_snn"])
    ratio = dense["metrics"]["synaptic_operations"] / sparse["metrics"]["synaptic_operations"]
    assert sparse["metrics"]["energy_ratio"] == pytest.approx(ratio)
    assert sparse["config"]["reference"]["training_signature"] == dense["training_signature"]
    assert dense["metrics"]["energy_ratio"] == 1


def test_the_same_command_runs_nothing_again(whole):
    words, homes, _ = whole
    before = {path: path.stat().st_mtime_ns for home in homes.values() for path in home.iterdir()}
    again = done("convert", *words)
    assert again.out.count("recorded earlier") == len(homes)
    assert before == {path: path.stat().st_mtime_ns for home in homes.values() for path in home.iterdir()}


def test_a_run_that_is_gone_is_made_again_with_the_same_weights(whole):
    words, homes, _ = whole
    kept = {stage: weights(homes[stage]) for stage in ("tuned", "snn")}
    for home in (homes["tuned"], homes["snn"]):
        for path in home.iterdir():
            path.unlink()
    done("convert", *words)
    assert all(same(weights(homes[stage]), state) for stage, state in kept.items())


def test_a_stage_by_hand_is_the_stage_of_the_command(whole):
    words, homes, _ = whole
    shown = done("convert", *words, "--cfg", "job").out.splitlines()
    (line,) = [shown[i + 1] for i, text in enumerate(shown) if text.startswith("# tuned:")]
    assert "recorded earlier" in done(*shlex.split(line)[1:]).out
    assert str(homes["tuned"]) in done(*shlex.split(line)[1:]).out


def test_it_begins_with_a_run_and_ends_with_any_stage(whole, tmp_path):
    words, homes, _ = whole
    end = done("convert", *words, f"ann={homes['ann']}", f"runs={tmp_path}", "conversion.result=pruned").out
    (made,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert str(made) in end
    assert same(weights(made), weights(homes["pruned"]))
    begin = (f"tuned={homes['tuned']}", f"runs={tmp_path}", "conversion.result=converted")
    assert list(planned(*words, *begin)) == ["converted"]


def test_the_result_can_be_evaluated_when_its_sources_are_gone(whole, tmp_path):
    _, homes, _ = whole
    away = {stage: homes[stage].rename(tmp_path / stage) for stage in ("converted", "dense_snn", "snn")}
    try:
        out = done("evaluate", f"checkpoint={away['snn']}", "threat.eps=0.02", "reference=null").out
        assert "energy_ratio" in out
    finally:
        for stage, home in away.items():
            home.rename(homes[stage])


@pytest.mark.parametrize("result", ["static_random", "static_ann", "rewired"])
def test_baselines(whole, result):
    words, homes, _ = whole
    more = (f"conversion.result={result}", "static_random.training.epochs=1")
    done("convert", *words, *more)
    home = planned(*words, *more)[result]
    record = results(home)
    assert record["metrics"]["sparsity"] == results(homes["snn"])["metrics"]["sparsity"]
    same_places = all(torch.equal(w != 0, layers(homes["tuned"])[name] != 0) for name, w in layers(home).items())
    assert same_places == (result == "static_ann")


def test_a_sweep_goes_on_after_a_failure(tmp_path, whole):
    words, homes, _ = whole
    runs = tmp_path / "runs"
    more = (f"runs={runs}", f"ann={homes['ann']}", "conversion.result=pruned", "conversion.pruning=magnitude")
    blocked = planned(*words, *more, "conversion.sparsity=0.5")["pruned"]
    blocked.mkdir(parents=True)
    (blocked / "checkpoint.pt").write_bytes(b"no checkpoint")
    answer = command("convert", "-m", *words[:-2], words[-1], *more, "conversion.sparsity=0.5,0.7")
    assert answer.status == 1
    assert "2 conversions: 1 done, 1 failed" in answer.out
    assert f"pruned: {blocked}" in answer.err
    assert "Traceback" not in answer.err
    assert (planned(*words, *more, "conversion.sparsity=0.7")["pruned"] / "results.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--resolve"], "--resolve: allowed: -m, and --cfg job"),
        (["conversion.sparsity=0.5,0.7"], "several values need -m"),
        (["training.epochs=3"], "of which stage?"),
    ],
)
def test_mistakes_in_one_line(words, said, tmp_path):
    answer = command("convert", *SMALL, *words, f"runs={tmp_path}/none")
    assert answer.status == 2
    assert said in answer.err
    assert not (tmp_path / "none").exists()


@pytest.mark.long
@pytest.mark.parametrize("stage", ["ann", "pruned", "tuned", "converted"])
def test_a_conversion_killed_after_a_stage_ends_with_the_same_weights(whole, tmp_path, stage):
    words, homes, _ = whole
    here = (*words[:-1], f"runs={tmp_path}")
    last = planned(*here)[stage] / "results.json"
    arguments = [sys.executable, "-m", "snnrobust", "convert", *here, "tracker=none"]
    process = subprocess.Popen(arguments, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert last.exists()
    snn = planned(*here)["snn"]
    assert not (Path(snn) / "checkpoint.pt").exists()
    done("convert", *here)
    assert same(weights(snn), weights(homes["snn"]))


def test_names_of_layers_are_those_of_the_record(whole):
    _, homes, _ = whole
    from snnrobust.building import load

    found = densities(synapses(load(homes["snn"])))
    assert found == pytest.approx(results(homes["snn"])["layers"]["density"])
