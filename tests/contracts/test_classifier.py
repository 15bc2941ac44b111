"""Every yaml file for encoder, neuron, surrogate and model gives sound classifiers: each against common partners."""

import copy
import pickle
from functools import cache
from itertools import product

import pytest
import torch
import yaml

from snnrobust import config, yamls
from snnrobust.data.dataset import Split
from snnrobust.evaluation.costs import costs
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.threat import Bounds
from tests.contracts.smaller import IMAGES, SMALLER

LIVELIER = {"plif": ("neuron.threshold=0.25",), "psn": ("neuron.threshold=0.25",)}
"""Settings of neurons that would hardly fire in a network without training."""
GROUPS = ("encoder", "neuron", "neuron/surrogate", "model")
ENCODERS, NEURONS, SURROGATES, MODELS = (yamls.groups()[group] for group in GROUPS)
# One group varies in full, against the simplest partners: what the groups do to each other goes through one interface.
CASES = sorted(
    {
        *product(ENCODERS, ["lif", "if"], ["triangle"], ["convnet"]),
        *product(["direct", "frames"], NEURONS, ["triangle"], ["convnet"]),
        *product(["direct"], ["lif"], SURROGATES, ["convnet"]),
        *product(["direct", "frames"], ["lif"], ["triangle"], MODELS),
    }
)


def place_of_surrogate(neuron: str) -> str | None:
    """The group that chooses the surrogate: of the neuron itself, or of the neurons inside; None without spikes."""
    defaults = yaml.safe_load((yamls.folder() / "neuron" / f"{neuron}.yaml").read_text()).get("defaults", ())
    groups = {group for entry in defaults if isinstance(entry, dict) for group in entry}
    inside = "neuron/surrogate@neuron.neuron.surrogate" if "/neuron@neuron" in groups else None
    return "neuron/surrogate" if "surrogate" in groups else inside


def kind(encoder: str) -> str:
    return str(yaml.safe_load((yamls.folder() / "encoder" / f"{encoder}.yaml").read_text())["kind"])


@cache
def composed(encoder: str, neuron: str, surrogate: str, model: str) -> config.Composed:
    groups = ("encoder", "neuron", place_of_surrogate(neuron), "model")
    choices = [f"{g}={choice}" for g, choice in zip(groups, (encoder, neuron, surrogate, model), strict=True) if g]
    dataset = IMAGES.get(model, "digits") if kind(encoder) == "images" else "digits_events"
    settings = [
        *choices,
        *SMALLER.get(model, ()),
        *LIVELIER.get(neuron, ()),
        "regularizer=none",
        "tracker=none",
        "device=cpu",
    ]
    return config.compose("config", [f"dataset={dataset}", *settings])


@cache
def prepared(case: tuple[str, str, str, str], steps: int) -> tuple[SpikingClassifier, torch.Tensor]:
    """A classifier in double precision whose layers all fire, with warmed-up batch norm, and six random inputs."""
    content = copy.deepcopy(dict(composed(*case).config))
    for node in (content["encoder"], content["dataset"], content["neuron"]):
        if "steps" in node:
            node["steps"] = steps
    experiment, _ = config.build(content)
    classifier = experiment.classifier().double()
    torch.manual_seed(0)
    x = torch.rand(6, *experiment.dataset.shape, dtype=torch.float64)
    with torch.no_grad():
        for module in classifier.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.BatchNorm2d):
                module.weight.mul_(4)
        for _ in range(30):
            classifier.train()(x)
    return classifier.eval(), x


@pytest.fixture(params=CASES, ids=["-".join(case) for case in CASES])
def case(request) -> tuple[str, str, str, str]:
    return request.param


@pytest.fixture
def built(case) -> tuple[SpikingClassifier, torch.Tensor]:
    classifier, x = prepared(case, steps=4)
    return copy.deepcopy(classifier), x


def logits_of(classifier: SpikingClassifier, x: torch.Tensor) -> torch.Tensor:
    """With the draws of a stochastic code fixed."""
    torch.manual_seed(7)
    logits: torch.Tensor = classifier(x).detach()
    return logits


def test_logits_have_one_row_per_sample_and_one_column_per_class(built):
    classifier, x = built
    logits = classifier(x)
    assert logits.shape == (6, 10)
    assert logits.isfinite().all()
    assert len(logits.unique(dim=0)) == 6
    assert isinstance(classifier.bounds, Bounds)


def test_logits_do_not_depend_on_what_ran_before(built):
    classifier, x = built
    first = logits_of(classifier, x)
    assert torch.equal(logits_of(classifier, x), first)
    classifier(x[:2].flip(-1)).sum().backward()
    assert torch.equal(logits_of(classifier, x), first)


def test_logits_do_not_depend_on_the_neighbours(built):
    classifier, x = built
    with torch.no_grad():
        torch.manual_seed(3)
        sequence = classifier.encoder(x if classifier.encoder.raw else classifier.normalize(x))
        whole = classifier.backbone(sequence).mean(0)
        for k in (1, 4):
            part = classifier.backbone(sequence[:, :k]).mean(0)
            torch.testing.assert_close(part, whole[:k], atol=1e-10, rtol=0)
            if not classifier.stochastic:
                torch.testing.assert_close(classifier(x[:k]), whole[:k], atol=1e-10, rtol=0)


def test_only_a_stochastic_code_draws(built):
    classifier, x = built
    state = torch.get_rng_state()
    classifier(x)
    assert torch.equal(torch.get_rng_state(), state) != classifier.stochastic


def test_the_input_gradient_is_finite_and_not_zero(built):
    classifier, x = built
    x = x.clone().requires_grad_()
    torch.manual_seed(5)
    gradient = torch.autograd.grad(classifier(x)[:, 0].sum(), x)[0]
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def test_every_parameter_learns(built):
    classifier, x = built
    torch.manual_seed(5)
    torch.nn.functional.cross_entropy(classifier.train()(x), torch.arange(6)).backward()
    for name, parameter in classifier.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_it_can_be_copied_after_a_backward(built, copied):
    classifier, x = built
    classifier(x).sum().backward()
    assert torch.equal(logits_of(copied(classifier), x), logits_of(classifier, x))


def test_a_single_sample_is_enough(built):
    classifier, x = built
    assert classifier(x[:1]).shape == (1, 10)


def test_a_single_step_is_enough(case):
    classifier, x = prepared(case, steps=1)
    assert classifier.encoder.steps == 1
    assert classifier(x).shape == (6, 10)
    assert classifier(x[:1]).isfinite().all()


def test_costs_are_counted_and_depend_on_the_samples_alone(built):
    classifier, x = built
    data = Split(x, torch.zeros(6, dtype=torch.int64))
    found = costs(classifier, data, 6)
    assert costs(classifier, data, 4) == found
    assert found.uncounted == ()
    its = found.operations
    assert its is not None
    assert all(spikes > 0 for spikes in its.spikes.values())
    assert (its.spikes != {}) == ("energy_ratio" in found.metrics())
    assert found.metrics().get("energy_ratio", 1) == 1
    assert its.nanojoule > 0
