"""Every yaml file of an estimator, and every member of an ensemble, keeps the word of `estimators/base.py`."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache, partial
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from snnrobust import config, yamls
from snnrobust.attacks.gradient import ProjectedGradient, gradient
from snnrobust.attacks.losses import cross_entropy
from snnrobust.estimators.base import Estimator
from snnrobust.estimators.ensemble import Ensemble
from snnrobust.estimators.pooling import MaxPoolSubstitute
from snnrobust.estimators.strongest import Strongest
from snnrobust.estimators.surrogate import TRAINED, Surrogate
from snnrobust.models.convnet import ConvNet
from snnrobust.randomness import isolated, per_sample
from snnrobust.spiking.classifier import Classifier, Normalize, SpikingClassifier
from snnrobust.spiking.encoder import Direct, Encoder, Frames, Poisson
from snnrobust.spiking.fuse import fused
from snnrobust.spiking.neuron import IF, LIF, Neuron
from snnrobust.spiking.neurons.evolving_leak import EvolvingLeak
from snnrobust.spiking.neurons.local_feature_masking import LocalFeatureMasking
from snnrobust.spiking.neurons.noisy_lif import NoisyLIF
from snnrobust.spiking.neurons.plif import PLIF
from snnrobust.spiking.neurons.psn import PSN
from snnrobust.spiking.neurons.recurrent import Recurrent
from snnrobust.spiking.neurons.self_consistent import SelfConsistent
from snnrobust.spiking.neurons.self_prediction import SelfPrediction
from snnrobust.spiking.neurons.stochastic_gates import StochasticGates
from snnrobust.spiking.neurons.trainable_threshold import TrainableThreshold
from snnrobust.spiking.surrogate import triangle
from snnrobust.threat import Bounds, Linf
from tests.contracts.toys import Toy, assert_same, state_of

STEPS = 4
CODES: dict[str, Callable[[int], Encoder]] = {"direct": Direct, "frames": Frames, "poisson": Poisson}


def around(wrapper: Callable[..., torch.nn.Module], surrogate: Any, **settings: Any) -> torch.nn.Module:
    """Integrate-and-fire neurons within another module."""
    return wrapper(partial(LIF, surrogate), **settings)


NEURONS: dict[str, Callable[..., torch.nn.Module]] = {
    "lif": partial(LIF, tau=2.0),
    "if": partial(IF, threshold=0.8),
    "soft": partial(LIF, tau=2.0, reset="soft"),
    "plif": partial(PLIF, threshold=0.4),
    "threshold": TrainableThreshold,
    "leak": EvolvingLeak,
    "noisy": partial(NoisyLIF, when="always"),
    "self": Recurrent,
    "lateral": partial(Recurrent, connections="lateral", tau=None, reset="soft"),
    "psn": PSN,
    "prediction": SelfPrediction,
    "consistent": partial(around, SelfConsistent),
    "gates": partial(around, StochasticGates, probability=0.7),
    "masked": partial(around, LocalFeatureMasking),
}
LEARNING = (Neuron, StochasticGates, SelfConsistent)
Network = tuple[str, str, Literal["avg", "max"]]
NETWORKS: list[Network] = [  # every pair of a code, a neuron and a pooling
    ("direct", "lif", "avg"),
    ("direct", "if", "max"),
    ("frames", "lif", "max"),
    ("frames", "if", "avg"),
    ("poisson", "lif", "max"),
]
FURTHER: list[Network] = [("direct", neuron, "avg") for neuron in NEURONS if neuron not in ("lif", "if")]
KINDS = ("trained", "sigmoid", "bptr", "rate", "hart", "pdsg", "assg", "analog", "mixed")
"""One estimator of every kind, for further neurons."""
WITHOUT_MEMBRANE = ("trained", "sigmoid", "pdsg", "assg")
"""Those of them that apply to neurons without a membrane."""

STEMS = yamls.groups()["estimator"]


@cache
def nodes() -> dict[str, Any]:
    """Every file, composed; at once, since that takes a while, as candidates of one estimator."""
    settings = ["estimator=strongest", *(f"+estimator@estimator.candidates.file_{stem}={stem}" for stem in STEMS)]
    found: dict[str, Any] = config.compose("config", settings).config["estimator"]["candidates"]
    return found


def built(stem: str) -> Estimator:
    estimator: Estimator = config.instantiate("estimator", nodes()[f"file_{stem}"])
    return estimator


FILES = {stem: built(stem) for stem in STEMS}
PLAIN = [stem for stem, estimator in FILES.items() if not isinstance(estimator, Ensemble | Strongest)]
SINGLE: dict[Estimator, str] = {FILES[stem]: stem for stem in PLAIN}
for stem, one in FILES.items():
    members = one.candidates if isinstance(one, Strongest) else one.members()
    for name, member in members.items():
        SINGLE.setdefault(member, f"{stem}/{name}")
CASES = [
    pytest.param(estimator, network, id="-".join([name, *network]))
    for estimator, name in SINGLE.items()
    # Members that only ensembles have are other widths of the same derivatives: one network will do.
    for network in (NETWORKS if name in PLAIN else NETWORKS[:1])
    if not isinstance(estimator, MaxPoolSubstitute) or "max" in network
] + [
    pytest.param(FILES[stem], network, id="-".join([stem, *network]))
    for network in FURTHER
    for stem in (WITHOUT_MEMBRANE if "psn" in network else KINDS)
]
every_case = pytest.mark.parametrize(("estimator", "network"), CASES)


@cache
def trained(network: Network, steps: int) -> SpikingClassifier:
    """A tiny classifier in eval mode in which neurons of both layers fire, and some do not."""
    code, neuron, pool = network
    channels = 2 if code == "frames" else 1
    settings = {"surrogate": triangle()} | ({"steps": steps} if neuron == "psn" else {})
    with isolated("estimators", *network):
        factory = partial(NEURONS[neuron], **settings)
        backbone = ConvNet((channels, 8, 8), 4, factory, channels=(4,), hidden=8, pool=pool)
        normalize = Normalize((0.5,) * channels, (0.3,) * channels)
        model = SpikingClassifier(backbone, CODES[code](steps), normalize, Bounds())
        with torch.no_grad():
            for _ in range(20):
                model(torch.rand(32, *((steps, 2) if code == "frames" else (1,)), 8, 8))
            hidden = backbone.classifier[1]
            assert isinstance(hidden, torch.nn.Linear)
            hidden.weight.mul_(8)
            for learned in (p for m in model.modules() if isinstance(m, LEARNING) for p in m.parameters()):
                learned.add_(0.2 * torch.randn_like(learned))
    return model.eval()


def model_of(network: Network, steps: int = STEPS) -> SpikingClassifier:
    return deepcopy(trained(network, steps))


def inputs(network: Network, number: int = 6, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = (steps, 2, 8, 8) if network[0] == "frames" else (1, 8, 8)
    return torch.rand(number, *shape, generator=generator), torch.arange(number) % 4


def differentiated(view: Classifier, x: Tensor, y: Tensor, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Gradient and logits; draws belong to samples and begin anew."""
    with per_sample(torch.arange(len(x)) if index is None else index, "draws"):
        return gradient(view, x, y, cross_entropy)


