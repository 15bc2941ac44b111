"""Regularizers that compare two passes: with an adversarial input, and with time reversed."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from snnrobust.attacks.base import Attack
from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.regularizers.base import Pass, Regularizer
from snnrobust.regularizers.membrane_perturbation import MembranePerturbation, drift
from snnrobust.regularizers.temporal_reversal import TemporalReversal, backwards, divergence
from snnrobust.spiking.classifier import Classifier
from snnrobust.spiking.encoder import Frames
from snnrobust.spiking.encoders.latency import Latency
from snnrobust.spiking.neuron import IF, LIF, Neuron
from snnrobust.spiking.neurons.evolving_leak import EvolvingLeak
from snnrobust.spiking.neurons.plif import PLIF
from snnrobust.spiking.neurons.psn import PSN
from snnrobust.spiking.recording import recorded
from snnrobust.spiking.surrogate import triangle
from snnrobust.threat import Linf
from tests.contracts.toys import Toy, assert_same, state_of
from tests.unit.test_layer_regularizers import looked

PGD = ProjectedGradient(Linf(0.2), steps=2, seed=3)


@dataclass(frozen=True)
class Shift(Attack):
    """Every entry moves by `size`."""

    size: float = 0.1
    seed: int = 0

    threat = None

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        return x + self.size


@dataclass(frozen=True)
class Unwanted(Shift):
    """An attack that may not run."""

    seed: int = 0
    threat = None

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        raise AssertionError("crafted anew")


TWO_PASSES = (MembranePerturbation(Shift()), TemporalReversal())


def term(regularizer: Regularizer, model, at: Pass) -> float:
    return float(regularizer(model, at).detach())


# --- membrane_perturbation


def test_a_difference_of_currents_adds_up_and_leaks():
    current = torch.tensor([0.5, 0.0, -1.0]).view(3, 1, 1)
    assert drift(LIF(triangle(), tau=2.0), current).flatten().tolist() == [0.5, 0.25, -0.875]
    assert drift(LIF(triangle(), tau=2.0, decay_input=True), current).flatten().tolist() == [0.25, 0.125, -0.4375]
    assert drift(IF(triangle()), current).flatten().tolist() == [0.5, 0.5, -0.5]


@pytest.mark.parametrize(
    "neuron",
    [
        LIF(triangle(), tau=3.0, threshold=1e3),
        LIF(triangle(), tau=3.0, threshold=1e3, decay_input=True),
        IF(triangle(), threshold=1e3),
        PLIF(triangle(), tau=1.5, threshold=1e3),
        EvolvingLeak(triangle(), leak=0.8, threshold=1e3),
    ],
    ids=lambda neuron: type(neuron).__name__,
)
def test_it_is_the_difference_of_potentials_that_never_reach_the_threshold(neuron: Neuron):
    clean, other = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    with recorded(neuron) as layers, torch.no_grad():
        neuron(clean), neuron(other)
        found = drift(neuron, other - clean)
    torch.testing.assert_close(found, layers[1].potential - layers[0].potential)


def test_neurons_without_a_membrane_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^regularizer: membrane_perturbation is .* PSN does not have; allowed: .*$"):
        drift(PSN(triangle(), steps=3), torch.zeros(3, 1, 1))


def by_loop(model, clean: Tensor, x: Tensor, last_only: bool, power: int) -> float:
    """Layer by layer, step by step, entry by entry; tau = 2."""
    with recorded(model) as first, torch.no_grad():
        model(clean)
    with recorded(model) as second, torch.no_grad():
        model(x)
    means = []
    for one, other in zip(first, second, strict=True):
        difference = (other.current - one.current).double().flatten(1)
        state, total = [0.0] * difference.shape[1], 0.0
        for step in difference.tolist():
            state = [0.5 * y + d for y, d in zip(state, step, strict=True)]
            total += sum(abs(y) ** power for y in state)
        means.append(total / difference.numel())
    return means[-1] if last_only else sum(means) / len(means)


@pytest.mark.parametrize(("norm", "power"), [("l2", 2), ("l1", 1)])
@pytest.mark.parametrize("layers", ["last", "all"])
def test_it_equals_the_loop(classifier, images, layers, norm, power):
    x, y = images
    regularizer = MembranePerturbation(Unwanted(), layers=layers, norm=norm)
    adversarial = PGD(classifier, x, y)
    found = term(regularizer, classifier, looked(classifier, adversarial, y, clean=x))
    assert found == pytest.approx(by_loop(classifier, x, adversarial, layers == "last", power), rel=1e-4)
    assert found > 0


def test_where_no_defence_made_inputs_its_own_attack_does(classifier, images):
    x, y = images
    moved = (x + 0.1).clamp(0, 1)
    found = term(MembranePerturbation(Shift()), classifier, looked(classifier, x, y))
    assert found == pytest.approx(by_loop(classifier, x, moved, True, 2), rel=1e-4)
    assert found == term(MembranePerturbation(Unwanted()), classifier, looked(classifier, moved, y, clean=x))
    assert found > 0


def test_its_attack_draws_anew_in_every_epoch(classifier, images):
    regularizer, (x, y) = MembranePerturbation(PGD), images
    first, again, second = (term(regularizer, classifier, looked(classifier, x, y, epoch)) for epoch in (1, 1, 2))
    assert first == again != second


def test_its_gradient_comes_from_both_passes_and_none_from_the_attack(classifier, images):
    x, y = images
    classifier.train()
    adversarial = PGD(classifier, x, y)
    at = looked(classifier, adversarial, y, clean=x)
    weights = [classifier.backbone.features[0].weight, classifier.backbone.classifier[1].weight]
    found = torch.autograd.grad(MembranePerturbation(Unwanted())(classifier, at), weights)
    with recorded(classifier) as layers:
        classifier(adversarial), classifier(x)
    y_t, total = torch.zeros(()), []
    for step in layers[1].current - layers[3].current:
        y_t = 0.5 * y_t + step
        total.append(y_t.square())
    for gradient, expected in zip(found, torch.autograd.grad(torch.stack(total).mean(), weights), strict=True):
        torch.testing.assert_close(gradient, expected)
        assert gradient.any()


def test_crafting_leaves_the_model_as_it_was(classifier, images):
    classifier.eval()
    before = state_of(classifier)
    MembranePerturbation(PGD)(classifier, looked(classifier, *images))
    assert_same(before, state_of(classifier))


# --- temporal_reversal


def test_the_divergence_is_half_the_sum_of_both():
    first, second = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p, q = first.log_softmax(1), second.log_softmax(1)
    both = [F.kl_div(a, b, reduction="batchmean", log_target=True) for a, b in ((p, q), (q, p))]
    assert float(divergence(first, second)) == pytest.approx(float(sum(both)) / 2, rel=1e-12)


def test_the_divergence_of_two_classes_by_hand():
    """p = (3/4, 1/4) against q = (1/2, 1/2): half of (1/4) ln(3/2) + (-1/4) ln(1/2)."""
    first, second = torch.tensor([[3.0, 1.0]]).log(), torch.zeros(1, 2)
    expected = (0.25 * 0.4054651 + 0.25 * 0.6931472) / 2
    assert float(divergence(first, second)) == pytest.approx(expected, abs=1e-6)
    assert divergence(1e4 * first, second).isfinite()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_event_frames_are_reversed_in_the_input(make_tiny, temperature):
    model = make_tiny(Frames(3), channels=2)
    x, y = torch.rand(6, 3, 2, 8, 8, generator=torch.Generator().manual_seed(1)), torch.zeros(6).long()
    expected = temperature**2 * divergence(model(x) / temperature, model(x.flip(1)) / temperature)
    found = term(TemporalReversal(temperature=temperature), model, looked(model, x, y))
    assert found == pytest.approx(float(expected.detach()), rel=1e-6)
    assert found > 1e-4


def test_spike_times_are_reversed(make_tiny, images):
    model = make_tiny(Latency(4))
    code = model.encoder(images[0])
    with backwards(model):
        found = model(images[0])
    assert torch.equal(found, model.backbone(code.flip(0)).mean(0))
    assert not torch.equal(found, model(images[0]))


def test_of_a_direct_code_the_spikes_of_the_first_layer_are_reversed(classifier, images):
    its = classifier.backbone
    spikes = its.features[:3](classifier.encoder(classifier.normalize(images[0])))
    expected = its.classifier(its.features[3:](spikes.flip(0))).mean(0)
    with backwards(classifier):
        found = classifier(images[0])
    assert torch.equal(found, expected)
    assert not torch.equal(found, classifier(images[0]))


def test_the_first_layer_to_run_is_reversed_wherever_it_is_registered(classifier, images):
    swapped = copy.deepcopy(classifier)
    swapped.backbone._modules = dict(reversed(swapped.backbone._modules.items()))
    names = [name for name, module in swapped.named_modules() if isinstance(module, Neuron)]
    assert names == ["backbone.classifier.2", "backbone.features.2"]
    with backwards(classifier):
        expected = classifier(images[0])
    with backwards(swapped):
        assert torch.equal(swapped(images[0]), expected)


def test_a_recording_that_is_the_same_in_both_directions_costs_nothing(make_tiny):
    model = make_tiny(Frames(3), channels=2)
    x = torch.rand(6, 3, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    x = (x + x.flip(1)) / 2
    assert term(TemporalReversal(), model, looked(model, x, torch.zeros(6).long())) == 0


def test_time_runs_forwards_again_afterwards_also_after_an_error(classifier, images):
    before = classifier(images[0])
    with pytest.raises(RuntimeError), backwards(classifier):
        classifier(images[0][:, :, :5])
    with backwards(classifier):
        pass
    assert torch.equal(classifier(images[0]), before)


def test_its_gradient_flows_through_both_passes(classifier, images):
    classifier.train()
    at = looked(classifier, *images)
    with backwards(classifier):
        turned = classifier(images[0])
    parameters = [*classifier.parameters()]
    expected = torch.autograd.grad(divergence(at.logits, turned), parameters, retain_graph=True)
    found = torch.autograd.grad(TemporalReversal()(classifier, at), parameters)
    for parameter, gradient, one in zip(parameters, found, expected, strict=True):
        torch.testing.assert_close(gradient, one)
        assert gradient.any() or parameter.dim() == 1


# --- all of them


@pytest.mark.parametrize("regularizer", TWO_PASSES, ids=lambda r: type(r).__name__)
def test_a_model_without_spiking_layers_is_refused_in_one_line(regularizer, images):
    model = Toy(64)
    with pytest.raises(ValueError, match=r"^regularizer: got a model without spiking layers; allowed: .*$"):
        regularizer(model, looked(model, *images))
