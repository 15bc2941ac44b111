"""Zeros in the gradients of every spiking layer, against plain autograd; firing rates against a count."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.data.dataset import Split
from snnrobust.estimators.analog import Analog
from snnrobust.estimators.ensemble import Ensemble
from snnrobust.estimators.mixed import Mixed
from snnrobust.estimators.rate import BPTR, RateGradient
from snnrobust.estimators.strongest import Strongest
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.evaluation.evaluator import Evaluator, Settings
from snnrobust.evaluation.gradients import Gradients, members, survey
from snnrobust.evaluation.layers import watched
from snnrobust.evaluation.measures import input_gradient, probability
from snnrobust.models.convnet import ConvNet
from snnrobust.randomness import isolated
from snnrobust.spiking.classifier import Normalize, SpikingClassifier
from snnrobust.spiking.encoder import Direct
from snnrobust.spiking.fuse import fused
from snnrobust.spiking.neuron import IF, LIF, Neuron
from snnrobust.spiking.recording import recorded
from snnrobust.spiking.surrogate import triangle
from snnrobust.threat import Bounds, Linf
from tests.contracts.toys import Toy, assert_same, disturb, state_of, streams

LAYERS = ("backbone.features.2", "backbone.features.6", "backbone.classifier.2")


def network(neuron=LIF, pool="avg") -> SpikingClassifier:
    """Two blocks and a hidden layer, all of which fire."""
    with isolated("network"):
        backbone = ConvNet((1, 8, 8), 4, partial(neuron, surrogate=triangle()), (4, 6), 8, pool)
        model = SpikingClassifier(backbone, Direct(4), Normalize((0.5,), (0.3,)), Bounds())
        with torch.no_grad():
            for _ in range(20):
                model(torch.rand(32, 1, 8, 8))
            for layer, factor in ((backbone.features[1], 2), (backbone.features[5], 2), (backbone.classifier[1], 6)):
                assert isinstance(layer.weight, Tensor)
                layer.weight.mul_(factor)
    return model.eval()


@pytest.fixture
def data() -> Split:
    generator = torch.Generator().manual_seed(1)
    values = torch.randint(17, (20, 1, 8, 8), generator=generator).to(torch.uint8)
    return Split(values, torch.randint(4, (20,), generator=generator), 16)


def by_hand(model: SpikingClassifier, data: Split) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Spikes, `ds` and `di` `[T, N, ...]` of each layer; the network is run module by module, torch differentiates."""
    batch = data.batch(torch.arange(len(data)))
    signal = model.encoder(model.normalize(batch.x.requires_grad_()))
    kept = {}
    with recorded(model):  # of plain operations
        for name, module in model.named_modules():
            if not [*module.children()] and name.startswith("backbone."):
                current, signal = signal, module(signal)
                if isinstance(module, Neuron):
                    kept[name] = current, signal
    spikes = probability(signal.mean(0), batch.y).sum()
    grads = torch.autograd.grad(spikes, [tensor for pair in kept.values() for tensor in pair])
    return {name: (kept[name][1].detach(), grads[2 * i + 1], grads[2 * i]) for i, name in enumerate(kept)}


@pytest.mark.parametrize("neuron", [LIF, IF])
@pytest.mark.parametrize("pool", ["avg", "max"])
def test_shares_of_zeros_are_those_of_plain_autograd(data, neuron, pool):
    model = network(neuron, pool)
    expected = by_hand(model, data)
    found = survey(model, data, TRAINED, batch_size=8, seed=0).layers
    assert tuple(expected) == LAYERS
    for layer, (spikes, ds, di) in expected.items():
        assert found["firing_rate"][layer] == pytest.approx(float(spikes.double().mean()), rel=1e-12)
        for measure, grad in (("spike", ds), ("current", di)):
            assert found[f"zero_{measure}_gradient"][layer] == pytest.approx(
                float((grad == 0).double().mean()), rel=1e-6
            )
            size = grad.abs().transpose(0, 1).flatten(1)
            small = (size <= 1e-3 * size.amax(1, keepdim=True)).double().mean()
            assert found[f"small_{measure}_gradient"][layer] == pytest.approx(float(small), rel=1e-6)
    assert all(tuple(values) == LAYERS for values in found.values())
    assert all(0 < rate < 1 for rate in found["firing_rate"].values())
    # A neuron's surrogate makes zeros; of the pooling layers only max pooling does, three in four.
    assert all(found["zero_current_gradient"][name] > found["zero_spike_gradient"][name] for name in LAYERS)
    routed = [found["zero_spike_gradient"][name] for name in LAYERS[:2]]
    assert routed == pytest.approx([0.75 * (pool == "max")] * 2, abs=0.01)


def test_under_bptr_the_gradient_is_zero_exactly_where_a_neuron_is_silent(data):
    model = network()
    silent = {name: (spikes.amax(0) == 0).double().mean() for name, (spikes, _, _) in by_hand(model, data).items()}
    found = survey(model, data, Ensemble({"trained": TRAINED, "bptr": BPTR()}), 8, 0)
    assert found.layers["zero_current_gradient/bptr"] == pytest.approx(
        {n: float(v) for n, v in silent.items()}, rel=1e-6
    )
    assert found.layers["zero_current_gradient/bptr"] != pytest.approx(found.layers["zero_current_gradient"], rel=1e-3)
    assert list(found.estimators) == ["trained", "bptr"]
    assert found.estimators["bptr"]["gradient_l1"] != pytest.approx(
        found.estimators["trained"]["gradient_l1"], rel=1e-3
    )
    assert "firing_rate/bptr" not in found.layers


