"""Two calls in Python: `evaluate` any model, `load` a trained one."""

import doctest
import shutil
from typing import Any

import pytest
import torch
import yaml
from spikingjelly.activation_based import neuron
from torch import nn

import snnrobust
from snnrobust import api, evaluate, flags, load
from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.attacks.noise import GaussianNoise, UniformNoise
from snnrobust.cli import main
from snnrobust.estimators.strongest import Strongest
from snnrobust.estimators.surrogate import TRAINED, Surrogate
from snnrobust.evaluation.checks import checks_of
from snnrobust.evaluation.outcomes import ROBUST
from snnrobust.spiking.surrogate import rectangle
from snnrobust.threat import L2, Bounds, Linf
from snnrobust.training.checkpoint import CheckpointError
from tests.contracts.toys import Flat, Linear, Toy, assert_same, disturb, state_of, streams

PIXELS = 64
FEW = {"fgsm": ProjectedGradient(Linf(0.1), steps=1, start="input"), "pgd": ProjectedGradient(Linf(0.1), steps=3)}


class Rates(nn.Module):
    """A network of SpikingJelly whose neurons nobody resets."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        hidden = nn.Linear(PIXELS, 32)
        fire = neuron.LIFNode(tau=20.0, decay_input=False)
        self.net = nn.Sequential(nn.Flatten(), hidden, fire, nn.Linear(32, 4))
        with torch.no_grad():
            hidden.weight.mul_(2)

    def forward(self, x):
        return torch.stack([self.net(x) for _ in range(2)]).mean(0)


def data(n=24, low=0.0, high=1.0):
    generator = torch.Generator().manual_seed(1)
    x = low + (high - low) * torch.rand(n, 1, 8, 8, generator=generator)
    return x, torch.randint(4, (n,), generator=generator)


def labelled(model, x):
    """Classes that the model gives these inputs, so that there is something to lose."""
    with torch.no_grad():
        return model.eval()(x).argmax(1)


def test_the_example_of_the_docstring_runs():
    runner = doctest.DocTestRunner(verbose=False)
    (example,) = doctest.DocTestFinder().find(api.evaluate, "evaluate", globs={})
    assert runner.run(example).failed == 0
    assert len(example.examples) > 3


def test_the_package_has_these_two_names():
    assert (snnrobust.evaluate, snnrobust.load) == (api.evaluate, api.load)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        snnrobust.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_stale_state_changes_the_naive_accuracy_and_not_ours():
    x, _ = data(64)
    y = labelled(Rates(), x)
    model = Rates()
    report = evaluate(model, x, y, attacks=FEW)
    assert report.metrics()["clean_accuracy"] == 1
    with torch.no_grad():
        model(x)
        naive = (model(x).argmax(1) == y).float().mean()
    assert naive < 0.8
    again = evaluate(model, x, y, attacks=FEW)  # though a membrane of 64 samples is left in it by now
    assert all(torch.equal(report.outcomes[name], again.outcomes[name]) for name in report.outcomes)
    assert 0 < report.metrics()["pgd_accuracy"] < 1


def test_results_do_not_depend_on_the_size_of_batches():
    x, _ = data(24)
    y = labelled(Rates(), x)
    found = [evaluate(Rates(), x, y, attacks=FEW, batch_size=size).outcomes for size in (24, 7, 1)]
    assert all(torch.equal(found[0][name], other[name]) for name in found[0] for other in found[1:])


def test_a_model_and_the_streams_are_left_as_they_were():
    model: Any = Toy(PIXELS)
    model.history = [torch.zeros(2)]
    disturb(model)
    x, y = data()
    attributes, before, around = dict(vars(model)), state_of(model), streams()
    evaluate(model, x, y, threat=0.1)
    assert_same(before, state_of(model))
    assert_same(around, streams())
    assert vars(model).keys() == attributes.keys()
    assert all(vars(model)[name] is value for name, value in attributes.items())


def test_a_number_is_an_l_inf_budget_and_the_quick_attacks_are_run():
    x, _ = data()
    model = Toy(PIXELS)
    report = evaluate(model, x, labelled(model, x), threat=8 / 255)
    assert report.attacks == ("uniform_noise", "fgsm", "pgd", "apgd", "square")
    assert set(report.inside) == set(report.attacks)
    metrics = report.metrics()
    assert metrics["worst_accuracy"] <= metrics["apgd_accuracy"] < metrics["clean_accuracy"] == 1
    assert max(report.excess.values()) < 1e-6


@pytest.mark.parametrize("size", [1, 5])
def test_vectors_doubles_and_l_2_do(size):
    weight = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.double)
    model = Linear(weight, torch.tensor([0.0, 0.5], dtype=torch.double))
    x = torch.tensor([[0.95, 0.5, 0.5], [0.65, 0.5, 0.5]], dtype=torch.double)
    report = evaluate(model, x, torch.tensor([0, 0]), threat=L2(0.3), batch_size=size)
    assert report.outcomes["pgd"].tolist() == report.outcomes["apgd"].tolist() == [1, 0]  # margins 0.45 and 0.15
    assert "square" not in report.outcomes


def test_other_bounds_hold():
    x, y = data(low=-1.0, high=2.0)
    seen = []

    class Watching(Toy):
        def forward(self, x):
            seen.append((x.min().item(), x.max().item()))
            return super().forward(x)

    evaluate(Watching(PIXELS), x, y, threat=0.5, bounds=(-1, 2))
    assert min(low for low, _ in seen) == -1
    assert max(high for _, high in seen) == 2


def test_own_classifiers_are_evaluated_as_they_are(make_tiny):
    x, _ = data()
    model = make_tiny()
    y = labelled(model, x)
    wide = {"pgd": ProjectedGradient(Linf(0.1), Surrogate(rectangle(2.0)), steps=3)}
    report = evaluate(model, x, y, attacks=wide)
    assert "firing_rate" in report.measures
    wrapped = evaluate(nn.Sequential(model), x, y, attacks=wide)  # by the same neurons, without the fast path
    assert torch.equal(report.outcomes["pgd"], wrapped.outcomes["pgd"])
    with pytest.raises(ValueError, match=r"estimator: .* has none; allowed: trained"):
        evaluate(Toy(PIXELS), x, y, attacks=wide)


def test_the_strongest_estimators_are_chosen_on_other_data(make_tiny):
    x, _ = data()
    model = make_tiny()
    wanted = Strongest({"trained": TRAINED, "wide": Surrogate(rectangle(2.0))}, keep=1)
    attacks = {"pgd": ProjectedGradient(Linf(0.1), wanted, steps=2)}
    y = labelled(model, x)
    report = evaluate(model, x[:12], y[:12], attacks=attacks, estimator=wanted, validation=(x[12:], y[12:]))
    assert report.selection is not None
    with pytest.raises(ValueError, match="validation data"):
        evaluate(model, x, y, attacks=attacks)


def test_a_stochastic_model_is_judged_by_several_draws():
    class Drawing(Toy):
        def forward(self, x):
            return super().forward(x) + torch.randn(len(x), 4)

    x, y = data()
    with pytest.raises(ValueError, match="stochastic=True"):
        evaluate(Drawing(PIXELS), x, y, attacks=FEW)
    few, many = (evaluate(Drawing(PIXELS), x, y, attacks=FEW, stochastic=True, draws=n) for n in (1, 20))
    assert int((many.outcomes["clean"] == ROBUST).sum()) < int((few.outcomes["clean"] == ROBUST).sum())


def test_probabilities_cost_a_warning():
    x, y = data()
    with pytest.warns(UserWarning, match="look like probabilities"):
        evaluate(nn.Sequential(Toy(PIXELS), nn.Softmax(1)), x, y, attacks=FEW)


X, Y = data(6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"threat": None}, "threat: missing; allowed: a number"),
        ({"threat": -0.1}, "threat: got -0.1; allowed: 0 to 1, the range"),
        ({"threat": 8}, "threat: got 8; allowed: 0 to 1, the range, such as 8 / 255"),
        ({"x": (255 * X).byte()}, "x, y: got inputs of torch.uint8; allowed: floats"),
        ({"x": X + 1}, r"x, y: got inputs in \[1.*allowed: \[0, 1\], the bounds"),
        ({"x": X.where(X < 0.9, torch.nan)}, r"x, y: got inputs in \[nan, nan\]"),
        ({"y": Y[:5]}, "x, y: got 6 inputs and classes torch.int64 .5.; allowed"),
        ({"y": Y.float()}, "x, y: got 6 inputs and classes torch.float32"),
        ({"x": X[:0], "y": Y[:0]}, "at least one input"),
        ({"y": Y - 1}, "one class number from 0"),
        (
            {"y": Y.where(torch.arange(6) < 5, 4), "batch_size": 2},
            "model: got logits .2, 4. for 2 inputs and labels up to 4",
        ),
        ({"model": lambda x: x}, "model: got function; allowed: a torch.nn.Module"),
        ({"attacks": {"noise": GaussianNoise(0.1)}, "threat": None}, "threat: missing"),
        (
            {"attacks": {"a": UniformNoise(Linf(0.1)), "b": UniformNoise(L2(0.2))}, "threat": None},
            "attacks of which one's contains all",
        ),
    ],
)
def test_what_does_not_fit_together_is_one_line(arguments, said):
    given = {"model": Toy(PIXELS), "x": X, "y": Y, "threat": 0.1} | arguments
    model, x, y = (given.pop(name) for name in ("model", "x", "y"))
    with pytest.raises(ValueError, match=said) as error:
        evaluate(model, x, y, **given)
    assert "\n" not in str(error.value)


# --- load


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run directory."""
    runs = tmp_path_factory.mktemp("runs")
    small = ("training=debug", "model.channels=[4]", "model.hidden=8", "encoder.steps=2", "regularizer=none")
    assert main(["train", *small, "attacks.pgd.steps=1", "tracker=none", "device=cpu", f"runs={runs}"]) == 0
    return next(runs.glob("*/checkpoint.pt")).parent


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copied")


