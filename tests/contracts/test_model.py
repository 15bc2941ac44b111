"""Every yaml file of a model, made small: it learns, is attacked, saved and loaded, fused, described, made analog."""

import copy
from dataclasses import replace
from functools import cache, partial

import pytest
import torch
from torch import nn

from snnrobust import config, yamls
from snnrobust.attacks.gradient import ProjectedGradient, gradient
from snnrobust.attacks.losses import cross_entropy
from snnrobust.data.dataset import Split, Splits
from snnrobust.describe import META, layers, memory, without_content
from snnrobust.estimators.base import Estimator
from snnrobust.estimators.pooling import MaxPoolSubstitute
from snnrobust.estimators.rate import BPTR
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.evaluation.costs import costs
from snnrobust.experiment import Experiment
from snnrobust.randomness import isolated
from snnrobust.spiking.activation import ReLU
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.fuse import fused
from snnrobust.spiking.neuron import Neuron
from snnrobust.spiking.synapses import weighted
from snnrobust.spiking.twin import twin
from snnrobust.training.checkpoint import Checkpoint
from snnrobust.training.settings import TrainingSettings
from tests.contracts.smaller import IMAGES, SMALLER
from tests.contracts.toys import assert_same, state_of

MODELS = yamls.groups()["model"]
EVENTS = {"vgg_snn", "vgg_snn_gesture", "cnn_dvs"}
"""Models for event frames; the others are tried on images."""


@cache
def experiment(model: str) -> Experiment:
    data = ["dataset=digits_events"] if model in EVENTS else [f"dataset={IMAGES.get(model, 'digits')}"]
    settings = [*data, f"model={model}", *SMALLER.get(model, ()), "encoder.steps=3", "training=debug", "threat=linf"]
    built, _ = config.build(
        config.compose("config", [*settings, "regularizer=none", "tracker=none", "device=cpu"]).config
    )
    assert isinstance(built, Experiment)
    return built


@cache
def warm(model: str) -> SpikingClassifier:
    """In eval mode; batch norm has seen some data, and layers fire."""
    classifier = experiment(model).classifier()
    x, _ = batch(model)
    with torch.no_grad(), isolated("warm", model):
        for module in classifier.modules():
            if isinstance(module, nn.Linear | nn.BatchNorm2d):
                module.weight.mul_(4)
        for _ in range(20):
            classifier(x)
    return classifier.eval()


@cache
def batch(model: str) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(1)
    return torch.rand(6, *experiment(model).dataset.shape, generator=draws), torch.arange(6)


@pytest.fixture(params=MODELS)
def model(request) -> str:
    name: str = request.param
    return name


def test_one_step_changes_every_weight(model):
    its, classifier = experiment(model), copy.deepcopy(warm(model))
    x, y = batch(model)
    before = copy.deepcopy(classifier.state_dict())
    split = Split(x, y)
    trained = its.train(classifier, Splits(split, split, split), lambda _epoch: None)
    assert trained.best.train.loss > 0
    changed = {name for name, tensor in trained.state.items() if not torch.equal(tensor, before[name])}
    weights = {name for name, parameter in classifier.named_parameters() if parameter.dim() > 1}
    assert len(weights) > 2
    assert not weights - changed


@pytest.mark.parametrize("estimator", [TRAINED, BPTR()], ids=["trained", "bptr"])
def test_an_attack_stays_within_its_budget_and_changes_nothing(model, estimator):
    classifier, (x, y) = warm(model), batch(model)
    attack = experiment(model).attacks["pgd"]
    assert isinstance(attack, ProjectedGradient)
    before = state_of(classifier)
    found = replace(attack, steps=1, start="input", estimator=estimator)(classifier, x, y)
    moved = (found - x).abs()
    assert 0 < moved.max() <= experiment(model).threat.size + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1
    assert_same(before, state_of(classifier))


def test_a_checkpoint_gives_the_same_logits_bit_for_bit(model, tmp_path):
    classifier, (x, _) = warm(model), batch(model)
    path = tmp_path / "checkpoint.pt"
    Checkpoint("1", 1, {}, {}, {}, dict(classifier.state_dict())).save(path)
    other = replace(experiment(model), seed=1).classifier().eval()
    assert not torch.equal(other(x), classifier(x))
    Checkpoint.load(path).restore(other, path)
    assert torch.equal(other(x), classifier(x))


def test_the_fused_network_is_the_same(model):
    """In double precision, so that rounding moves no potential across its threshold."""
    classifier, x = copy.deepcopy(warm(model)).double(), batch(model)[0].double()
    found = []
    for network in (classifier, fused(classifier)):
        with TRAINED.applied(network) as view:
            found.append(gradient(view, x, batch(model)[1], cross_entropy))
    for got, expected in zip(*found, strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-7)


