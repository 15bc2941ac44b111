"""Regularizers of spike rates and potentials against numbers worked out by hand, and against loops."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from snnrobust.regularizers.base import Pass, Regularizer
from snnrobust.regularizers.membrane_distribution import MembraneDistribution, half_width, moments, share_within
from snnrobust.regularizers.spike_rate import SpikeRate
from snnrobust.regularizers.threshold_guarding import ThresholdGuarding
from snnrobust.spiking import surrogate
from snnrobust.spiking.encoder import Frames
from snnrobust.spiking.neuron import LIF
from snnrobust.spiking.neurons.psn import PSN
from snnrobust.spiking.neurons.trainable_threshold import TrainableThreshold
from snnrobust.spiking.recording import Layer, recorded
from tests.contracts.toys import Toy

OF_ONE_PASS = (SpikeRate(), ThresholdGuarding(), MembraneDistribution())


def layer(potential: Tensor, threshold: float = 1.0) -> Layer:
    """Of LIF neurons that reached these potentials `[T, N, ...]`."""
    neuron = LIF(surrogate.triangle(), threshold=threshold)
    return Layer(neuron, potential, potential, (potential >= threshold).to(potential.dtype))


def of(*layers: Layer) -> Pass:
    """A pass of which nothing but the layers is known."""
    nothing = torch.zeros(1)
    return Pass(nothing, nothing, nothing, nothing, nothing, layers)


def looked(model, x: Tensor, y: Tensor, epoch: int = 1, clean: Tensor | None = None) -> Pass:
    with recorded(model) as layers:
        logits = model(x)
    return Pass(x if clean is None else clean, x, y, torch.arange(len(x)), logits, tuple(layers), epoch)


def value(regularizer: Regularizer, *layers: Layer) -> float:
    return float(regularizer(Toy(1), of(*layers)).detach())


@pytest.mark.parametrize("regularizer", OF_ONE_PASS, ids=lambda r: type(r).__name__)
def test_what_is_recorded_are_the_spikes_of_the_plain_pass(regularizer, classifier, images):
    x, y = images
    spikes: list[Tensor] = []
    for module in classifier.modules():
        if isinstance(module, LIF):
            module.register_forward_hook(lambda _module, _inputs, output: spikes.append(output))
    logits = classifier(x)
    at = looked(classifier, x, y)
    assert regularizer(classifier, at) > 0
    assert torch.equal(at.logits, logits)
    assert len(at.layers) == 2
    assert all(torch.equal(found.spikes, spike) for found, spike in zip(at.layers, spikes, strict=False))


@pytest.mark.parametrize("regularizer", OF_ONE_PASS, ids=lambda r: type(r).__name__)
def test_the_gradient_reaches_the_weights_of_every_spiking_layer(regularizer, classifier, images):
    term = regularizer(classifier, looked(classifier.train(), *images))
    weights = [classifier.backbone.features[0].weight, classifier.backbone.classifier[1].weight]
    for gradient in torch.autograd.grad(term, weights):
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("regularizer", OF_ONE_PASS, ids=lambda r: type(r).__name__)
def test_a_model_without_spiking_layers_is_refused_in_one_line(regularizer):
    with pytest.raises(ValueError, match=r"^regularizer: got a model without spiking layers; allowed: .*$"):
        regularizer(Toy(1), of())


# --- spike_rate


def test_the_rate_of_every_layer_counts_the_same():
    first = layer(torch.tensor([[[1.0, 0.0]], [[1.0, 2.0]]]))  # 3 spikes of 4
    second = layer(torch.tensor([[[0.0] * 4], [[1.0] + [0.0] * 3]]))  # 1 of 8
    assert value(SpikeRate(), first, second) == pytest.approx((3 / 4 + 1 / 8) / 2)


def test_a_layer_below_the_target_costs_nothing_and_makes_up_for_no_other():
    first, second = (layer(torch.tensor([[[1.0, 1.0, 1.0, u]]])) for u in (0.0, 1.0))  # rates 0.75 and 1
    assert value(SpikeRate(target=0.9), first, second) == pytest.approx(0.05)
    assert value(SpikeRate(target=1.0), first, second) == 0


def test_below_the_target_there_is_no_gradient(classifier, images):
    at = looked(classifier, *images)
    term = SpikeRate(target=1.0)(classifier, at)
    assert all(not layer.spikes.all() for layer in at.layers)
    gradients = torch.autograd.grad(term, [*classifier.parameters()], allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in gradients)


# --- threshold_guarding


def test_potentials_near_the_threshold_cost_what_they_lack_in_distance():
    first = layer(torch.tensor([[[0.8, 1.6]], [[1.1, -2.0]]]))  # 0.3, 0, 0.4, 0
    second = layer(torch.tensor([[[2.25, 1.5]]]), threshold=2.0)  # 0.25, 0
    assert value(ThresholdGuarding(delta=0.5), first, second) == pytest.approx(0.175 + 0.125)


def test_potentials_are_pushed_away_from_the_threshold_on_both_sides():
    potential = torch.tensor([[[0.8, 1.2, 0.4, 1.7]]], requires_grad=True)
    (gradient,) = torch.autograd.grad(ThresholdGuarding(delta=0.5)(Toy(1), of(layer(potential))), potential)
    assert gradient.flatten().tolist() == [0.25, -0.25, 0, 0]


def test_it_equals_the_loop_over_the_layers_of_a_network(make_tiny):
    """Also where the threshold is learned, or is a bias."""
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    for neuron in (TrainableThreshold(surrogate.triangle(), threshold=0.7), PSN(surrogate.triangle(), steps=3)):
        model = make_tiny()
        model.backbone.features[2] = neuron
        at = looked(model, x, torch.zeros(5).long())
        expected, thresholds = 0.0, (0.7 if isinstance(neuron, TrainableThreshold) else 0.0, 1.0)
        for one, threshold in zip(at.layers, thresholds, strict=True):
            costs = [max(0.0, 0.3 - abs(u - threshold)) for u in one.potential.flatten().tolist()]
            expected += sum(costs) / len(costs)
        assert value(ThresholdGuarding(delta=0.3), *at.layers) == pytest.approx(expected, rel=1e-5)
        assert expected > 0


@pytest.mark.parametrize(("elapsed", "share"), [(0, 0), (1, 0.146447), (2, 0.5), (3.999, 1), (4, 1), (9, 1)])
def test_its_weight_rises_by_half_a_cosine(elapsed, share):
    assert ThresholdGuarding(weight=0.6, warmup=4).weight_at(elapsed) == pytest.approx(0.6 * share, abs=1e-6)


def test_without_a_warm_up_its_weight_is_constant():
    assert ThresholdGuarding(weight=0.6).weight_at(0) == 0.6


# --- membrane_distribution


def test_the_share_in_the_window_is_that_of_a_normal_distribution():
    """Two potentials at distance 1 on both sides: mean 0, deviation 1, and 68.27 % within one deviation."""
    at = layer(torch.tensor([[[0.0]], [[2.0]]]).transpose(0, 1))
    assert value(MembraneDistribution(gamma=1.0), at) == pytest.approx(0.682689, abs=1e-5)
    assert value(MembraneDistribution(gamma=2.0), at) == pytest.approx(0.954500, abs=1e-5)


def test_it_equals_the_published_form():
    """`Phi((mu + gamma) / s) - Phi((mu - gamma) / s)`: the same by the symmetry of Phi."""
    draws = torch.Generator().manual_seed(0)
    mean = 2 * torch.randn(50, generator=draws, dtype=torch.float64)
    deviation = 0.1 + torch.rand(50, generator=draws, dtype=torch.float64)
    phi = Normal(torch.tensor(0.0, dtype=torch.float64), 1.0).cdf
    published = phi((mean + 0.7) / deviation) - phi((mean - 0.7) / deviation)
    torch.testing.assert_close(share_within(0.7, mean, deviation), published, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("events", [False, True])
def test_it_equals_the_loop_over_layers_steps_and_channels(make_tiny, events):
    draws = torch.Generator().manual_seed(2)
    model = make_tiny(Frames(3), channels=2) if events else make_tiny()
    x = torch.rand(6, 3, 2, 8, 8, generator=draws) if events else torch.rand(6, 1, 8, 8, generator=draws)
    at = looked(model, x, torch.zeros(6).long())
    per_layer = []
    for one in at.layers:
        shares = []
        for step in one.potential.detach().double():
            for channel in range(step.shape[1]):
                q = [u - 1.0 for u in step[:, channel].flatten().tolist()]
                mu = sum(q) / len(q)
                s = math.sqrt(sum((v - mu) ** 2 for v in q) / len(q) + 1e-5)
                shares.append(0.5 * (math.erf((1 - mu) / s / 2**0.5) - math.erf((-1 - mu) / s / 2**0.5)))
        per_layer.append(sum(shares) / len(shares))
    assert len(per_layer) == 2
    assert value(MembraneDistribution(), *at.layers) == pytest.approx(sum(per_layer) / 2, rel=1e-5)


@pytest.mark.parametrize(("potential", "expected"), [(1.5, 1.0), (1.0, 1.0), (-40.0, 0.0), (0.0, 0.5)])
def test_a_constant_channel_is_within_the_window_or_not_and_stays_finite(potential, expected):
    u = torch.full((2, 3, 4, 2, 2), potential, requires_grad=True)
    term = MembraneDistribution()(Toy(1), of(layer(u)))
    assert float(term.detach()) == pytest.approx(expected, abs=1e-6)
    assert torch.autograd.grad(term, u)[0].isfinite().all()


def test_a_single_sample_in_a_layer_without_space_stays_finite():
    u = torch.tensor([[[0.9, 1.2]]], requires_grad=True)
    (gradient,) = torch.autograd.grad(MembraneDistribution()(Toy(1), of(layer(u))), u)
    assert gradient.isfinite().all()


def test_moments_are_of_samples_and_space():
    distance = torch.arange(48.0).view(2, 3, 2, 2, 2)
    mean, deviation = moments(distance)
    assert mean.shape == deviation.shape == (2, 2)
    assert float(mean[1, 0]) == pytest.approx(float(distance[1, :, 0].mean()))
    assert float(deviation[1, 0]) == pytest.approx(float(distance[1, :, 0].std(correction=0)), rel=1e-5)


@pytest.mark.parametrize(
    "given",
    [surrogate.triangle(0.7), surrogate.linear(0.3, 1.5), surrogate.rectangle(0.8)],
    ids=lambda given: given.name,
)
def test_the_window_ends_where_the_derivative_does(given):
    end = half_width(given)
    for side in (-1, 1):
        inside, outside = given.derivative(side * torch.tensor([end - 1e-3, end + 1e-3]))
        assert inside > 0
        assert outside == 0


@pytest.mark.parametrize(
    "make",
    [surrogate.sigmoid, surrogate.atan, surrogate.exponential, surrogate.gaussian, surrogate.straight_through],
    ids=lambda make: make.__name__,
)
def test_a_derivative_without_end_has_no_window(make):
    given = make()
    assert given.derivative(torch.tensor([2.0])) > 0
    with pytest.raises(ValueError, match=f"^regularizer.gamma: got null, .* {given.name} does not have; allowed: "):
        half_width(given)


def test_the_window_is_that_of_the_layer_unless_it_is_given():
    u = torch.tensor([[[0.0], [2.0], [1.3]]])
    wide, narrow = (Layer(LIF(surrogate.triangle(width)), u, u, u) for width in (2.0, 0.5))
    assert value(MembraneDistribution(), wide) == value(MembraneDistribution(gamma=2.0), narrow)
    assert value(MembraneDistribution(), narrow) == value(MembraneDistribution(gamma=0.5), wide)
    assert value(MembraneDistribution(), narrow) < value(MembraneDistribution(), wide)
