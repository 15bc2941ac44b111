"""Spikes, synaptic operations and energy: against counts by hand, and loops over all connections that spikes take."""

import copy
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snnrobust.compressed import packed
from snnrobust.data.dataset import Split
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.evaluation.costs import compared, costs
from snnrobust.evaluation.evaluator import Evaluator, Settings
from snnrobust.models.convnet import ConvNet
from snnrobust.models.layers import AdaptiveAvgPool2d, AvgPool2d, Conv2d, Flatten, Linear, MaxPool2d
from snnrobust.models.residual import ConvexCombination, Residual
from snnrobust.models.sew_resnet import SEWResNet
from snnrobust.models.spiking_resnet import SpikingResNet
from snnrobust.models.wide_resnet import WideResNet
from snnrobust.randomness import isolated
from snnrobust.spiking.activation import ReLU
from snnrobust.spiking.classifier import Normalize, SpikingClassifier
from snnrobust.spiking.encoder import Direct, Encoder, Frames, Poisson
from snnrobust.spiking.encoders.phase import Phase
from snnrobust.spiking.neuron import IF, Neuron
from snnrobust.spiking.neurons.stochastic_gates import StochasticGates
from snnrobust.spiking.surrogate import triangle
from snnrobust.spiking.synapses import synapses, weighted
from snnrobust.threat import Bounds, Linf
from tests.contracts.toys import Toy, assert_same, state_of, streams

neuron = partial(IF, surrogate=triangle())


def classifier(backbone: nn.Module, encoder: Encoder | None = None) -> Any:
    """In eval mode, nothing normalised."""
    return SpikingClassifier(backbone, encoder or Direct(2), Normalize((0.0,), (1.0,)), Bounds()).eval()


def split(*shape: int, scale: int = 1) -> Split:
    draws = torch.Generator().manual_seed(3)
    values = torch.rand(*shape, generator=draws)
    whole = values if scale == 1 else (values * scale).to(torch.uint8)
    return Split(whole, torch.zeros(shape[0], dtype=torch.int64), scale)


# --- by hand


def two_layers() -> Any:
    """3-2-2: under (1, 0, 1/2) the first neuron fires at both steps, the second at the last one."""
    first, second = Linear(3, 2, bias=False), Linear(2, 2, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 1]]))
        second.weight.copy_(torch.tensor([[1.0, 0], [-2, 3]]))
    return classifier(nn.Sequential(Flatten(), first, neuron(), second))


ONE = Split(torch.tensor([1.0, 0, 0.5]).view(1, 3, 1, 1), torch.zeros(1, dtype=torch.int64))


def test_a_network_that_can_be_counted_by_hand():
    found = costs(two_layers(), ONE, 4)
    assert (found.weights, found.stored_weights, found.sparsity) == (10, 5, 0.5)
    assert found.densities == {"backbone.1": 2 / 6, "backbone.3": 3 / 4}
    its = found.operations
    assert its is not None
    assert not its.code
    assert its.spikes == {"backbone.2": 3}
    assert its.synaptic == {"backbone.3": 2 * 2 + 1 * 1}
    assert its.dense == {"backbone.3": 3 * 2}
    assert its.multiply_accumulates == {"backbone.1": 2}
    assert found.energy_ratio == found.ratio_to_dense == 6 / 5
    assert its.nanojoule == pytest.approx((5 * 0.9 + 2 * 4.6) / 1000)


def test_the_metrics_are_those_numbers():
    found = costs(two_layers(), ONE, 4)
    assert found.metrics() == pytest.approx(
        {
            "sparsity": 0.5,
            "stored_weights": 5,
            "stored_bytes": found.stored_bytes,
            "spikes": 3,
            "synaptic_operations": 5,
            "energy_ratio": 1.2,
            "energy_nanojoule": 0.0137,
        }
    )
    assert found.layers() == {
        "density": {"backbone.1": 2 / 6, "backbone.3": 3 / 4},
        "spikes": {"backbone.2": 3},
        "synaptic_operations": {"backbone.3": 5},
    }


def test_the_size_is_that_of_the_file():
    model = two_layers()
    assert costs(model, ONE, 4).stored_bytes == len(
        packed(model.state_dict(), ["backbone.1.weight", "backbone.3.weight"])
    )


