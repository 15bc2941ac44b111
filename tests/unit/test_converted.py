"""Conversion as a whole: what is copied, what is recorded, what is refused, and that the result works."""

import copy
import json
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import nn

from snnrobust import config
from snnrobust.conversion.base import Ground
from snnrobust.conversion.biases import following
from snnrobust.conversion.calibration import estimate_statistics
from snnrobust.conversion.converted import Converted
from snnrobust.data.augmentation import NONE
from snnrobust.data.dataset import Split
from snnrobust.data.digits import Digits
from snnrobust.models.convnet import ConvNet
from snnrobust.models.layers import Linear
from snnrobust.models.resnet import ResNet
from snnrobust.models.vgg import VGG
from snnrobust.randomness import isolated
from snnrobust.regularizers.none import NoRegularizer
from snnrobust.schema import ConfigError
from snnrobust.spiking.activation import ReLU
from snnrobust.spiking.classifier import Normalize, SpikingClassifier
from snnrobust.spiking.encoder import Direct, Frames
from snnrobust.spiking.neuron import LIF
from snnrobust.spiking.neurons.trainable_threshold import TrainableThreshold
from snnrobust.spiking.surrogate import triangle
from snnrobust.spiking.synapses import densities, synapses
from snnrobust.threat import Bounds
from snnrobust.training.defences.none import NoDefence
from tests.unit.trained import data, same, train, trainer

SOURCE = "start.source={path: runs/a, training_signature: a, family: a}"
CONVNET = partial(ConvNet, channels=(4, 6), hidden=12)
SMALL = {"steps": 6, "batches": 3, "batch_size": 8}


def ground(split: Split | None = None, seed: int = 0) -> Ground:
    split = split or data()
    return Ground(split, split, NONE, NoRegularizer(), NoDefence(), seed, lambda _epoch: None)


def network(neuron: Any, backbone: Any = CONVNET, steps: int = 1, classes: int = 4, seed: int = 0) -> Any:
    with isolated("converted", seed):
        built = backbone((1, 8, 8), classes, neuron)
    return SpikingClassifier(built, Direct(steps), Normalize((0.305,), (0.376,)), Bounds())


def spiking(backbone: Any = CONVNET, steps: int = 3, classes: int = 4, seed: int = 7, **neuron: Any) -> Any:
    """With weights of its own."""
    return network(partial(TrainableThreshold, triangle(), **neuron), backbone, steps, classes, seed)


@cache
def ann(backbone: Any = CONVNET, sparse: bool = False) -> Any:
    """Briefly trained; then half of the weights are absent, if asked."""
    model = network(ReLU, backbone)
    train(trainer(), model)
    if sparse:
        with torch.no_grad():
            for weight in synapses(model).values():
                weight.mul_(weight.abs() > weight.abs().median())
    return model.eval()


@cache
def digits_ann() -> Any:
    model, splits = network(ReLU, partial(ConvNet, channels=(8, 16), hidden=32), classes=10), Digits().load()
    train(trainer(epochs=8, batch_size=32), model, splits.train, splits.validation)
    return model.eval()


def converted(
    source: Any, split: Split | None = None, encoded: int = 3, seed: int = 0, backbone: Any = CONVNET, **settings: Any
) -> tuple[Any, Any]:
    """The model, whose code has so many steps, and the record."""
    neuron = {"minimum": settings.pop("minimum", 0.03)}
    model = spiking(backbone, encoded, **neuron)
    record = Converted(source, **{**SMALL, **settings}).begin(model, ground(split, seed))
    return model, record


@pytest.mark.parametrize(
    "backbone",
    [CONVNET, partial(VGG, plan=(4, "pool", 6), hidden=(12,)), partial(ResNet, blocks=(1, 1), strides=(1, 2), width=4)],
)
def test_weights_are_copied_and_absent_ones_stay_absent(backbone):
    source = ann(backbone, sparse=True)
    model, record = converted(source, backbone=backbone)
    for (name, weight), (_, theirs) in zip(synapses(model).items(), synapses(source).items(), strict=True):
        assert torch.equal(weight, theirs), name
        assert 0.4 < record["densities"][name] < 0.6
    assert record["densities"] == densities(synapses(source))
    assert record["sparsity"] == pytest.approx(0.5, abs=0.02)
    norms = ([m for m in net.modules() if isinstance(m, nn.BatchNorm2d)] for net in (model, source))
    for norm, its in zip(*norms, strict=True):
        assert torch.equal(norm.weight, its.weight)
        assert torch.equal(norm.bias, its.bias)


