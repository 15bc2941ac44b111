"""Random weights with random connections, and with those of another network."""

import copy
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnrobust.conversion.base import Ground
from snnrobust.conversion.connections import apply_connections
from snnrobust.conversion.connectivity_of import ConnectivityOf
from snnrobust.conversion.random_connectivity import RandomConnectivity
from snnrobust.data.augmentation import NONE
from snnrobust.models.convnet import ConvNet
from snnrobust.regularizers.none import NoRegularizer
from snnrobust.spiking.activation import ReLU
from snnrobust.spiking.classifier import Normalize, SpikingClassifier
from snnrobust.spiking.encoder import Direct
from snnrobust.spiking.neuron import LIF
from snnrobust.spiking.surrogate import triangle
from snnrobust.spiking.synapses import sparsity, synapses
from snnrobust.threat import Bounds
from snnrobust.training.defences.none import NoDefence
from tests.contracts.toys import assert_same, state_of, streams
from tests.unit.pruned import count, is_plus_zero, pattern, pruned
from tests.unit.trained import data

SIZES = {"backbone.features.0": 72, "backbone.features.4": 1152, "backbone.classifier.1": 2048}
SIZES["backbone.classifier.3"] = 128


def network(neuron: Any = None, hidden: int = 32) -> SpikingClassifier:
    """Two convolutions and two linear layers, of 3400 weights."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        backbone = ConvNet((1, 8, 8), 4, neuron or partial(LIF, surrogate=triangle()), (8, 16), hidden)
    return SpikingClassifier(backbone, Direct(2), Normalize((0.5,), (0.3,)), Bounds())


def ground(seed: int = 0) -> Ground:
    return Ground(data(), data(), NONE, NoRegularizer(), NoDefence(), seed, lambda _epoch: None)


@pytest.mark.parametrize("layers", ["uniform", "erdos_renyi"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9, 0.95, 0.99, 0.998])
def test_the_number_of_connections_is_met_exactly(layers, share):
    model, before = network(), network()
    record = RandomConnectivity(share, layers).begin(model, ground())
    found = pattern(model)
    assert count(found) == round((1 - share) * 3400)
    assert all(there.any() for there in found.values())
    assert record["sparsity"] == sparsity(synapses(model)) == pytest.approx(share, abs=1 / 3400)
    assert record["densities"] == {name: int(there.sum()) / SIZES[name] for name, there in found.items()}
    for (name, weight), drawn in zip(synapses(model).items(), synapses(before).values(), strict=True):
        assert torch.equal(weight[found[name]], drawn[found[name]])
        assert is_plus_zero(weight[~found[name]])


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95])
def test_uniform_layers_have_the_same_share(share):
    model = network()
    RandomConnectivity(share).begin(model, ground())
    for name, there in pattern(model).items():
        assert abs(int(there.sum()) - (1 - share) * SIZES[name]) < 1


def test_erdos_renyi_by_hand():
    model = network()
    RandomConnectivity(0.9, "erdos_renyi").begin(model, ground())
    sums = {  # of the dimensions
        "backbone.features.0": 8 + 1 + 3 + 3,
        "backbone.features.4": 16 + 8 + 3 + 3,
        "backbone.classifier.1": 32 + 64,
        "backbone.classifier.3": 4 + 32,
    }
    for name, there in pattern(model).items():
        assert abs(int(there.sum()) - 340 * sums[name] / 177) < 1


def test_a_layer_that_is_full_passes_the_rest_on():
    model = network()
    RandomConnectivity(0.5, "erdos_renyi").begin(model, ground())
    found = {name: int(there.sum()) for name, there in pattern(model).items()}
    assert found["backbone.features.0"] == 72
    assert found["backbone.classifier.3"] == 128
    assert found["backbone.features.4"] == pytest.approx(1500 * 30 / 126, abs=1)
    assert found["backbone.classifier.1"] == pytest.approx(1500 * 96 / 126, abs=1)


def test_which_connections_there_are_depends_on_the_seed_of_the_run_alone():
    found = []
    for seed, stream in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(stream)
        before = streams()
        model = network()
        RandomConnectivity().begin(model, ground(seed))
        assert_same(before, streams())
        found.append(torch.cat([there.flatten() for there in pattern(model).values()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_every_place_is_as_probable_as_any_other():
    times = torch.zeros(32, 64)
    for seed in range(200):
        model = network()
        RandomConnectivity(0.9).begin(model, ground(seed))
        times += pattern(model)["backbone.classifier.1"]
    assert times.mean().item() == pytest.approx(20, abs=0.2)
    assert times.var().item() == pytest.approx(200 * 0.1 * 0.9, rel=0.15)
    assert times.max() < 20 + 6 * math.sqrt(18)


def test_too_few_connections_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^start\.sparsity: .*leaves 3 of 3400 connections for 4 layers") as error:
        RandomConnectivity(0.999).begin(network(), ground())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("start", [RandomConnectivity(0.9), RandomConnectivity(0.0)])
def test_nothing_but_synapses_changes(start):
    model, before = network(), network().state_dict()
    start.begin(model, ground())
    names = {f"{name}.weight" for name in SIZES}
    state = model.state_dict()
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], before[name]) for name in state.keys() - names)
    if start.sparsity == 0:
        assert all(torch.equal(state[name], before[name]) for name in names)


# --- weights of those that are left


def left(weight: Tensor, there: Tensor, rescale: Any = "none") -> Tensor:
    result = weight.clone()
    apply_connections(result, there, rescale)
    return result


def test_each_neuron_is_rescaled_by_what_it_has_left():
    weight = torch.tensor([[[[1.0, -2.0], [3.0, 4.0]]], [[[1.0, 1.0], [1.0, 1.0]]], [[[-1.0, -1.0], [-1.0, -1.0]]]])
    there = torch.tensor([[[[1, 0], [0, 0]]], [[[1, 1], [1, 1]]], [[[0, 0], [0, 0]]]]).bool()
    assert left(weight, there).flatten(1).tolist() == [[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
    found = left(weight, there, "fan_in")
    assert found.flatten(1).tolist() == [[2, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]  # sqrt(4 / 1), 1, none
    assert is_plus_zero(found[~there])


def test_rescaled_currents_have_the_variance_of_dense_ones():
    random = torch.Generator().manual_seed(0)
    weight, x = torch.randn(2000, 100, generator=random) / 10, torch.randn(100, generator=random)
    there = torch.rand(2000, 100, generator=random) < 0.1
    there[:, 0] = True
    dense, sparse = (weight @ x).var(), (left(weight, there, "fan_in") @ x).var()
    assert sparse.item() == pytest.approx(dense.item(), rel=0.2)
    assert (left(weight, there) @ x).var() < 0.2 * dense


def test_a_weight_that_was_drawn_as_zero_is_there_nevertheless():
    there = torch.tensor([[True, True, False, False]])
    found = left(torch.tensor([[0.0, -0.0, 0.0, 1.0]]), there)
    assert torch.equal(found != 0, there)
    assert found.abs().max() < 1e-9


# --- the connections of another network


def test_the_connections_are_those_of_the_source_and_the_weights_are_not():
    source, model, before = pruned(network(ReLU)).eval(), network(), network()
    with torch.no_grad():
        for weight in synapses(source).values():
            weight.mul_(3)
    kept = state_of(source)
    record = ConnectivityOf(source).begin(model, ground())
    found = pattern(model)
    assert all(torch.equal(found[name], there) for name, there in pattern(source).items())
    for (name, weight), drawn in zip(synapses(model).items(), synapses(before).values(), strict=True):
        assert torch.equal(weight[found[name]], drawn[found[name]])
    assert record == {
        "sparsity": sparsity(synapses(source)),
        "densities": {name: int(there.sum()) / SIZES[name] for name, there in found.items()},
    }
    assert_same(kept, state_of(source))


def test_the_weights_are_rescaled_if_that_is_asked():
    source, plain = pruned(network(ReLU)), network()
    scaled = copy.deepcopy(plain)
    ConnectivityOf(source).begin(plain, ground())
    ConnectivityOf(source, "fan_in").begin(scaled, ground())
    name = "backbone.classifier.1"
    there = pattern(source)[name]
    factor = (64 / there.sum(1, keepdim=True)).sqrt()
    assert torch.allclose(synapses(scaled)[name], synapses(plain)[name] * factor)


class Deeper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = network().backbone
        self.further = nn.Linear(4, 4)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (lambda: network(hidden=16), r"backbone\.classifier\.1 is \[16, 64\] instead of \[32, 64\]"),
        (Deeper, r"further: the model lacks it"),
        (lambda: nn.Sequential(nn.Linear(2, 2)), r"backbone\.features\.0: the source lacks it"),
    ],
)
def test_another_architecture_is_refused_in_one_line_and_nothing_is_changed(source, said):
    model, before = network(), network().state_dict()
    with pytest.raises(ValueError, match=rf"^start\.source: of another architecture \({said}\)") as error:
        ConnectivityOf(source()).begin(model, ground())
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