def test_the_scalars_are_those_of_the_models_own_gradient(data):
    alone = survey(network(), data, TRAINED, 8, 0)
    several = survey(network(), data, Ensemble({"bptr": BPTR()}), 8, 0)
    assert list(several.estimators) == ["trained", "bptr"]
    assert several.scalars() == alone.scalars() != several.estimators["bptr"]
    assert list(members(RateGradient())) == ["trained", "rate_gradient"]
    rates = alone.layers["firing_rate"].values()
    assert alone.scalars()["firing_rate"] == pytest.approx(sum(rates) / 3)


def test_a_network_that_stands_in_for_the_model_is_not_taken_for_it(data):
    one, other = TRAINED, BPTR()
    estimators = {"analog": Analog(), "mixed": Mixed({"a": one, "b": other}), "own": one, "bptr": other}
    found = survey(network(), data, Ensemble(estimators), 20, 0).layers
    assert "zero_current_gradient/analog" not in found  # under the analog network
    assert tuple(found["firing_rate"]) == LAYERS
    for layer in LAYERS:
        both = [found[f"zero_current_gradient/{name}"][layer] for name in ("own", "bptr")]
        assert found["zero_current_gradient/mixed"][layer] == pytest.approx(sum(both) / 2, rel=1e-6)


def test_the_stem_of_a_fused_network_is_measured_at_every_step(data):
    model, batch = network(pool="max"), data.batch(torch.arange(20))  # not joined to the neurons before it
    with watched(quick := fused(model)) as watch:
        input_gradient(quick, batch.x, batch.y)
    found = watch.means()
    grad = by_hand(model, data)[LAYERS[0]][2]
    assert found["zero_current_gradient"][LAYERS[0]] == pytest.approx(float((grad == 0).double().mean()), abs=1e-3)
    expected = survey(model, data, TRAINED, 20, 0).layers["zero_current_gradient"]
    assert found["zero_current_gradient"][LAYERS[1]] == pytest.approx(expected[LAYERS[1]], abs=1e-3)


class Residual(nn.Module):
    """A layer whose current goes around it, too."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = LIF(triangle())

    def forward(self, sequence: Tensor) -> Tensor:
        current = 2 * sequence.flatten(2)[..., :4]
        return self.neuron(current) + current


def test_the_gradient_of_a_current_is_that_of_the_layer_alone(data):
    model = SpikingClassifier(Residual(), Direct(3), Normalize((0.0,), (1.0,)), Bounds())
    # At rest the potential lies a whole width of the surrogate below the threshold.
    black = Split(torch.zeros_like(data.values), data.labels, 16)
    layers = survey(model, black, TRAINED, 8, 0).layers
    assert layers["zero_current_gradient"] == {"backbone.neuron": 1.0}
    assert layers["zero_spike_gradient"] == {"backbone.neuron": 0.0}


@pytest.mark.parametrize("keep", [1, 2])
def test_an_evaluation_measures_the_estimators_that_were_chosen(data, keep):
    model = network()
    candidates = Strongest({"trained": TRAINED, "bptr": BPTR()}, keep=keep)
    attacks = {"pgd": ProjectedGradient(Linf(0.1), candidates, steps=2)}
    settings = Settings(batch_size=8)
    report = Evaluator(attacks, Linf(0.1), candidates, {"pgd_accuracy": "pgd"}, settings)(model, data, validation=data)
    assert report.selection is not None
    chosen = list(report.selection.estimator.members())
    assert list(report.estimators) == chosen
    assert len(chosen) == keep
    assert report.examples is not None
    assert list(report.examples.gradients) == chosen
    assert report.examples.perturbation is not None
    assert report.metrics().items() >= report.estimators[chosen[0]].items()
    unasked = Evaluator({}, Linf(0.1), candidates, {}, settings)(model, data)
    assert list(unasked.estimators) == ["trained"]
    assert unasked.examples is not None
    assert unasked.examples.perturbation is None


@pytest.mark.parametrize("steps", [1, 3])
def test_a_single_sample_and_a_single_step_are_enough(make_tiny, data, steps):
    one = Split(data.values[:1], data.labels[:1], 16)
    layers = survey(make_tiny(Direct(steps)), one, TRAINED, 8, 0).layers
    assert all(0 <= value <= 1 for values in layers.values() for value in values.values())
    assert len(layers) == 5


def test_a_model_without_spikes_has_input_gradients_alone(data):
    found = survey(Toy(64), data, TRAINED, 8, 0)
    assert found.layers == {}
    assert "firing_rate" not in found.scalars()
    assert isinstance(found, Gradients)
    with pytest.raises(ValueError, match="BPTR"):
        survey(Toy(64), data, BPTR(), 8, 0)


def test_the_model_is_left_as_it_was(data):
    model = network()
    disturb(model)
    before, around = state_of(model), streams()
    survey(model, data, Ensemble({"bptr": BPTR(), "mixed": Mixed({"a": TRAINED, "b": BPTR()})}), 8, 0)
    assert_same(before, state_of(model))
    assert_same(around, streams())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