def test_the_record_says_what_was_done():
    model, record = converted(ann(), scale=0.25)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, TrainableThreshold)}
    assert record["samples"] == 24
    assert [*record["thresholds"]] == [*record["percentiles"]] == [*layers]
    for name, neuron in layers.items():
        assert record["thresholds"][name] == max(0.25 * record["percentiles"][name], 0.03)
        assert neuron.threshold.item() == pytest.approx(record["thresholds"][name], rel=1e-6)
        assert neuron.threshold.requires_grad
    assert record["at_minimum"] == record["silent"] == []
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_running_statistics_are_of_the_network_as_it_fires():
    """With its final thresholds and its own steps: 24 samples, all there are, looked at again."""
    split = data(24)
    model, _ = converted(ann(), split)
    norms: Any = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    found = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
    estimate_statistics(model, split.batch(torch.arange(24)).x)
    for (mean, var), norm in zip(found, norms, strict=True):
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, var)


def test_no_threshold_is_below_the_minimum_and_silent_layers_are_named():
    source = copy.deepcopy(ann())
    hidden = source.backbone.classifier[1]
    nn.init.constant_(hidden.weight, 0)
    nn.init.constant_(hidden.bias, -1)
    model, record = converted(source, minimum=0.9, scale=0.01)
    assert record["at_minimum"] == [*record["thresholds"]]
    assert set(record["thresholds"].values()) == {0.9}
    assert record["silent"] == ["backbone.classifier.2"]
    assert model.eval()(data().batch(torch.arange(4)).x).isfinite().all()


def test_the_source_is_left_as_it_was():
    source = ann()
    before = copy.deepcopy(source)
    converted(source)
    assert same(source.state_dict(), before.state_dict())
    assert not any(m.training or m._forward_hooks or m._forward_pre_hooks for m in source.modules())
    assert all(p.grad is None for p in source.parameters())


def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads():
    (first, record), (second, again) = converted(ann()), converted(ann())
    assert same(first.state_dict(), second.state_dict())
    assert record == again
    torch.set_num_threads(2)
    third, _ = converted(ann())
    for name, tensor in third.state_dict().items():
        torch.testing.assert_close(tensor, first.state_dict()[name], rtol=1e-5, atol=1e-6)
    _, other = converted(ann(), seed=1)
    assert other["percentiles"] != record["percentiles"]


def test_settings_matter():
    _, record = converted(ann())
    for change in ({"steps": 2}, {"batches": 1}, {"batch_size": 4}, {"percentile": 90.0}):
        assert converted(ann(), **change)[1]["percentiles"] != record["percentiles"], change


@pytest.mark.parametrize("settings", [{"steps": 1, "encoded": 1}, {"batch_size": 1}, {"batch_size": 1, "batches": 2}])
def test_small_settings_work(settings):
    model, record = converted(ann(), **settings)
    assert all(value > 0 for value in record["thresholds"].values())
    assert model.eval()(torch.rand(1, 1, 8, 8)).isfinite().all()


def test_fewer_samples_than_asked_for_are_all_taken():
    model, record = converted(ann(), data(5), batches=10, batch_size=64)
    assert record["samples"] == 5
    assert model.training
    with pytest.raises(ValueError, match=r"^start\.batches: got 1 samples to measure on; allowed: at least 2$"):
        converted(ann(), data(1))
    with pytest.raises(ValueError, match=r"^start\.batches: got 1 samples"):
        converted(ann(), batches=1, batch_size=1)


def test_others_are_refused_in_one_line():
    start = Converted(ann(), **SMALL)
    before = copy.deepcopy(network(partial(LIF, triangle())))
    with pytest.raises(ValueError, match=r"^neuron: got LIF; allowed with start=converted: trainable_threshold$"):
        start.begin(before, ground())
    assert same(before.state_dict(), network(partial(LIF, triangle())).state_dict())
    with pytest.raises(ValueError, match=r"^neuron: got ReLU; allowed with start=converted: trainable_threshold$"):
        start.begin(network(ReLU), ground())
    with pytest.raises(ValueError, match=r"^start\.source: got a spiking network; allowed: runs with neuron=relu$"):
        Converted(spiking(), **SMALL).begin(spiking(), ground())
    deeper = partial(ConvNet, channels=(4, 6, 8), hidden=12)
    with pytest.raises(ValueError, match=r"^start\.source: of another architecture \(.*\); allowed: "):
        start.begin(spiking(deeper), ground())
    with pytest.raises(ValueError, match=r"^start\.source: of another architecture \(.* is \[12, 24\] instead of"):
        start.begin(spiking(partial(ConvNet, channels=(4, 6), hidden=13)), ground())
    analog, model = copy.deepcopy(ann()), spiking()
    analog.encoder, model.encoder = Frames(1), Frames(8)
    with pytest.raises(ValueError, match=r"^encoder\.steps: got 8, and the source was trained on 1 frames of each"):
        Converted(analog, **SMALL).begin(model, ground())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["neuron=lif"], "neuron: got LIF; allowed with start=converted: trainable_threshold"),
        (["start.percentile=0"], "start.percentile: got 0"),
        (["start.percentile=100.1"], "start.percentile: got 100.1"),
        (["start.scale=0"], "start.scale: got 0"),
        (["start.steps=0"], "start.steps: got 0"),
    ],
)
def test_the_command_line_is_checked_at_once(overrides, message):
    with pytest.raises(ConfigError) as error:
        config.compose("config", ["start=converted", SOURCE, *overrides])
    assert message in str(error.value)