def under(estimator: Estimator, model: Classifier, x: Tensor, y: Tensor, index: Tensor | None = None) -> Tensor:
    with estimator.applied(model) as view:
        return differentiated(view, x, y, index)[0]


def attributes(model: torch.nn.Module) -> dict[str, object]:
    """What hangs on every module, by name: which objects, and which functions are called."""
    found = {f"{name}.{key}": value for name, module in model.named_modules() for key, value in vars(module).items()}
    return {name: id(value) for name, value in found.items() if value is not None}


def snapshot(model: torch.nn.Module) -> dict[str, object]:
    return state_of(model) | attributes(model)


@every_case
def test_logits_are_those_of_the_model_bit_for_bit(estimator, network):
    model, (x, y) = model_of(network), inputs(network)
    with torch.no_grad(), per_sample(torch.arange(len(x)), "draws"):
        expected = model(x)
    with estimator.applied(model) as view:
        with torch.no_grad(), per_sample(torch.arange(len(x)), "draws"):
            assert torch.equal(view(x), expected)
        assert torch.equal(differentiated(view, x, y)[1], expected)
        assert (view.bounds, view.stochastic) == (model.bounds, model.stochastic)


@every_case
def test_the_gradient_is_finite_and_not_nothing(estimator, network):
    x, y = inputs(network)
    found = under(estimator, model_of(network), x, y)
    assert found.shape == x.shape
    assert found.dtype == x.dtype
    assert found.isfinite().all()
    assert (found.flatten(1) != 0).any(1).float().mean() >= 0.5