def test_a_fused_network_keeps_batch_norm_only_where_no_weights_stand_right_before_it(model):
    kinds = [type(module) for module in fused(warm(model)).modules()]
    if model.startswith("wrn"):  # pre-activation: one per block and one at the end follow no convolution
        blocks = len([*warm(model).backbone.get_submodule("blocks").children()])
        assert sum(issubclass(kind, nn.BatchNorm2d) for kind in kinds) == blocks + 1
    else:
        assert not any(issubclass(kind, nn.BatchNorm1d | nn.BatchNorm2d) for kind in kinds)


@pytest.mark.parametrize("backward", ["average", "softmax"])
def test_max_pooling_is_substituted(model, backward):
    classifier, (x, y) = warm(model), batch(model)
    substitute = MaxPoolSubstitute(backward)
    if not any(isinstance(module, nn.MaxPool2d) for module in classifier.modules()):
        with pytest.raises(ValueError, match="max pooling"), substitute.applied(classifier):
            pass
        return
    (slope, logits), (plain, expected) = (_under(estimator, classifier, x, y) for estimator in (substitute, TRAINED))
    assert torch.equal(logits, expected)
    assert not torch.equal(slope, plain)
    assert slope.abs().max() > 0


def _under(
    estimator: Estimator, classifier: SpikingClassifier, x: torch.Tensor, y: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    with estimator.applied(classifier) as view:
        return gradient(view, x, y, cross_entropy)


def test_weights_go_to_the_analog_twin_and_back(model):
    classifier, (x, _) = warm(model), batch(model)
    analog = twin(classifier)
    kinds = [type(module) for module in analog.modules()]
    assert kinds.count(ReLU) == sum(isinstance(module, Neuron) for module in classifier.modules()) > 0
    assert not any(issubclass(kind, Neuron) for kind in kinds)
    assert not {p.data_ptr() for p in analog.parameters()} & {p.data_ptr() for p in classifier.parameters()}
    logits = analog(x)
    assert logits.isfinite().all()
    assert len(logits.unique(dim=0)) == len(x)
    other = replace(experiment(model), seed=1).classifier().eval()
    other.load_state_dict(analog.state_dict())
    assert torch.equal(other(x), classifier(x))
    other = twin(replace(experiment(model), seed=1).classifier().eval())
    other.load_state_dict(classifier.state_dict())
    assert torch.equal(other(x), logits)


def test_neurons_are_made_in_the_order_in_which_they_run(model):
    its = experiment(model)
    made: list[nn.Module] = []

    def neuron() -> Neuron:
        made.append(its.neuron())
        assert isinstance(made[-1], Neuron)
        return made[-1]

    ran: list[nn.Module] = []
    network = its.model(shape=its.dataset.shape[-3:], classes=10, neuron=neuron)
    for one in made:
        one.register_forward_hook(lambda module, *_: ran.append(module))
    network(torch.rand(2, 2, *its.dataset.shape[-3:]))
    assert [*map(id, made)] == [*map(id, ran)]
    assert len(made) == sum(isinstance(module, Neuron) for module in network.modules())


def test_its_description_is_that_of_the_real_network(model):
    its, classifier = experiment(model), experiment(model).classifier()
    shape, cpu = its.dataset.shape, torch.device("cpu")
    found = [*layers(classifier, shape, cpu)]
    assert [*layers(without_content(its), shape, META)] == found
    assert sum(layer.parameters for layer in found) == sum(p.numel() for p in classifier.parameters())
    settings = TrainingSettings(partial(torch.optim.SGD, lr=0.1, momentum=0.9), batch_size=4)
    estimated, measured = (
        memory(*one) for one in ((without_content(its), shape, settings, META), (classifier, shape, settings, cpu))
    )
    assert (estimated.weights, estimated.updates) == (measured.weights, measured.updates)
    assert measured.activations <= estimated.activations  # compiled neurons keep their potentials alone
    plain = memory(classifier.double(), shape, settings, cpu)  # which there are no kernels for
    # SpikingJelly's operators keep more on the CPU, where they are not fused.
    assert 1 <= plain.activations / (2 * estimated.activations) < 1.35


def test_its_costs_are_counted(model):
    classifier, (x, y) = copy.deepcopy(warm(model)), batch(model)
    dense = costs(classifier, Split(x, y), 4)
    assert (dense.uncounted, dense.sparsity, dense.energy_ratio) == ((), 0, 1)
    assert dense.operations is not None
    neurons = {name for name, module in classifier.named_modules() if isinstance(module, Neuron)}
    assert {name for name, spikes in dense.operations.spikes.items() if spikes > 0} == neurons
    every = {name for name, _ in weighted(classifier)}
    assert every == dense.operations.synaptic.keys() | dense.operations.multiply_accumulates.keys()
    last = [*dense.operations.synaptic][-1]
    with torch.no_grad():  # no spike depends on it
        dict(weighted(classifier))[last].weight.flatten(1)[:, ::2] = 0
    sparse = costs(classifier, Split(x, y), 4)
    assert sparse.operations is not None
    assert sparse.operations.dense == dense.operations.synaptic
    assert 0 < sparse.operations.synaptic[last] < dense.operations.synaptic[last]
    assert sparse.energy_ratio > 1
