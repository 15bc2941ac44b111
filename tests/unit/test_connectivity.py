"""Absent connections stay absent, and those that are there train as if there were no others."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.spiking.synapses import synapses
from snnrobust.threat import Linf
from snnrobust.training.averaging import averaged
from snnrobust.training.connectivity.base import Connectivity, Free, trained_synapses
from snnrobust.training.connectivity.static import Static
from snnrobust.training.defences.none import NoDefence
from snnrobust.training.defences.rat import Rat
from tests.unit.pruned import is_plus_zero, pattern, pruned
from tests.unit.trained import ADAM, SGD, train, trainer

NESTEROV = partial(SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)
OPTIMIZERS = {
    "nesterov": NESTEROV,
    "adam": partial(ADAM, lr=0.01, weight_decay=0.01),
    "adamw": partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.005, momentum=0.9, weight_decay=0.01),
    "radam": partial(torch.optim.RAdam, lr=0.01, weight_decay=0.01),
    "adagrad": partial(torch.optim.Adagrad, lr=0.05, weight_decay=0.01),
}
RAT = Rat(ProjectedGradient(Linf(0.05), steps=1), beta=0.05)
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ema": {"ema": 0.9},
    "clip": {"clip": 0.1},
    "accumulate": {"accumulate": 2},
    "bfloat16": {"precision": "bfloat16"},
}


def remembered(make: Callable[..., Any]) -> tuple[Callable[[Iterable[nn.Parameter]], Any], list[Any]]:
    """The same factory, and a list of what it makes."""
    made: list[Any] = []

    def making(parameters: Iterable[nn.Parameter]) -> Any:
        made.append(make(parameters))
        return made[-1]

    return making, made


def trained(
    model: Any, connectivity: Connectivity, make: Callable[..., Any] = NESTEROV, defence: Any = None, **settings: Any
) -> tuple[dict[str, Tensor], Any]:
    """The weights that are kept after six epochs (three steps each), and the optimizer."""
    making, made = remembered(make)
    run = replace(trainer(defence=defence, epochs=6, **settings), connectivity=connectivity)
    run = replace(run, settings=replace(run.settings, optimizer=making))
    return train(run, model)[0].state, made[0]


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_absent_weights_are_zero_after_many_steps_of_any_optimizer(make_tiny, make):
    model = pruned(make_tiny())
    before = pattern(model)
    state, optimizer = trained(model, Static(), make)
    for name, weight in synapses(model).items():
        assert is_plus_zero(weight[~before[name]])
        assert is_plus_zero(state[f"{name}.weight"][~before[name]])
        for kept in optimizer.state[weight].values():
            if isinstance(kept, Tensor) and kept.shape == weight.shape:
                assert is_plus_zero(kept[~before[name]])
    after = pattern(model)
    assert all(torch.equal(after[name], there) for name, there in before.items())


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("defence", [NoDefence(), RAT], ids=["none", "rat"])
def test_absent_weights_are_zero_whatever_else_a_step_does(make_tiny, settings, defence):
    model = pruned(make_tiny())
    before = pattern(model)
    start = {name: weight.detach().clone() for name, weight in synapses(model).items()}
    state, _ = trained(model, Static(), defence=defence, **settings)
    for name, there in before.items():
        assert is_plus_zero(state[f"{name}.weight"][~there])
        assert not torch.equal(state[f"{name}.weight"][there], start[name][there])


@pytest.mark.parametrize("defence", [NoDefence(), RAT], ids=["none", "rat"])
def test_without_static_connectivity_they_come_back(make_tiny, defence):
    """What the tests above could not tell from an idle optimizer otherwise."""
    model = pruned(make_tiny())
    before = pattern(model)
    trained(model, Free(), defence=defence)
    assert all(bool((weight[~before[name]] != 0).any()) for name, weight in synapses(model).items())


class Masked(nn.Module):
    """`w * m` in every forward pass."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * cast(Tensor, self.mask)


def masked_in_the_forward_pass(model: Any) -> Any:
    for name, there in pattern(model).items():
        parametrize.register_parametrization(model.get_submodule(name), "weight", Masked(there.float()))
    return model


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_others_train_as_with_a_mask_in_the_forward_pass(make_tiny, make):
    model, reference = pruned(make_tiny()), masked_in_the_forward_pass(pruned(make_tiny()))
    trained(model, Static(), make)
    trained(reference, Free(), make)
    expected = synapses(reference)
    assert all(torch.equal(weight, expected[name]) for name, weight in synapses(model).items())


def test_a_gradient_is_clipped_by_the_length_of_what_is_there(make_tiny):
    """With SGD: the parameters of the reference are in another order, and so is the rounding of their norm."""
    model, reference = pruned(make_tiny()), masked_in_the_forward_pass(pruned(make_tiny()))
    trained(model, Static(), clip=0.05)
    trained(reference, Free(), clip=0.05)
    expected = synapses(reference)
    for name, weight in synapses(model).items():
        assert torch.allclose(weight, expected[name], rtol=1e-4, atol=1e-6), name


class Tied(nn.Module):
    """Two layers with one weight, a frozen layer, and one without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.frozen, self.idle = (nn.Linear(3, 3, bias=False) for _ in range(4))
        self.second.weight = self.first.weight
        self.frozen.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.frozen(self.second(self.first(x).relu()))
        return found


def test_shared_weights_are_wired_once_and_frozen_ones_left_alone():
    model = Tied()
    with torch.no_grad():
        model.first.weight[0] = 0
        model.frozen.weight[0] = -0.0
    assert [id(weight) for weight in trained_synapses(model)] == [id(model.first.weight), id(model.idle.weight)]
    wiring = Static().wire(model, 0)
    optimizer = SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.ones(2, 3)).square().sum().backward()
    wiring.before_step()
    optimizer.step()
    wiring.after_step(optimizer)
    assert is_plus_zero(model.first.weight[0])
    assert not model.first.weight[1:].eq(0).any()
    assert math.copysign(1, model.frozen.weight[0, 0].item()) == -1


def test_what_is_not_finite_at_an_absent_connection_is_not_followed():
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 1.0]]))
    wiring = Static().wire(nn.Sequential(layer), 0)
    optimizer = SGD(layer.parameters(), lr=0.5, momentum=0.9)
    layer.weight.grad = torch.tensor([[math.inf, 1.0]])
    wiring.before_step()
    assert layer.weight.grad.tolist() == [[0, 1]]
    optimizer.step()
    with torch.no_grad():
        layer.weight[0, 0] = math.nan  # as a defence may leave it
    wiring.after_step(optimizer)
    assert layer.weight.tolist() == [[0, 0.5]]
    assert optimizer.state[layer.weight]["momentum_buffer"].tolist() == [[0, 1]]


def test_an_average_of_weights_that_are_absent_is_absent(make_tiny):
    model = pruned(make_tiny())
    before = pattern(model)
    state, _ = trained(model, Static(), ema=0.5)
    assert all(torch.equal(state[f"{name}.weight"] != 0, there) for name, there in before.items())
    average = averaged(model, 0.5)
    average.update_parameters(model)
    assert all(torch.equal(there, before[name]) for name, there in pattern(average.module).items())
