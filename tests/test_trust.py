"""Records that cannot lie, and configs that cannot run what they like."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from snnrobust import load
from snnrobust.check import check
from snnrobust.cli import main
from snnrobust.config import compose
from snnrobust.schema import ConfigError
from snnrobust.training.checkpoint import CheckpointError

QUICK = ("train", "training=debug", "tracker=none", "device=cpu", "model.channels=[4]", "model.hidden=8")


@pytest.fixture
def run(tmp_path, capsys):
    """A finished run."""
    assert main([*QUICK, f"runs={tmp_path}"]) == 0
    capsys.readouterr()
    (found,) = tmp_path.glob("*/checkpoint.pt")
    return found.parent


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_two_evaluations_of_one_training_at_once_leave_two_results_and_one_training(tmp_path):
    command = [sys.executable, "-m", "snnrobust", *QUICK, f"runs={tmp_path}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen([*command, f"threat.eps={eps}"], env=environment) for eps in (0.1, 0.2)]
    assert [process.wait(120) for process in both] == [0, 0]
    (home,) = (path.parent for path in tmp_path.glob("*/checkpoint.pt"))
    found = [results(path.parent) for path in home.rglob("results.json")]
    assert sorted(content["config"]["threat"]["eps"] for content in found) == [0.1, 0.2]
    assert len((home / "history.jsonl").read_text().splitlines()) == 1


def test_what_describes_replaced_weights_is_gone(run, tmp_path, capsys):
    assert main([*QUICK, f"runs={tmp_path}", "threat.eps=0.2"]) == 0
    assert len([*run.rglob("results.json")]) == 2
    assert main([*QUICK, f"runs={tmp_path}", "threat.eps=0.3", "force=true"]) == 0
    (left,) = run.rglob("results.json")
    assert results(left.parent)["config"]["threat"]["eps"] == 0.3


def test_a_failed_evaluation_stays_on_record_beside_a_good_one(tmp_path, capsys):
    bad = ("+attack@attacks.odd=torchattacks", "attacks.odd.name=FGSM", "attacks.odd.threat=null")
    assert main([*QUICK, f"runs={tmp_path}", *bad]) == 1
    assert "takes a budget" in capsys.readouterr().err
    assert main([*QUICK, f"runs={tmp_path}"]) == 0
    assert len([*tmp_path.rglob("failure.json")]) == 1
    assert len([*tmp_path.rglob("results.json")]) == 1


def test_a_run_that_came_from_elsewhere_cannot_load_or_write_what_it_likes(run, tmp_path, capsys):
    evil = tmp_path / "evil.pt"

    class Payload:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    torch.save(Payload(), evil)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["defence"] = {"_target_": "torch.load", "f": str(evil), "weights_only": False}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    named = ["+model.x._target_=torch.load", "+hydra.callbacks.x._target_=logging.FileHandler"]
    (run / "overrides.yaml").write_text(yaml.safe_dump([*QUICK[1:], *named]))
    assert main(["evaluate", f"checkpoint={run}", "threat.eps=0.3"]) == 2
    assert "torch.load" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_a_run_that_an_attack_is_transferred_from_runs_no_code_either(run, tmp_path, capsys):
    source = Path(shutil.copytree(run, tmp_path / "source"))
    evil = tmp_path / "evil.pt"

    class Payload:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    torch.save(Payload(), evil)
    config = yaml.safe_load((source / "config.yaml").read_text())
    config["neuron"]["surrogate"] = {"_target_": "torch.load", "f": str(evil), "weights_only": False}
    (source / "config.yaml").write_text(yaml.safe_dump(config))
    moved = ("+attack@attacks.moved=transfer", f"attacks.moved.source={source}")
    assert main(["evaluate", f"checkpoint={run}", *moved]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "neuron.surrogate._target_: got 'torch.load'" in line
    with pytest.raises(CheckpointError, match=r"torch\.load"):
        load(source)
    assert not (tmp_path / "ran").exists()


def test_a_run_cannot_pass_for_a_model_made_elsewhere(run, tmp_path, capsys):
    """Only the command itself may name a class, not the overrides that came with a run."""
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Net: ...\n")
    overrides = yaml.safe_load((run / "overrides.yaml").read_text())
    (run / "overrides.yaml").write_text(yaml.safe_dump([*overrides, "model._target_=evil.Net"]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "snnrobust", "evaluate", f"checkpoint={run}", "threat.eps=0.3"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "model._target_: got 'evil.Net'" in done.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("target", ["torch.load", "snnrobust.files.write_atomically", "snnrobust.cli.main", "os.open"])
def test_a_config_reaches_no_function_that_loads_writes_or_runs(target):
    config = {**compose("config", []).config, "defence": {"_target_": target}}
    with pytest.raises(ConfigError, match=r"defence\._target_"):
        check(config)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["+attack@attacks.worst=fgsm"], "attacks.worst"),
        (["+attack@attacks.file=fgsm"], "attacks.file"),
        (["+attack@attacks.a.b=fgsm"], "attacks.a"),
        (["+suite.headline.clean_accuracy=pgd"], "suite.headline.clean_accuracy"),
        (["suite.headline.pgd_accuracy=fgsm"], "suite.headline.pgd_accuracy"),
        (["encoder=poisson", "regularizer=gradient_sparsity"], "regularizer=none"),
    ],
)
def test_what_would_overwrite_or_falsify_a_measure_is_refused(overrides, said):
    with pytest.raises(ConfigError, match=said):
        compose("config", overrides)


def test_the_record_says_with_what_the_weights_were_made(run):
    made = results(run)["training"]
    assert set(made) == {"versions", "git", "hardware", "epochs", "resumed_at"}
    assert made["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_a_dead_network_raises_a_flag(tmp_path, capsys):
    assert main([*QUICK, f"runs={tmp_path}", "neuron.threshold=1000000", "regularizer=none"]) == 0
    (found,) = tmp_path.glob("*/results.json")
    assert [flag["name"] for flag in json.loads(found.read_text())["flags"]] == ["vanished_gradient"]


def test_one_sample_per_step_trains(tmp_path, capsys):
    few = ("dataset.validation=0.02", "dataset.test=0.95", "training.batch_size=1")
    assert main([*QUICK, f"runs={tmp_path}", *few]) == 0


def test_a_full_disk_under_a_whole_run_is_named_and_leaves_nothing_half_written(tmp_path, capsys, monkeypatch):
    import errno

    from snnrobust import files

    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_write", full)
    assert main([*QUICK, f"runs={tmp_path}"]) == 1
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert str(tmp_path) in said
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {".lock", ".evaluation.lock"}