def test_a_run_is_the_classifier_that_it_trained(trained):
    model = load(trained)
    assert not model.training
    assert model.bounds == Bounds(0.0, 1.0)
    state = torch.load(trained / "checkpoint.pt", weights_only=True)["state"]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(model(x), load(trained / "checkpoint.pt")(x))


def test_what_was_recorded_is_found_again(trained):
    from snnrobust.data.digits import Digits

    test = Digits().load().test
    batch = test.batch(torch.arange(len(test)))
    with torch.no_grad():
        accuracy = int((load(trained)(batch.x).argmax(1) == batch.y).sum()) / len(test)
    recorded = yaml.safe_load((trained / "results.json").read_text())["metrics"]["clean_accuracy"]
    assert accuracy == recorded


def broken(run, name, change):
    path = run / name
    if change is None:
        path.unlink()
    elif isinstance(change, bytes):
        path.write_bytes(change)
    else:
        config = yaml.safe_load(path.read_text())
        change(config)
        path.write_text(yaml.safe_dump(config))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("checkpoint.pt", None, "allowed: a run directory with checkpoint.pt, or that file"),
        ("checkpoint.pt", b"no weights", "not a checkpoint of snnrobust, or damaged"),
        ("config.yaml", None, "config.yaml must lie beside it"),
        ("config.yaml", b"- a: [", "config.yaml must lie beside it"),
        ("config.yaml", b"\xff\xfe", "config.yaml must lie beside it"),
        ("config.yaml", b"a: 1", "config.yaml is not the config of a run"),
        ("config.yaml", lambda c: c["model"].update(hidden=16), "weights of training"),
        ("config.yaml", lambda c: c["model"].update(hidden=0), "model.hidden: got 0; allowed: "),
        ("config.yaml", lambda c: c["model"].update(_target_="os.system"), "model._target_: got 'os.system'; allowed"),
        (
            "config.yaml",
            lambda c: c["neuron"].update(surrogate={"_target_": "torch.load", "f": "evil.pt", "weights_only": False}),
            "neuron.surrogate._target_: got 'torch.load'",
        ),
    ],
)
def test_a_run_that_cannot_be_used_is_one_line(run, name, change, said):
    broken(run, name, change)
    with pytest.raises(CheckpointError) as error:
        load(run)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not isinstance(error.value.__cause__, FileNotFoundError)


def test_there_is_nothing_in_an_empty_folder(tmp_path):
    with pytest.raises(CheckpointError, match="allowed: a run directory"):
        load(tmp_path)


def test_flags_are_those_of_the_record():
    x, model = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)), Flat(64).eval()
    report = evaluate(model, x, model(x).argmax(1), threat=0.1)
    assert flags(report) == tuple(checks_of(report).flags)
    assert "vanished_gradient" in {flag.name for flag in flags(report)}
