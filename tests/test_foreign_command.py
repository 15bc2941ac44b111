"""`snnrobust evaluate model._target_=package.Net checkpoint=FILE`, from the command line to the files."""

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from snnrobust.cli import main
from snnrobust.data.digits import Digits
from snnrobust.foreign import Foreign

PACKAGE = '''
"""A network of somebody else: SpikingJelly, one step after another, never reset."""

import torch
from spikingjelly.activation_based import neuron
from torch import nn


class Net(nn.Module):
    def __init__(self, width: int, outputs: str = "logits", sizes: tuple[int, ...] = (10,)):
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(64, width), neuron.LIFNode(tau=2.0, decay_input=False), nn.Linear(width, *sizes)
        )
        self.outputs = outputs

    def forward(self, x):
        logits = torch.stack([self.net(x) for _ in range(4)]).mean(0)
        if self.outputs == "draws":
            logits = logits + 0.3 * torch.randn_like(logits)
        if self.outputs == "broken":
            raise RuntimeError("it broke")
        return logits.softmax(1) if self.outputs == "probabilities" else logits


def stateless(width):
    """Loads what it needs by itself."""
    net = Net(width)
    net.load_state_dict(torch.load("weights.pt", weights_only=True)["state_dict"])
    return net


def number():
    return 3
'''
SETTINGS = ("tracker=none", "device=cpu", "~attacks.gaussian_noise", "attacks.pgd.steps=3")
NET = ("evaluate", "model._target_=alien.nets.Net", "checkpoint=weights.pt", "+model.width=32", *SETTINGS)
FILES = {
    "config.yaml",
    "overrides.yaml",
    "run.log",
    "results.json",
    "outcomes.npz",
    "gradients.npz",
    ".lock",
    ".evaluation.lock",
}