def test_half_of_the_connections_of_every_neuron_cost_half_as_much():
    network = ConvNet((1, 8, 8), 4, neuron, (4,), 6)
    with torch.no_grad():
        for layer in (network.features[0], network.classifier[1]):
            assert isinstance(layer.weight, Tensor)
            layer.weight.abs_()
    model = classifier(network)
    dense = costs(model, split(5, 1, 8, 8), 5)
    with torch.no_grad():
        assert isinstance(network.classifier[3].weight, Tensor)
        network.classifier[3].weight[::2] = (
            0  # two of the four synapses of each hidden neuron; no spike depends on them
        )
    sparse = costs(model, split(5, 1, 8, 8), 5)
    assert dense.operations
    assert sparse.operations
    assert sparse.operations.spikes == dense.operations.spikes
    last = "backbone.classifier.3"
    assert dense.operations.synaptic[last] / sparse.operations.synaptic[last] == 2
    assert dense.ratio_to_dense == 1
    assert (
        sparse.ratio_to_dense == sum(dense.operations.synaptic.values()) / sum(sparse.operations.synaptic.values()) > 1
    )


def test_an_energy_ratio_of_exactly_two():
    first, second = Linear(4, 6), Linear(6, 8)
    with torch.no_grad():
        first.weight.fill_(1)
        second.weight[1::2] = 0
    model = classifier(nn.Sequential(Flatten(), first, neuron(), second))
    assert costs(model, split(3, 4, 1, 1), 2).energy_ratio == 2


# --- against loops over every connection


def pairs(x: Tensor, layer: nn.Conv2d | nn.Linear) -> float:
    """Spikes `[...]` of one step of one sample, times the weights other than zero that each of them meets."""
    present, spikes = layer.weight.detach().numpy() != 0, x.detach().double().numpy()
    if isinstance(layer, nn.Linear):
        return float(sum(spikes[i] for o in range(len(present)) for i in range(len(spikes)) if present[o, i]))
    stride, padding = layer.stride[0], layer.padding[0]
    assert isinstance(padding, int)
    out, inputs, height, width = present.shape
    sides = [
        (side + 2 * padding - kernel) // stride + 1
        for side, kernel in zip(spikes.shape[1:], (height, width), strict=True)
    ]
    total = 0.0
    for o, row, column in np.ndindex(out, *sides):
        first = o // (out // layer.groups) * inputs
        for c, i, j in np.ndindex(inputs, height, width):
            y, z = row * stride + i - padding, column * stride + j - padding
            if present[o, c, i, j] and 0 <= y < spikes.shape[1] and 0 <= z < spikes.shape[2]:
                total += spikes[first + c, y, z]
    return total


def unrolled(model: SpikingClassifier, data: Split, areas: dict[str, int]) -> dict[str, float]:
    """Means over samples, from what really arrives at each layer; averages are turned into sums by their areas."""
    seen: dict[str, Tensor] = {}
    handles = [
        layer.register_forward_pre_hook(lambda _layer, inputs, name=name: seen.update({name: inputs[0]}))
        for name, layer in weighted(model)
    ]
    model(data.batch(torch.arange(len(data))).x)
    for handle in handles:
        handle.remove()
    layers = dict(weighted(model))
    return {
        name: sum(pairs(one, layers[name]) for step in x for one in step) * areas.get(name, 1) / len(data)
        for name, x in seen.items()
    }


GROUPED = nn.Sequential(
    *(Conv2d(1, 4, 3, bias=False), neuron(), Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False), neuron()),
    *(MaxPool2d(2, 1), Conv2d(6, 4, 2, padding=2, bias=False), neuron(), AvgPool2d(2), AdaptiveAvgPool2d(1), Flatten()),
    Linear(4, 3),
)
NETWORKS: dict[str, tuple[nn.Module, dict[str, int]]] = {
    "average": (ConvNet((1, 9, 8), 3, neuron, (3, 4), 6), {"features.4": 4, "classifier.1": 4}),
    "maximum": (ConvNet((1, 9, 8), 3, neuron, (3, 4), 6, "max"), {}),
    "groups, strides, borders": (GROUPED, {"10": 16}),
    "sew": (SEWResNet((1, 6, 6), 3, neuron, (2, 1), "basic", 3, "cifar", 3, "none"), {"classifier.2": 9}),
    "sew, maximum": (SEWResNet((1, 8, 8), 3, neuron, (1, 1), "bottleneck", 2, "cifar", 3), {"classifier.2": 4}),
    "sums of currents": (
        SpikingResNet((1, 8, 8), 3, neuron, (1, 1), "basic", 3, "cifar", 3, "avg"),
        {"blocks.0.body.0": 9, "classifier.2": 4},
    ),
    "pre-activation": (WideResNet((1, 6, 6), 3, neuron, (1, 1), 1, 3), {"classifier.4": 9}),
}
"""With the entries that an averaged one stands for, by the layer that it arrives at."""


