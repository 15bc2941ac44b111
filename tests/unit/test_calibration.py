"""Percentiles and thresholds against sorting, against one pass per layer, and by hand."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from snnrobust.conversion.calibration import Calibration, Level, calibrated, estimate_statistics, level, shown
from snnrobust.conversion.percentile import percentile, smallest
from snnrobust.models.cnn_dvs import CNNDVS
from snnrobust.models.convnet import ConvNet
from snnrobust.models.layers import Linear
from snnrobust.models.resnet import ResNet
from snnrobust.models.sew_resnet import SEWResNet
from snnrobust.models.spiking_resnet import SpikingResNet
from snnrobust.models.vgg import VGG
from snnrobust.models.wide_resnet import WideResNet
from snnrobust.randomness import isolated
from snnrobust.spiking.classifier import Normalize, SpikingClassifier
from snnrobust.spiking.encoder import Direct, Frames, Poisson
from snnrobust.spiking.encoders.phase import Phase
from snnrobust.spiking.neurons.trainable_threshold import TrainableThreshold
from snnrobust.spiking.surrogate import triangle
from snnrobust.threat import Bounds

HOW = Calibration(steps=11, batch_size=8, percent=99.0)
NETWORKS: dict[str, Any] = {
    "convnet": partial(ConvNet, channels=(4, 6), hidden=12),
    "convnet_max": partial(ConvNet, channels=(4,), hidden=8, pool="max"),
    "vgg": partial(VGG, plan=(4, 6, "pool", 6), hidden=(16, 12), dropout=0.5),
    "resnet": partial(ResNet, blocks=(1, 2), strides=(1, 2), width=4, join="convex"),
    "resnet_hidden": partial(ResNet, blocks=(1, 1), strides=(1, 2), width=4, hidden=8),
    "wide_resnet": partial(WideResNet, blocks=(1, 1), width=2, stem=3),
    "sew_resnet": partial(SEWResNet, blocks=(1, 1), width=4, stem="cifar", stem_width=4),
    "sew_bottleneck": partial(SEWResNet, blocks=(1, 1), width=3, stem_width=4, block="bottleneck", pool="avg"),
    "spiking_resnet": partial(SpikingResNet, blocks=(1, 1), width=4, stem="cifar", stem_width=4, pool="none"),
}


def network(backbone: Any = None, encoder: Any = None, seed: int = 0, **neuron: Any) -> Any:
    """Weights at random, large enough that all layers fire; affine batch norm that is not the identity."""
    with isolated("calibration", seed):
        built = (backbone or NETWORKS["convnet"])((1, 8, 8), 4, partial(TrainableThreshold, triangle(), **neuron))
        for module in built.modules():
            if isinstance(module, _BatchNorm):
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.uniform_(module.bias, -0.5, 0.5)
            if isinstance(module, nn.Linear):
                module.weight.data.mul_(3)
    return SpikingClassifier(built, encoder or Direct(3), Normalize((0.5,), (0.3,)), Bounds())


def neurons(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, TrainableThreshold)}


def pictures(number=20, seed=0):
    return torch.rand(number, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


class _Reached(Exception):
    pass


@torch.no_grad()
def one_pass_per_layer(model, order, x, how):
    """The published way, for every layer anew: run the network up to it, look at its currents, give it a threshold.

    All entries are sorted; the current of every mini-batch is written out in full.
    """
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    found, layers = {}, neurons(model)
    for name in order:

        def stop(_module, inputs, name=name):
            (current,) = inputs
            largest = -float("inf")
            for begin in range(0, current.shape[1], how.batch_size):
                entries = current[:, begin : begin + how.batch_size].reshape(-1).sort().values
                largest = max(largest, float(entries[round(how.percent / 100 * (len(entries) - 1))]))
            found[name] = largest
            raise _Reached

        handle = layers[name].register_forward_pre_hook(stop)
        seen = torch.stack([model.normalize(x)] * how.steps)
        with pytest.raises(_Reached):
            model.backbone(seen)
        handle.remove()
        layers[name].threshold.data.fill_(max(found[name], layers[name].minimum))
    return found


@pytest.mark.parametrize("number", [1, 2, 3, 10, 996, 997, 998, 5000, 100_000])
@pytest.mark.parametrize("percent", [0.001, 1, 33.3, 50, 90, 99.7, 99.99, 100])
def test_a_percentile_is_that_of_sorted_entries(number, percent):
    draws = torch.Generator().manual_seed(number)
    for values in (
        torch.randn(number, generator=draws),
        torch.randint(-2, 3, (number,), generator=draws).float(),
        torch.arange(number).float(),
        -torch.arange(number).float(),
    ):
        expected = values.sort().values[round(percent / 100 * (number - 1))]
        assert torch.equal(percentile(values, percent), expected)


@pytest.mark.parametrize("copies", [2, 7, 100])
@pytest.mark.parametrize("percent", [0.5, 40, 99.7, 100])
def test_copies_count_as_if_they_were_there(copies, percent):
    values = torch.randn(3, 311, generator=torch.Generator().manual_seed(0))
    assert torch.equal(percentile(values, percent, copies), percentile(values.repeat(copies, 1), percent))


def test_every_rank_is_found_where_the_estimate_of_the_bound_is_misled():
    """The entries at the sampled places are all among the largest: the bound is too high."""
    values = torch.arange(5000.0)
    values[::997] += 10_000
    expected = values.sort().values
    for k in (1, 2, 100, 4990, 4994, 4995, 5000):
        assert smallest(values, k) == expected[k - 1]


def test_the_layout_of_memory_does_not_matter():
    values = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    for view in (values, values.to(memory_format=torch.channels_last), values.transpose(0, 1), values[:, ::2]):
        assert percentile(view, 77.0) == view.reshape(-1).sort().values[round(0.77 * (view.numel() - 1))]


@pytest.mark.parametrize("number", [17, 40_000])
def test_more_entries_than_torch_takes_are_no_matter(number):
    """`torch.quantile` ends at 16 M entries; here 2^24 + number."""
    values = torch.zeros(2**24 + number)
    values[:number] = torch.arange(1.0, number + 1)
    assert smallest(values, len(values) - number + 1) == 1
    assert smallest(values, len(values) - 4) == number - 4


def test_the_largest_percentile_of_the_mini_batches_counts():
    current = torch.arange(24.0).view(2, 12, 1)  # steps 0 and 1 of sample n: n, 12 + n
    found = level(current, Calibration(steps=2, batch_size=4, percent=50.0))
    # Mini-batches {0..3, 12..15}, {4..7, 16..19}, {8..11, 20..23}: of 8 entries the 1 + round(3.5) = 5th.
    assert found == Level(percentile=20.0, highest=23.0)


def test_a_constant_current_is_looked_at_once():
    once = torch.randn(1, 30, 7, generator=torch.Generator().manual_seed(0))
    how = Calibration(steps=9, batch_size=8, percent=93.0)
    assert level(once.expand(9, 30, 7), how) == level(once.repeat(9, 1, 1), how)


def chain(first: float, second: float) -> Any:
    """Two linear layers of one weight, each with one neuron behind it, for inputs that are not normalised."""
    linear = [Linear(1, 1, bias=False), Linear(1, 1, bias=False)]
    for layer, weight in zip(linear, (first, second), strict=True):
        nn.init.constant_(layer.weight, weight)
    backbone = nn.Sequential(linear[0], TrainableThreshold(triangle()), linear[1], TrainableThreshold(triangle()))
    model: Any = SpikingClassifier(backbone, Direct(1), Normalize((0.0,), (1.0,)), Bounds())
    model.normalize = nn.Identity()
    return model


@pytest.mark.parametrize(
    ("percent", "weight", "first", "second", "thresholds"),
    [
        (100.0, 3, Level(4, 4), Level(3, 3), [4, 3]),
        (60.0, 3, Level(4, 4), Level(3, 3), [4, 3]),  # 4th of six
        (60.0, -3, Level(4, 4), Level(-3, 0), [4, 0.03]),
        (80.0, -3, Level(4, 4), Level(0, 0), [4, 0.03]),  # 5th
        (20.0, -3, Level(2, 4), Level(-3, -3), [2, 0.03]),  # 2nd; with threshold 2 both samples fire at every step
    ],
)
def test_two_layers_of_one_neuron_by_hand(percent, weight, first, second, thresholds):
    """Currents 2 and 4 of two samples, at all three steps.

    With the threshold 4, hard reset and no leak, the first sample has the potentials 2, 4, 2 and fires at the second
    step, the other one always: the currents behind are 0, w, 0 and w, w, w.
    """
    model = chain(2, weight)
    found = calibrated(model, neurons(model), torch.tensor([[1.0], [2.0]]), Calibration(3, 2, percent))
    assert found == {"backbone.1": first, "backbone.3": second}
    assert [n.threshold.item() for n in neurons(model).values()] == pytest.approx(thresholds)


def test_a_layer_that_never_fires_leaves_silence_behind_it():
    model = chain(-1, 3)
    found = calibrated(model, neurons(model), torch.tensor([[1.0], [2.0]]), Calibration(3, 2, 100.0))
    assert found == {"backbone.1": Level(-1, -1), "backbone.3": Level(0, 0)}


@pytest.mark.parametrize("name", NETWORKS)
def test_one_pass_gives_what_one_pass_per_layer_gives(name):
    model, x = network(NETWORKS[name]), pictures()
    before = copy.deepcopy(model)
    levels = calibrated(model, neurons(model), x, HOW)
    assert levels.keys() == neurons(model).keys()
    expected = one_pass_per_layer(before, list(levels), x, HOW)
    for layer, value in expected.items():
        assert levels[layer].percentile == pytest.approx(value, rel=1e-5, abs=1e-6), layer
    assert len({round(value, 4) for value in expected.values()}) > len(expected) / 2
    assert min(expected.values()) > 0.03, "too silent to tell layers apart"


@pytest.mark.parametrize("name", ["vgg", "spiking_resnet", "wide_resnet", "sew_resnet"])
def test_no_layer_hears_of_another_ones_currents(name):
    """The first currents a thousand times as large: they are followed by the same spikes, hence the same thresholds.

    Code that keeps the largest value so far where another layer measures would report it again.
    """
    model, scaled, x = network(NETWORKS[name]), network(NETWORKS[name]), pictures()
    first = next(iter(calibrated(model, neurons(model), x, HOW)))
    norm = next(m for m in scaled.modules() if isinstance(m, _BatchNorm))
    norm.weight.data *= 1024
    norm.bias.data *= 1024
    levels, others = (calibrated(m, neurons(m), x, HOW) for m in (model, scaled))
    assert list(levels) == list(others)
    assert others.pop(first).percentile == pytest.approx(1024 * levels.pop(first).percentile)
    assert others == levels
    assert levels


def test_dropout_is_off_and_batch_norm_sees_the_samples_alone():
    model, x = network(NETWORKS["vgg"]), pictures()
    same = copy.deepcopy(model)
    norms: Any = [module for module in same.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.running_mean.fill_(1e6)
        norm.running_var.fill_(float("nan"))
    assert calibrated(model.train(), neurons(model), x, HOW) == calibrated(same.eval(), neurons(same), x, HOW)
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in same.modules())


@pytest.mark.parametrize("name", ["convnet", "resnet_hidden", "wide_resnet"])
def test_running_statistics_are_those_of_batch_and_time(name):
    """With `n - 1` in the variance; equal steps are looked at once (`models/layers.py`)."""
    model, x = network(NETWORKS[name], threshold=0.4), pictures()
    norms: Any = {key: m for key, m in model.named_modules() if isinstance(m, _BatchNorm)}
    momenta = [None, *(0.1 * k for k in range(1, len(norms)))]
    for norm, momentum in zip(norms.values(), momenta, strict=True):
        norm.momentum = momentum
        norm.running_var.fill_(float("nan"))
    seen = {}
    hooks = [m.register_forward_pre_hook(lambda _m, i, k=k: seen.update({k: i[0]})) for k, m in norms.items()]
    estimate_statistics(model, x)
    estimate_statistics(model, x)  # from scratch
    for hook in hooks:
        hook.remove()
    for key, norm in norms.items():
        current = seen[key][:1] if seen[key].stride(0) == 0 else seen[key]
        channels = current.flatten(0, 1).transpose(0, 1).flatten(1).double()
        torch.testing.assert_close(norm.running_mean.double(), channels.mean(1), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(norm.running_var.double(), channels.var(1), rtol=1e-5, atol=1e-6)
    assert [norm.momentum for norm in norms.values()] == momenta
    assert all(norm.num_batches_tracked == 1 for norm in norms.values())
    assert all(norm.training for norm in norms.values())


def test_modes_and_hooks_are_as_before_even_after_an_error():
    model = network()
    norm = next(m for m in model.modules() if isinstance(m, _BatchNorm))
    norm.weight.data.fill_(float("nan"))
    norm.eval()
    with pytest.raises(ValueError, match=r"^start\.source: the currents of backbone\.features\.2 are not finite;"):
        calibrated(model, neurons(model), pictures(), HOW)
    assert not norm.training
    assert norm.momentum == 0.1
    assert model.training
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_too_little_memory_is_one_line():
    with pytest.raises(
        ValueError, match=r"^start\.steps: got 100000000000, for which the memory does not suffice;"
    ) as e:
        calibrated(model := network(), neurons(model), pictures(), Calibration(10**11, 8, 99.0))
    assert "\n" not in str(e.value)


def test_a_direct_code_is_lengthened_without_copies():
    model, x = network(encoder=Direct(2)), pictures(3)
    code = shown(model, x, 7)
    assert code.shape == (7, 3, 1, 8, 8)
    assert code.stride(0) == 0
    assert torch.equal(code[6], model.normalize(x))
    assert torch.equal(shown(network(encoder=Direct(1)), x, 5), code[:5])


def test_other_codes_are_shown_again_and_again():
    x = pictures(3)
    phase = network(encoder=Phase(8))
    assert torch.equal(shown(phase, x, 19), Phase(19)(x))
    frames = network(encoder=Frames(2))
    events = torch.rand(3, 2, 1, 8, 8)
    seen = shown(frames, events, 5)
    played = frames.normalize(events).transpose(0, 1)
    assert torch.equal(seen, torch.cat([played, played, played[:1]]))
    assert torch.equal(shown(frames, events, 1), played[:1])
    with isolated("poisson"):
        drawn = shown(network(encoder=Poisson(4)), torch.full_like(x, 0.5), 8)
    assert not torch.equal(drawn[:4], drawn[4:])


def test_events_are_calibrated_as_well():
    backbone = CNNDVS((2, 28, 28), 4, partial(TrainableThreshold, triangle()), channels=(4, 4), hidden=8)
    model = SpikingClassifier(backbone, Frames(3), Normalize((0.0, 0.0), (1.0, 1.0)), Bounds())
    events = torch.rand(6, 3, 2, 28, 28, generator=torch.Generator().manual_seed(0))
    levels = calibrated(model, neurons(model), events, HOW)
    assert levels.keys() == neurons(model).keys()


@pytest.mark.parametrize("neuron", [{"tau": 2.0}, {"tau": 2.0, "decay_input": True}, {"reset": "soft"}])
def test_leaks_and_soft_resets_are_calibrated_as_they_fire(neuron):
    model, x = network(**neuron), pictures()
    before = copy.deepcopy(model)
    levels = calibrated(model, neurons(model), x, HOW)
    expected = one_pass_per_layer(before, list(levels), x, HOW)
    assert {name: found.percentile for name, found in levels.items()} == pytest.approx(expected, rel=1e-4)
    other = network()
    assert calibrated(other, neurons(other), x, HOW) != levels


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("neuron", [{}, {"tau": 3.0, "decay_input": True}, {"reset": "soft"}, {"tau": 1.5}])
def test_spikes_without_a_graph_are_those_with_one(neuron, constant):
    """Bit for bit, whether a kernel makes them or autograd follows them."""
    layer = TrainableThreshold(triangle(), threshold=0.7, **neuron)
    current = torch.randn(1 if constant else 6, 3, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    current = current.expand(6, -1, -1, -1, -1)
    for input in (current, current.double(), current.to(torch.bfloat16)):
        with_graph = layer(input)
        with torch.no_grad():
            without = layer(input)
        assert torch.equal(with_graph.detach(), without)
        assert with_graph.dtype == without.dtype
    assert with_graph.any()