def trained(width, seed=0):
    """The network, and its accuracy on the test digits; fitted for a second."""
    digits = Digits().load()
    x, y = digits.train.values / 16, digits.train.labels
    torch.manual_seed(seed)
    net = import_module("alien.nets").Net(width)
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(60):
        model = Foreign(net)
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        batch = digits.test.batch(torch.arange(len(digits.test)))
        return net, int((Foreign(net)(batch.x).argmax(1) == batch.y).sum()) / len(digits.test)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with somebody's package and weights, the current one while the tests run."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "alien").mkdir()
    (folder / "alien" / "nets.py").write_text(PACKAGE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        net, accuracy = trained(32)
        torch.save({"state_dict": net.state_dict(), "epoch": 60}, "weights.pt")
        (folder / "accuracy").write_text(repr(accuracy))
        yield folder
        for name in [name for name in sys.modules if name.partition(".")[0] == "alien"]:
            del sys.modules[name]


def command(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([*arguments])
    return status, out.getvalue(), err.getvalue()


def done(*arguments):
    status, out, err = command(*arguments)
    assert status == 0, err
    return out, err


def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def run(place):
    """Its first evaluation, by the command as it is typed; tests read it."""
    arguments = [sys.executable, "-m", "snnrobust", *NET, "runs=first"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    there = subprocess.run(arguments, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert (there.returncode, there.stderr) == (0, "")
    (found,) = Path("first").iterdir()
    return found


def test_a_run_of_a_foreign_model_leaves_these_files(run):
    assert {path.name for path in run.iterdir()} == FILES


def test_it_measures_what_the_model_does_when_every_forward_is_the_first(run, place):
    content = results(run)
    accuracy = float((place / "accuracy").read_text())
    assert content["metrics"]["clean_accuracy"] == accuracy > 0.85
    assert 0 < content["metrics"]["pgd_accuracy"] < accuracy - 0.1
    with np.load(run / "outcomes.npz") as outcomes:
        assert set(outcomes) == {"clean", "uniform_noise", "fgsm", "pgd"}
        assert int(outcomes["clean"].sum()) / 359 == accuracy


def test_its_record_says_where_it_came_from(run):
    content = results(run)
    digest = hashlib.sha256(Path("weights.pt").read_bytes()).hexdigest()
    assert content["config"]["weights"] == {"path": "weights.pt", "sha256": digest}
    assert content["training"]["weights"]["sha256"] == digest
    assert content["training"]["cautions"] == []
    assert content["choices"]["model"] == "Net"
    assert content["training_signature"] == run.name
    assert not {"regularizer", "training", "neuron", "encoder"} & content["config"].keys()
    overrides = yaml.safe_load((run / "overrides.yaml").read_text())
    assert {"model._target_=alien.nets.Net", "checkpoint=weights.pt", "+model.width=32"} <= set(overrides)


def test_what_is_there_is_shown_without_torch(run):
    code = "import sys; from snnrobust.cli import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    again = subprocess.run(
        [sys.executable, "-c", code, *NET, "runs=first"], capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert "recorded earlier" in again.stdout


def test_other_attacks_land_inside_and_other_weights_elsewhere(run, tmp_path):
    done(*NET, f"runs={tmp_path}")
    done(*NET, f"runs={tmp_path}", "threat.eps=0.2")
    (inside,) = tmp_path.glob("*/*/results.json")
    assert inside.parent.parent.name == run.name
    assert results(inside.parent)["metrics"]["pgd_accuracy"] < results(run)["metrics"]["pgd_accuracy"]
    net, accuracy = trained(32, seed=1)
    torch.save(net.state_dict(), tmp_path / "others.pt")
    done(*(a for a in NET if "checkpoint" not in a), f"checkpoint={tmp_path}/others.pt", f"runs={tmp_path}")
    (other,) = [path.parent for path in tmp_path.glob("*/results.json") if path.parent.name != run.name]
    assert results(other)["metrics"]["clean_accuracy"] == accuracy


def test_a_sweep_and_a_report(tmp_path):
    out, _ = done(*NET, "-m", "threat.eps=0.05,0.1", f"runs={tmp_path}/runs")
    assert "2 runs: 2 done, 0 failed" in out
    done("report", f"{tmp_path}/runs", "--out", f"{tmp_path}/report")
    rows = [line.split("|") for line in (tmp_path / "report" / "table.md").read_text().splitlines() if "|" in line]
    assert [row[1].strip() for row in rows if ":" not in row[1]] == ["threat.eps", "0.05", "0.1"]
    assert "dataset digits, model Net, threat linf" in (tmp_path / "report" / "index.html").read_text()


def test_a_model_that_loads_its_weights_itself_is_never_taken_from_the_record(run, tmp_path):
    own = ("evaluate", "model._target_=alien.nets.stateless", "+model.width=32", "checkpoint=null", *SETTINGS)
    done(*own, f"runs={tmp_path}")
    (found,) = tmp_path.glob("*/results.json")
    assert results(found.parent)["metrics"] == results(run)["metrics"]
    before = found.stat().st_mtime_ns
    out, _ = done(*own, f"runs={tmp_path}")
    assert "recorded earlier" not in out
    assert found.stat().st_mtime_ns > before


def test_a_model_that_draws_is_judged_by_several_forwards(tmp_path):
    done(*NET, "+model.outputs=draws", "stochastic=true", "evaluation.draws=3", f"runs={tmp_path}")
    (found,) = tmp_path.glob("*/results.json")
    assert (
        results(found.parent)["metrics"]["clean_majority_accuracy"] > results(found.parent)["metrics"]["clean_accuracy"]
    )


def test_probabilities_cost_a_warning_that_is_recorded(tmp_path):
    _, err = done(*NET, "+model.outputs=probabilities", f"runs={tmp_path}")
    (line,) = err.splitlines()
    assert line.startswith("warning: model: its outputs look like probabilities")
    (found,) = tmp_path.glob("*/results.json")
    assert results(found.parent)["training"]["cautions"] == [line.removeprefix("warning: ")]


def test_weights_cannot_run_code(tmp_path):
    class Payload:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    torch.save({"net.1.weight": Payload()}, tmp_path / "evil.pt")
    status, _, err = command(*NET[:2], f"checkpoint={tmp_path}/evil.pt", *NET[3:], f"runs={tmp_path}/runs")
    assert status == 1
    assert "not a file of tensors alone" in err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["+model.outputs=draws"], "stochastic=True"),
        (["+model.outputs=broken"], "model: fails on inputs of shape (256, 1, 8, 8) (RuntimeError: it broke)"),
        (["model.width=16"], "checkpoint: weights.pt: does not fit the model (size mismatch for net.1.weight"),
        (["+model.sizes=[5]"], "does not fit the model"),
        (["+model.sizes=[a]"], "model: "),
        (["model._target_=alien.nets.number", "~model.width"], "model: got int; allowed: what makes a torch.nn.Module"),
        (["estimator=triangle"], "allowed: trained"),
    ],
)
def test_what_goes_wrong_is_one_line_and_a_record(overrides, said, tmp_path):
    given = {o.lstrip("+~").partition("=")[0] for o in overrides}
    kept = [a for a in NET if a.lstrip("+").partition("=")[0] not in given]
    overrides = [f"+{o}" if o.startswith("model.width") else o for o in overrides if not o.startswith("~")]
    status, _, err = command(*kept, *overrides, f"runs={tmp_path}")
    assert status == 1
    (line,) = err.splitlines()
    assert said in line
    (record,) = tmp_path.rglob("failure.json")
    assert line == f"snnrobust: {record.parent}: {json.loads(record.read_text())['error']}"
    assert not [*tmp_path.rglob("results.json")]
    assert not [*tmp_path.rglob("*.npz")]


def test_the_composed_config_can_be_printed(place):
    arguments = [sys.executable, "-m", "snnrobust", *NET, "--cfg", "job"]
    shown = subprocess.run(arguments, cwd=place, capture_output=True, text=True, check=True)
    assert yaml.safe_load(shown.stdout)["model"] == {"_target_": "alien.nets.Net", "width": 32}