def test_conversion_brings_its_neuron():
    composed = config.compose("config", ["start=converted", SOURCE]).config
    assert composed["neuron"]["_target_"].endswith(".TrainableThreshold")
    assert composed["connectivity"]["_target_"].endswith(".Static")


def test_a_converted_network_approaches_the_ann():
    """With soft reset, thresholds at the largest current and many steps, rates are activations up to a factor."""
    source, splits = digits_ann(), Digits().load()
    model = spiking(partial(ConvNet, channels=(8, 16), hidden=32), steps=128, classes=10, reset="soft").eval()
    record = Converted(source, batches=4, percentile=100.0, scale=1.0).begin(model, ground(splits.train))
    x = splits.test.batch(torch.arange(0, len(splits.test), 3)).x
    rates: dict[str, torch.Tensor] = {}
    activations: dict[str, torch.Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name, into=into: into.update({name: out.mean(0)}))
        for net, into in ((model, rates), (source, activations))
        for name, module in net.named_modules()
        if name in record["thresholds"]
    ]
    with torch.no_grad():
        ours, theirs = model(x), source(x)
    for hook in hooks:
        hook.remove()
    assert (ours.argmax(1) == theirs.argmax(1)).double().mean() > 0.95
    for name, rate in rates.items():
        both = torch.stack([rate.flatten(), activations[name].flatten()])
        assert torch.corrcoef(both)[0, 1] > 0.98, name
    first = next(iter(rates))
    # Statistics of batch norm are of the ANN's training in one network, of the calibration in the other.
    expected = (activations[first] / record["thresholds"][first]).clamp(max=1)
    assert (rates[first] - expected).abs().mean() < 0.02


def test_biases_follow_the_currents_by_hand():
    """`W a` is 2 and 6, `W s` is 1 and 2 (means over time): `c = (1 * 2 + 2 * 6) / (4 + 36)`."""
    made = [SpikingClassifier(Linear(1, 1), Direct(1), Normalize((0.0,), (1.0,)), Bounds()) for _ in range(2)]
    source: Any = made[0]
    model: Any = made[1]
    for net, weight in ((source, 2.0), (model, 2.0)):
        net.normalize = nn.Identity()
        nn.init.constant_(net.backbone.weight, weight)
        nn.init.constant_(net.backbone.bias, 5.0)
    with torch.no_grad(), following(model, source, torch.tensor([[1.0], [3.0]])) as factors:
        out = model.backbone(torch.tensor([[[1.0], [1.5]], [[0.0], [0.5]]]))
    assert factors == {"backbone": pytest.approx(0.35)}
    torch.testing.assert_close(out, torch.tensor([[[3.75], [4.75]], [[1.75], [2.75]]]))
    assert model.backbone.bias.item() == pytest.approx(1.75)
    assert model.backbone.bias.requires_grad
    with torch.no_grad(), following(model, source, torch.tensor([[1.0], [3.0]])) as factors:
        model.backbone(-torch.ones(2, 2, 1))
    assert factors == {"backbone": 0.0}
    with torch.no_grad(), following(model, source, torch.zeros(2, 1)) as factors:
        model.backbone(torch.ones(2, 2, 1))
    assert factors == {"backbone": 1.0}
    assert model.backbone.bias.item() == 5.0


def test_networks_without_biases_are_converted_as_published():
    backbone = partial(VGG, plan=(4, "pool", 6), hidden=(12,), bias="none")
    _, record = converted(ann(backbone), backbone=backbone)
    assert record["biases"] == {}