def lively(backbone: nn.Module) -> Any:
    """Every layer fires, and about a third of the connections is absent."""
    with isolated("lively"), torch.no_grad():
        network = copy.deepcopy(backbone)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.abs_().mul_(3).mul_(torch.rand_like(module.weight) > 0.3)
    return classifier(network)


@pytest.mark.parametrize("name", NETWORKS)
def test_operations_are_the_pairs_of_a_spike_and_a_weight(name):
    backbone, areas = NETWORKS[name]
    model, data = lively(backbone), split(2, 1, *{"average": (9, 8), "maximum": (9, 8)}.get(name, (8, 8)))
    if name in ("sew", "pre-activation"):
        data = split(2, 1, 6, 6)
    expected = unrolled(model, data, {f"backbone.{layer}": area for layer, area in areas.items()})
    first = next(iter(expected))
    del expected[first]
    its = costs(model, data, 2).operations
    assert its is not None
    assert min(expected.values()) > 0
    assert dict(its.synaptic) == pytest.approx(expected, rel=1e-6)
    assert [*its.multiply_accumulates] == [first]
    assert 0.4 < sum(its.synaptic.values()) / sum(its.dense.values()) < 0.9


@pytest.mark.parametrize("name", ["maximum", "sew"])
def test_without_absent_connections_all_are_counted(name):
    model = lively(NETWORKS[name][0])
    data = split(2, 1, *((9, 8) if name == "maximum" else (6, 6)))
    before = costs(model, data, 2).operations
    assert before is not None
    with torch.no_grad():
        for weight in synapses(model).values():
            weight[weight == 0] = 1e-30  # too little to make a spike
    after = costs(model, data, 2).operations
    assert after is not None
    assert after.spikes == before.spikes
    assert after.synaptic == after.dense == before.dense


def test_multiply_accumulates_are_what_a_spike_at_every_entry_would_cost():
    """A convolution at borders meets fewer weights."""
    conv = Conv2d(2, 3, 3, stride=2, padding=1, bias=False)
    conv.weight.data[0, 0, 0] = 0
    data = split(2, 2, 6, 6)
    its = costs(classifier(nn.Sequential(conv, neuron(), Flatten(), Linear(27, 2)), Direct(3)), data, 2).operations
    assert its is not None
    assert its.multiply_accumulates == {"backbone.0": pairs(torch.ones(2, 6, 6), conv)}


def test_adaptive_pooling_adds_over_windows_that_may_overlap():
    pool, first, last = AdaptiveAvgPool2d((2, 3)), Conv2d(1, 2, 1), Linear(12, 5)
    with torch.no_grad():
        first.weight.fill_(3)
    model = classifier(nn.Sequential(first, neuron(), pool, Flatten(), last))
    data = split(3, 1, 5, 7)
    spikes = model.backbone[:2](model.encoder(data.values)).detach().sum(0)
    single = torch.eye(35).view(1, 35, 5, 7)
    windows = (pool(single.unsqueeze(0)) > 0).sum((0, 1, 3, 4)).view(5, 7)  # that a spike at each place reaches
    assert windows.max() == 4
    its = costs(model, data, 3).operations
    assert its is not None
    assert its.synaptic == {"backbone.4": pytest.approx(float((spikes * windows).sum()) * 5 / 3)}


def test_combined_spikes_are_two():
    """Whatever shares they are combined with."""
    first, block = Linear(4, 3), Residual(nn.Identity(), nn.Identity(), ConvexCombination(), nn.Identity())
    with torch.no_grad():
        first.weight.fill_(3)
    its = costs(
        classifier(nn.Sequential(Flatten(), first, neuron(), block, Linear(3, 5))), split(3, 4, 1, 1), 3
    ).operations
    assert its is not None
    assert its.spikes["backbone.2"] > 0
    assert its.synaptic["backbone.4"] == pytest.approx(2 * 5 * its.spikes["backbone.2"])