@every_case
def test_the_model_is_left_as_it_was(estimator, network):
    model, (x, y) = model_of(network), inputs(network)
    before = snapshot(model)
    with estimator.applied(model) as view:
        differentiated(view, x, y)
    assert_same(before, snapshot(model))
    with pytest.raises(IndexError), estimator.applied(model) as view:
        differentiated(view, x, y + 99)  # no such class
    assert_same(before, snapshot(model))


@every_case
def test_contexts_may_be_nested(estimator, network):
    model, (x, y), other = model_of(network), inputs(network), Surrogate(triangle(0.7))
    # Substituted pooling and the rule of a neuron do not exclude each other.
    both = replace(estimator, estimator=other) if isinstance(estimator, MaxPoolSubstitute) else other
    expected = under(estimator, model, x, y)
    with estimator.applied(model) as view:
        assert torch.equal(under(other, model, x, y), under(both, model, x, y))
        assert torch.equal(differentiated(view, x, y)[0], expected)
    with other.applied(model) as view:
        assert torch.equal(under(estimator, model, x, y), expected)
        assert torch.equal(differentiated(view, x, y)[0], under(other, model, x, y))


@every_case
def test_the_gradient_does_not_depend_on_the_batch_in_double_precision(estimator, network):
    model, (x, y) = model_of(network).double(), inputs(network)
    x, index = x.double(), torch.tensor([5, 3, 17, 0, 100, 8])
    whole = under(estimator, model, x, y, index)
    assert whole.dtype == torch.float64
    parts = [under(estimator, model, x[part], y[part], index[part]) for part in torch.arange(6).split([1, 3, 2])]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-12 * float(whole.abs().max()), rtol=0)


@every_case
def test_the_fused_network_has_the_same_gradient_and_decisions(estimator, network):
    model, (x, y) = model_of(network), inputs(network)
    with estimator.applied(model) as view:
        expected, logits = differentiated(view, x, y)
    with estimator.applied(fused(model)) as view:
        found, fused_logits = differentiated(view, x, y)
    assert torch.equal(fused_logits.argmax(1), logits.argmax(1))
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@every_case
def test_half_precision(estimator, network):
    """Of the fused network; the logits are the same under all estimators."""
    model, (x, y) = fused(model_of(network), torch.bfloat16), inputs(network)
    with TRAINED.applied(model) as view:
        _, expected = differentiated(view, x, y)
    with estimator.applied(model) as view:
        found, logits = differentiated(view, x, y)
    assert torch.equal(logits, expected)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert found.any()


@every_case
def test_one_sample_and_one_step(estimator, network):
    model, (x, y) = model_of(network, steps=1), inputs(network, number=1, steps=1)
    found = under(estimator, model, x, y)
    assert found.shape == x.shape
    assert found.isfinite().all()


@pytest.mark.parametrize("estimator", SINGLE, ids=SINGLE.values())
def test_models_without_fitting_layers_are_refused(estimator):
    """The trained gradient fits every model."""
    if estimator == TRAINED:
        toy = Toy(4)
        with estimator.applied(toy) as view:
            assert view is toy
        return
    with pytest.raises(ValueError, match=r"^estimator: .* Toy has none; allowed: "), estimator.applied(Toy(4)):
        pass


@pytest.mark.parametrize("stem", sorted({*KINDS} - {*WITHOUT_MEMBRANE}))
def test_estimators_of_membranes_refuse_neurons_without_one(stem):
    model = model_of(("direct", "psn", "avg"))
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"^estimator: \w+ is .* PSN .*; allowed: "), FILES[stem].applied(model):
        pass
    assert_same(before, snapshot(model))


@pytest.mark.parametrize("stem", PLAIN)
def test_equal_settings_are_equal_estimators(stem):
    """Attacks are grouped by their settings."""
    one, other = (ProjectedGradient(Linf(0.1), estimator=built(stem)).family() for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(("stem", "size"), [("four", 4), ("nineteen", 19), ("all", 15)])
def test_ensembles_have_distinct_members_with_plain_names(stem, size):
    members = FILES[stem].members()
    assert len(members) == len(set(members.values())) == size
    assert all(name.isidentifier() for name in members)
    assert next(iter(members)) == "triangle_1"
