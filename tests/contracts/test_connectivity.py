"""Every yaml file of a connectivity keeps the number of connections in training, and wires without a trace."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from snnrobust import config, yamls
from snnrobust.spiking.synapses import synapses
from snnrobust.training.connectivity.base import Connectivity
from tests.contracts.toys import assert_same, state_of, streams
from tests.unit.pruned import count, is_plus_zero, pattern, pruned
from tests.unit.trained import SGD, same, train, trainer


@cache
def connectivity_of(choice: str) -> Connectivity:
    node = config.compose("config", ["start=random_connectivity", f"connectivity={choice}"]).config
    built: Connectivity = config.instantiate("connectivity", node["connectivity"])
    return built


@pytest.fixture(params=yamls.groups()["connectivity"])
def connectivity(request) -> Connectivity:
    return connectivity_of(request.param)


def trained(connectivity: Connectivity, model: Any, seed: int = 0, **settings: Any) -> dict[str, torch.Tensor]:
    run = replace(trainer(seed=seed, lr=0.02, **settings), connectivity=connectivity)
    return train(run, model)[0].state


def test_the_number_of_connections_stays_in_training(connectivity, make_tiny):
    model = pruned(make_tiny())
    before = count(pattern(model))
    for _ in range(3):
        state = trained(connectivity, model, clip=0.5, accumulate=2)
        assert count(pattern(model)) == before
        weights = [state[f"{name}.weight"] for name in synapses(model)]
        assert sum(int(weight.count_nonzero()) for weight in weights) == before
        assert all(is_plus_zero(weight[weight == 0]) for weight in weights)


def test_the_connections_that_there_are_learn(connectivity, make_tiny):
    model = pruned(make_tiny())
    start = {name: weight.detach().clone() for name, weight in synapses(model).items()}
    trained(connectivity, model)
    for name, weight in synapses(model).items():
        assert not torch.equal(weight[start[name] != 0], start[name][start[name] != 0])


def test_the_same_seed_gives_the_same_bits(connectivity, make_tiny):
    first, second = (trained(connectivity, pruned(make_tiny()), seed=3) for _ in range(2))
    assert same(first, second)


def test_wiring_changes_neither_the_network_nor_the_global_streams(connectivity, make_tiny):
    model = pruned(make_tiny())
    before, drawn = state_of(model), streams()
    connectivity.wire(model, 0)
    assert_same(before, state_of(model))
    assert_same(drawn, streams())


def test_the_number_of_connections_of_a_dense_network_stays_too(connectivity, make_tiny):
    model = make_tiny()
    before = count(pattern(model))
    trained(connectivity, model)
    assert count(pattern(model)) == before


def test_what_does_not_train_and_a_network_without_synapses_are_left_alone(connectivity):
    frozen = nn.Linear(3, 2)
    with torch.no_grad():
        frozen.weight[0] = -0.0
    frozen.weight.requires_grad_(False)
    model = nn.Sequential(frozen, nn.BatchNorm1d(2))
    before = state_of(model)
    optimizer = SGD(model[1].parameters(), lr=0.1)
    for network in (model, model[1]):
        wiring = connectivity.wire(network, 0)
        wiring.before_step()
        wiring.after_step(optimizer)
    assert_same(before, state_of(model))