# --- input codes


def test_spikes_of_a_code_cause_operations_and_are_not_those_of_neurons():
    model = classifier(nn.Sequential(Flatten(), Linear(4, 3), neuron(), Linear(3, 2)), Phase(8))
    data = split(3, 1, 2, 2)
    code = model.encoder(data.values)
    found = costs(model, data, 2)
    assert found.operations is not None
    assert found.operations.code
    assert found.operations.synaptic["backbone.1"] == pytest.approx(float(code.sum()) * 3 / 3)
    assert found.operations.multiply_accumulates == {}
    assert [*found.operations.spikes] == ["backbone.2"]


def test_events_count_each_once_whatever_they_are_divided_by():
    frames = split(4, 3, 2, 4, 4, scale=5)
    model = SpikingClassifier(
        nn.Sequential(Flatten(), Linear(32, 2), neuron(), Linear(2, 2)),
        Frames(3),
        Normalize((0.1, 0.1), (0.3, 0.3)),
        Bounds(),
    ).eval()
    its = costs(model, frames, 3).operations
    assert its is not None
    assert its.code
    assert its.synaptic["backbone.1"] == int(frames.values.sum()) * 2 / 4


@pytest.mark.parametrize("encoder", [Phase(4, weighted=True), Direct(4)])
def test_an_analog_code_is_multiplied(encoder):
    model = classifier(nn.Sequential(Flatten(), Linear(4, 3), neuron(), Linear(3, 2)), encoder)
    its = costs(model, split(3, 1, 2, 2), 2).operations
    assert its is not None
    assert not its.code
    assert its.multiply_accumulates == {"backbone.1": 12 * (1 if isinstance(encoder, Direct) else 4)}


def test_a_hidden_layer_without_neurons_is_multiplied_at_every_step():
    model = classifier(nn.Sequential(Flatten(), Linear(4, 3), neuron(), Linear(3, 2), Linear(2, 5)), Direct(4))
    its = costs(model, split(3, 4, 1, 1), 3).operations
    assert its is not None
    assert [*its.synaptic] == ["backbone.3"]
    assert its.multiply_accumulates == {"backbone.1": 12, "backbone.4": 4 * 10}


def test_the_maximum_of_currents_is_no_spike():
    conv, pool = Conv2d(1, 2, 1), MaxPool2d(2)
    model = classifier(nn.Sequential(conv, pool, Flatten(), Linear(2, 3), neuron(), Linear(3, 2)))
    its = costs(model, split(2, 1, 2, 2), 2).operations
    assert its is not None
    assert its.multiply_accumulates == {"backbone.0": 8, "backbone.3": 6}
    assert [*its.synaptic] == ["backbone.5"]


# --- networks of other kinds


def test_an_analog_network_has_no_spikes():
    model = classifier(ConvNet((1, 4, 4), 3, ReLU, (2,), 4), Direct(1))
    found = costs(model, split(3, 1, 4, 4), 2)
    assert found.metrics().keys() == {"sparsity", "stored_weights", "stored_bytes", "energy_nanojoule"}
    assert found.layers().keys() == {"density"}
    conv = model.backbone.features[0]
    macs = pairs(torch.ones(1, 4, 4), conv) + 8 * 4 + 4 * 3
    assert found.metrics()["energy_nanojoule"] == pytest.approx(macs * 4.6 / 1000)


def test_drawn_gates_send_what_they_let_pass():
    gated = partial(StochasticGates, neuron, probability=0.5)
    first = Linear(4, 300)
    with torch.no_grad():
        first.weight.fill_(2)
    model = classifier(nn.Sequential(Flatten(), first, gated(), Linear(300, 2)), Direct(4))
    model(torch.rand(1, 4, 1, 1))
    found = [costs(model, split(4, 4, 1, 1), size).operations for size in (4, 1)]
    assert found[0] is not None
    assert found[0] == found[1]
    assert [*found[0].spikes] == ["backbone.2.neuron"]
    share = found[0].synaptic["backbone.3"] / 2 / found[0].spikes["backbone.2.neuron"]
    assert share == pytest.approx(0.5, abs=0.05)


