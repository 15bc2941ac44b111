"""`snnrobust export`: a run as a file of each format, read back, and wrong usage in one line."""

from pathlib import Path

import nir
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from snnrobust import __version__
from snnrobust.building import load
from snnrobust.cli import main
from snnrobust.compressed import about, read, same_bits
from snnrobust.data.digits import Digits
from snnrobust.exporting.export import FORMATS, export
from snnrobust.identity import training_signature
from snnrobust.job import CHECKPOINT, CONFIG
from snnrobust.spiking.synapses import sparsity, synapses
from snnrobust.training.checkpoint import Checkpoint
from tests.unit.pruned import pruned
from tests.unit.test_export_nir import assert_equal

FEW = ("training.epochs=3", "dataset.test=0.06", "dataset.validation=0.06")
TRAIN = ("train", "tracker=none", "regularizer=none", "neuron=if", "threads=1", *FEW)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of three epochs on the digits, nine tenths of whose connections are then taken away."""
    runs = tmp_path_factory.mktemp("runs")
    assert main([*TRAIN, f"runs={runs}"]) == 0
    (home,) = runs.iterdir()
    checkpoint = Checkpoint.load(home / CHECKPOINT)
    state = pruned(load(home), 0.9).state_dict()
    Checkpoint(**{**vars(checkpoint), "state": state}).save(home / CHECKPOINT)
    return home


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy, for tests that write."""
    home = tmp_path / "run"
    home.mkdir()
    for name in (CONFIG, CHECKPOINT):
        (home / name).write_bytes((trained / name).read_bytes())
    return home


def test_sparse(run, capsys):
    assert main(["export", str(run)]) == 0
    path, model = run / "weights.sparse.safetensors", load(run)
    assert same_bits(read(path), model.state_dict())
    assert sparsity(synapses(model)) == pytest.approx(0.9, abs=0.01)
    first, second, third = capsys.readouterr().out.splitlines()
    kept = sum(int(weight.count_nonzero()) for weight in synapses(model).values())
    assert first == f"{kept:,} of 13,584 weights are not zero ({kept / 13584:.1%})"
    assert second.startswith(f"{path.stat().st_size:,} bytes, 0.19")
    assert third == f"read back, the same: {path}"


def test_safetensors(run):
    assert main(["export", str(run), "format=safetensors"]) == 0
    path = run / "weights.safetensors"
    assert same_bits(load_file(path), load(run).state_dict())
    done = export(str(run), "safetensors")
    assert done.size == done.dense == path.stat().st_size
    assert done.size > 2 * export(str(run)).size


def test_nir(run):
    assert main(["export", str(run), "format=nir"]) == 0
    found, x = nir.read(run / "network.nir"), Digits().load().test.values.float() / 16
    assert_equal(load(run), found, x)
    weight = found.nodes["classifier_1"].weight
    assert torch.equal(torch.from_numpy(weight), load(run).get_parameter("backbone.classifier.1.weight"))


def test_files_say_what_they_are(run):
    config = yaml.safe_load((run / CONFIG).read_text())
    expected = {
        "training_signature": training_signature(config), "snnrobust": __version__,
        "model": "snnrobust.models.convnet.ConvNet", "dataset": "snnrobust.data.digits.Digits",
        "encoder": "snnrobust.spiking.encoder.Direct", "neuron": "snnrobust.spiking.neuron.IF",
    }  # fmt: skip
    for name in ("sparse", "safetensors"):
        assert about(export(str(run), name).path.read_bytes()) == expected
    assert nir.read(export(str(run), "nir").path).metadata.items() > expected.items()


@pytest.mark.parametrize("name", FORMATS)
def test_to_another_place_from_the_checkpoint_itself_over_an_older_file(run, tmp_path, name, capsys):
    path = tmp_path / "my file"
    path.write_text("older")
    before = sorted(run.iterdir())
    assert main(["export", str(run / CHECKPOINT), f"out={path}", f"format={name}"]) == 0
    assert path.stat().st_size > 5000
    assert str(path) in capsys.readouterr().out
    assert sorted(run.iterdir()) == before


def test_analog_networks_have_weights_but_no_graph(trained, tmp_path, capsys):
    assert main([*TRAIN, f"runs={tmp_path}", "neuron=relu", "encoder.steps=1", "training.epochs=1"]) == 0
    (home,) = tmp_path.iterdir()
    assert main(["export", str(home)]) == 0
    capsys.readouterr()
    assert main(["export", str(home), "format=nir"]) == 2
    assert capsys.readouterr().err == (
        "snnrobust: neuron: got ReLU; allowed for nir: if, lif, plif, trainable_threshold\n"
    )
    assert not (home / "network.nir").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["RUN", "format=onnx"], "format: got onnx; allowed: sparse, safetensors, nir"),
        (["RUN", "form=nir"], "export: got form; allowed: snnrobust export RUN [format=FORMAT] [out=FILE]"),
        (["RUN", "nir"], "export: got nir; allowed: snnrobust export RUN [format=FORMAT] [out=FILE]"),
        (["RUN", "out=RUN"], "out: got RUN; allowed: a file in a folder that exists"),
        (["RUN", "out=RUN/none/x"], "out: got RUN/none/x; allowed: a file in a folder that exists"),
        (["RUN/none"], "export: got RUN/none; allowed: a run directory with checkpoint.pt, or that file"),
        (["format=nir"], "export: got format=nir; allowed: a run directory with checkpoint.pt, or that file"),
    ],
)
def test_wrong_usage_is_answered_in_one_line(run, capsys, arguments, said):
    before = sorted(run.iterdir())
    assert main(["export", *(argument.replace("RUN", str(run)) for argument in arguments)]) == 2
    asked = capsys.readouterr()
    assert asked.err == f"snnrobust: {said.replace('RUN', str(run)) if 'snnrobust export RUN' not in said else said}\n"
    assert not asked.out
    assert sorted(run.iterdir()) == before


def test_a_damaged_run_is_no_traceback(run, capsys):
    content = (run / CHECKPOINT).read_bytes()
    (run / CHECKPOINT).write_bytes(content[:-100])
    assert main(["export", str(run)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"snnrobust: {run / CHECKPOINT}: not a checkpoint")
    assert said.count("\n") == 1
    assert "force" not in said


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help(capsys, arguments):
    assert main(["export", *arguments]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said and file in said for name, (file, _) in FORMATS.items())


def test_metadata_is_where_others_look_for_it(run):
    with safe_open(export(str(run)).path, "pt") as file:
        assert [*file.metadata()] == ["snnrobust"]