def test_what_nobody_can_count_is_named():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transposed = nn.ConvTranspose2d(1, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(2)

    found = costs(classifier(nn.Sequential(Odd(), neuron(), Linear(4, 2))), split(2, 1, 2, 2), 2)
    assert found.uncounted == ("0.transposed (ConvTranspose2d)",)
    assert found.metrics().keys() == {"sparsity", "stored_weights", "stored_bytes"}
    assert found.content()["uncounted"] == ["0.transposed (ConvTranspose2d)"]


def test_a_silent_network_has_no_ratio():
    model = two_layers()
    with torch.no_grad():
        for weight in synapses(model).values():
            weight.mul_(0)
    found = costs(model, ONE, 1)
    assert math.isnan(found.energy_ratio)
    assert found.operations is not None
    assert found.operations.synaptic == {"backbone.3": 0}  # spikes could arrive, but do not
    assert found.operations.multiply_accumulates == {"backbone.1": 0}


# --- a reference


def test_the_reference_has_spikes_and_connections_of_its_own():
    model, other = two_layers(), two_layers()
    with torch.no_grad():
        other.backbone[1].weight.mul_(0.5)  # one spike in two steps; none
        other.backbone[3].weight.fill_(1)
    found = compared(costs(model, ONE, 1), other, ONE, 1)
    assert found.energy_ratio == 2 / 5
    assert found.ratio_to_dense == 6 / 5
    content = found.content()
    assert (content["energy_ratio_to_reference"], content["energy_ratio_to_itself_dense"]) == (2 / 5, 6 / 5)
    assert content["reference"]["synaptic_operations"] == 2
    assert compared(costs(model, ONE, 1), model, ONE, 1).energy_ratio == 1


def test_a_reference_that_does_not_fit_is_refused():
    own = costs(two_layers(), ONE, 1)
    analog = classifier(nn.Sequential(Flatten(), Linear(3, 2), ReLU(), Linear(2, 2)))
    with pytest.raises(ValueError, match=r"^reference: it has no spiking neurons; allowed: runs of spiking networks$"):
        compared(own, analog, ONE, 1)
    larger = classifier(nn.Sequential(Flatten(), Linear(9, 2), neuron(), Linear(2, 2)))
    with pytest.raises(ValueError, match=r"^reference: it does not take these data \(.*\); allowed: runs on the same$"):
        compared(own, larger, ONE, 1)


# --- the pass


@pytest.mark.parametrize("encoder", [Direct(2), Poisson(3)])
def test_neither_batch_size_nor_order_matter(encoder):
    model = lively(NETWORKS["average"][0])
    model.encoder = encoder
    data = split(7, 1, 9, 8)
    found = [costs(model, data, size).metrics() for size in (1, 3, 7)]
    assert found[0] == found[1] == found[2]
    if not encoder.stochastic:
        assert costs(model, data.part(torch.arange(7).flip(0)), 3).metrics() == found[0]


def test_the_model_is_left_as_it_was():
    model = lively(NETWORKS["sew"][0])
    before, drawn = state_of(model), streams()
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    logits = model(torch.ones(2, 1, 6, 6))
    costs(model, split(2, 1, 6, 6), 2)
    assert_same(before, state_of(model))
    assert_same(drawn, streams())
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert torch.equal(model(torch.ones(2, 1, 6, 6)), logits)


def evaluated(model, reference=None):
    its = Evaluator({}, Linf(0.1), TRAINED, {}, Settings(batch_size=3), reference)
    return its(model, split(5, 1, 9, 8))


def test_an_evaluation_counts_in_eval_mode_and_a_foreign_model_has_no_costs():
    model = lively(NETWORKS["average"][0])
    expected = costs(model, split(5, 1, 9, 8), 5)
    model.train()
    report = evaluated(model)
    assert report.costs == expected
    assert report.metrics().items() >= expected.metrics().items()
    neurons = sum(isinstance(module, Neuron) for module in model.modules())
    assert expected.operations is not None
    assert len(expected.operations.spikes) == len(report.layers["firing_rate"]) == neurons
    foreign = evaluated(Toy(72))
    assert foreign.costs is None
    assert not foreign.metrics().keys() & expected.metrics().keys()


def test_an_evaluation_compares_with_its_reference():
    model, other = lively(NETWORKS["average"][0]), lively(NETWORKS["maximum"][0])
    found, its = evaluated(model, other).costs, evaluated(other).costs
    assert found is not None
    assert its is not None
    assert found.reference == its
    assert found.energy_ratio == its.metrics()["synaptic_operations"] / found.metrics()["synaptic_operations"]
