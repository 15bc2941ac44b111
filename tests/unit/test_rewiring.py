"""Bayesian connectivity sampling: what leaves, what comes, and that their number stays."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.config import compose
from snnrobust.randomness import generator
from snnrobust.schema import ConfigError
from snnrobust.spiking.synapses import synapses
from snnrobust.threat import Linf
from snnrobust.training.connectivity.base import Connectivity
from snnrobust.training.connectivity.rewired import Rewired, places
from snnrobust.training.connectivity.static import Static
from snnrobust.training.defences.rat import Rat
from tests.unit.pruned import count, is_plus_zero, pattern, pruned
from tests.unit.trained import ADAM, SGD, kept, same, train, trainer
from tests.unit.trained import data as pictures

RAT = Rat(ProjectedGradient(Linf(0.05), steps=1), beta=0.05)


def linear(*weights: list[float]) -> nn.Sequential:
    """A network of linear layers, each with a single output."""
    model = nn.Sequential(*(nn.Linear(len(values), 1, bias=False) for values in weights))
    with torch.no_grad():
        for layer, values in zip(synapses(model).values(), weights, strict=True):
            layer[0] = torch.tensor(values)
    return model


def rewired_trainer(connectivity: Connectivity | None = None, **settings: Any) -> Any:
    return replace(trainer(**settings), connectivity=connectivity or Rewired())


# --- a step


def stepped(seed: int) -> tuple[list[float], list[float]]:
    """Weights and momentum after a step of SGD: one moves, one crosses zero, one is absent, whatever its gradient."""
    model = linear([0.5, -0.2, 0.0])
    weight = synapses(model)["0"]
    wiring = Rewired(noise=0).wire(model, seed)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    weight.grad = torch.tensor([[1.0, -3.0, 5.0]])
    wiring.before_step()
    assert weight.grad.tolist() == [[1, -3, 0]]
    optimizer.step()
    wiring.after_step(optimizer)
    return weight[0].tolist(), optimizer.state[weight]["momentum_buffer"][0].tolist()


def test_a_step_by_hand():
    seen = set()
    for seed in range(40):
        (moved, crossed, absent), momentum = stepped(seed)
        assert moved == pytest.approx(0.4)  # 0.5 - 0.1 * 1
        assert momentum == [1, 0, 0]  # what crossed is forgotten, even if it is drawn again
        seen.add((round(crossed * 1e12, 3), round(absent * 1e12, 3)))
    assert seen == {(-1, 0), (0, -1), (0, 1)}  # a sign is kept, or was drawn at the beginning


def test_what_is_exactly_zero_is_disconnected():
    model = linear([0.5, 0.25])
    wiring, optimizer = Rewired(noise=0, initial=1e-6).wire(model, 0), SGD(model.parameters(), lr=1.0)
    synapses(model)["0"].grad = torch.tensor([[0.5, 0.0]])
    wiring.before_step()
    optimizer.step()
    wiring.after_step(optimizer)
    assert synapses(model)["0"].tolist() == [[pytest.approx(1e-6), 0.25]]


@pytest.mark.parametrize("lr", [0.1, 0.4])
def test_the_noise_is_of_the_learning_rate_and_on_connections_alone(lr):
    there = (torch.arange(20_000) % 2 == 0).float()
    model = linear(there.tolist())
    wiring, optimizer = Rewired(noise=0.5).wire(model, 0), SGD(model.parameters(), lr=lr)
    synapses(model)["0"].grad = torch.zeros(1, 20_000)
    wiring.before_step()
    optimizer.step()
    wiring.after_step(optimizer)
    weight = synapses(model)["0"].detach()[0]
    noise = weight[there == 1] - 1
    assert noise.std().item() == pytest.approx(0.5 * lr, rel=0.03)
    assert abs(noise.mean().item()) < 4 * 0.5 * lr / 100
    assert is_plus_zero(weight[there == 0])


def test_the_noise_follows_the_schedule():
    model = linear([1.0] * 1000)
    wiring, optimizer = Rewired(noise=1.0).wire(model, 0), SGD(model.parameters(), lr=0.1)
    optimizer.param_groups[0]["lr"] = 0.01
    wiring.after_step(optimizer)
    assert (synapses(model)["0"] - 1).std().item() == pytest.approx(0.01, rel=0.1)


# --- where connections come


def disconnected(model: nn.Module, number: int, seed: int) -> dict[str, Tensor]:
    """The connections after the first `number` of the first layer have crossed zero."""
    wiring, optimizer = Rewired(noise=0).wire(model, seed), SGD(model.parameters(), lr=0.1)
    with torch.no_grad():
        synapses(model)["0"][0, :number] *= -1
    wiring.after_step(optimizer)
    return pattern(model)


def test_a_layer_is_drawn_by_its_size_and_a_place_among_the_absent_ones():
    drawn, places = 0, torch.zeros(300)
    for seed in range(60):
        after = disconnected(linear([1.0] * 60 + [0.0] * 240, [1.0] * 20 + [0.0] * 80), 50, seed)
        assert count(after) == 80
        drawn += int(after["1"].sum()) - 20
        places += after["0"][0]
    assert drawn / 3000 == pytest.approx(100 / 400, abs=0.032)  # four standard deviations of a binomial
    assert (places[50:60] == 60).all()
    come = torch.cat([places[:50], places[60:]])  # those that have just gone are absent like any other
    assert come.mean().item() == pytest.approx((3000 - drawn) / 290)
    assert come[:50].mean().item() == pytest.approx(come.mean().item(), rel=0.2)
    assert come[50:].mean().item() == pytest.approx(come.mean().item(), rel=0.1)


def test_what_finds_a_layer_full_comes_elsewhere():
    for seed in range(20):
        after = disconnected(linear([1.0] * 6 + [0.0] * 4, [1.0] * 200), 5, seed)
        assert after["0"].sum() == 6
        assert after["1"].all()


@pytest.mark.parametrize(
    ("room", "number", "total"), [(7, 3, 7), (7, 4, 7), (7, 3, 10), (7, 3, 20), (7, 2, 7), (1, 1, 1)]
)
def test_every_set_of_absent_places_is_equally_probable(room, number, total):
    absent = torch.zeros(total, dtype=torch.bool)
    absent[-room:] = True
    found: dict[tuple[int, ...], int] = {}
    random = torch.Generator().manual_seed(0)
    for _ in range(3500):
        drawn = places(absent.view(1, total), room, number, random).tolist()
        assert len(set(drawn)) == number
        assert absent[drawn].all()
        chosen = tuple(sorted(drawn))
        found[chosen] = found.get(chosen, 0) + 1
    sets = math.comb(room, number)
    assert len(found) == sets
    assert all(abs(times - 3500 / sets) <= 4.5 * (3500 / sets) ** 0.5 for times in found.values())


@pytest.mark.parametrize(("total", "room"), [(6, 6), (6, 5), (1, 0)])
def test_no_place_or_all_places_can_be_drawn(total, room):
    absent, random = torch.arange(total) < room, torch.Generator()
    assert sorted(places(absent, room, room, random).tolist()) == [*range(room)]
    assert places(absent, room, 0, random).tolist() == []


# --- many steps


def course(
    model: Any, connectivity: Connectivity, make: Any, steps: int, defence: Any = None
) -> list[dict[str, Tensor]]:
    """Weights of all layers after every step on random pictures."""
    wiring, optimizer = connectivity.wire(model, 0), make([p for p in model.parameters() if p.requires_grad])
    random, seen = torch.Generator().manual_seed(0), []
    model.train()
    for _ in range(steps):
        x, y = torch.rand(8, 1, 8, 8, generator=random), torch.randint(4, (8,), generator=random)
        nn.functional.cross_entropy(model(x), y).backward()
        wiring.before_step()
        optimizer.step()
        optimizer.zero_grad()
        if defence is not None:
            defence.after_step(model)
        wiring.after_step(optimizer)
        for weight in synapses(model).values():
            for held in optimizer.state[weight].values():
                if isinstance(held, Tensor) and held.shape == weight.shape:
                    assert is_plus_zero(held[weight == 0])
        seen.append({name: weight.detach().clone() for name, weight in synapses(model).items()})
    return seen


@pytest.mark.parametrize("defence", [None, RAT], ids=["none", "rat"])
@pytest.mark.parametrize(
    "make",
    [
        partial(SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
        partial(ADAM, lr=0.01),
        partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1),
        partial(torch.optim.RMSprop, lr=0.005, momentum=0.9),
    ],
    ids=["nesterov", "adam", "adamw", "rmsprop"],
)
def test_the_number_of_connections_stays_and_signs_never_change(make_tiny, make, defence):
    model = pruned(make_tiny())
    before, states = pattern(model), course(model, Rewired(), make, 100, defence)
    assert len(states) == 100
    for state in states:
        assert sum(int(weight.count_nonzero()) for weight in state.values()) == count(before)
    changes = gone = 0
    for name, there in before.items():
        history = torch.stack([state[name] for state in states])
        assert not ((history > 0).any(0) & (history < 0).any(0)).any()
        assert is_plus_zero(history[history == 0])
        changes += int(((history[1:] != 0) ^ (history[:-1] != 0)).sum())
        gone += int((there & (history[-1] == 0)).sum())
    assert changes > 20
    assert gone > 0


def test_the_number_that_counts_is_that_of_all_layers(make_tiny):
    model = pruned(make_tiny())
    before = {name: int(there.sum()) for name, there in pattern(model).items()}
    course(model, Rewired(), partial(SGD, lr=0.05, momentum=0.9), 100)
    assert {name: int(there.sum()) for name, there in pattern(model).items()} != before


def regression(connectivity: Connectivity, seed: int) -> float:
    """The error of 16 connections to 160 inputs of which a tenth say it all, by either sign."""
    random = torch.Generator().manual_seed(seed)
    weights = torch.zeros(160)
    weights[torch.randperm(160, generator=random)[:16]] = 0.1 * torch.randn(16, generator=random)
    model = linear(weights.tolist())
    wiring, optimizer = connectivity.wire(model, seed), SGD(model.parameters(), lr=0.05)
    errors = []
    for _ in range(600):
        x = torch.randn(32, 20, generator=random)
        error = (model(torch.cat([x, -x] * 4, 1)) - x[:, :4].sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        error.backward()
        wiring.before_step()
        optimizer.step()
        wiring.after_step(optimizer)
        errors.append(error.item())
    return sum(errors[-20:]) / 20


@pytest.mark.parametrize("seed", range(3))
def test_connections_that_matter_are_found(seed):
    assert regression(Static(), seed) > 0.9  # at least one of four inputs, each of variance 1, is not heard
    assert regression(Rewired(), seed) < 0.01


# --- in a training


def test_the_epoch_that_is_kept_has_its_own_connections(make_tiny):
    model = pruned(make_tiny())
    before = count(pattern(model))
    run = rewired_trainer(lr=0.05, epochs=5)
    trained, states = kept(run, model, pictures(16, 1))
    assert same(trained.state, states[trained.best.epoch - 1][1])
    found = [{name: state[f"{name}.weight"] != 0 for name in synapses(model)} for _, state in states]
    assert [count(patterns) for patterns in found] == [before] * 5
    assert any(not torch.equal(found[0][name], found[-1][name]) for name in found[0])


def test_the_same_seed_gives_the_same_bits_and_another_one_others(make_tiny):
    states = [train(rewired_trainer(seed=seed, lr=0.02), pruned(make_tiny()))[0].state for seed in (0, 0, 1)]
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


def test_its_draws_are_its_own():
    first, other = (generator(word, 0).initial_seed() for word in ("rewiring", "order"))
    assert first != other
    model = linear([1.0, 0.0, 0.0, 2.0])
    before = torch.random.get_rng_state()
    wiring = Rewired(noise=1.0).wire(model, 0)
    wiring.after_step(SGD(model.parameters(), lr=1.0))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_frozen_weights_are_neither_disconnected_nor_connected():
    model = linear([1.0, 0.0, -1.0], [1.0] + [0.0] * 20)
    synapses(model)["0"].requires_grad_(False)
    wiring = Rewired(noise=0).wire(model, 0)
    with torch.no_grad():
        synapses(model)["0"][0, 0] = -1
        synapses(model)["1"][0, 0] = -1
    wiring.after_step(SGD([synapses(model)["1"]], lr=0.1))
    assert synapses(model)["0"].tolist() == [[-1, 0, -1]]
    assert count(pattern(model)) == 3


def test_a_weight_that_is_not_a_number_stays_to_end_the_training():
    model = linear([1.0, 0.0])
    wiring = Rewired(noise=0).wire(model, 0)
    with torch.no_grad():
        synapses(model)["0"][0, 0] = float("nan")
    wiring.after_step(SGD(model.parameters(), lr=0.1))
    assert synapses(model)["0"].isnan().tolist() == [[True, False]]


# --- what is refused


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["connectivity=rewired"], "connectivity: got rewired, and random weights are all there; allowed with a start"),
        (
            ["start=random_connectivity", "connectivity=rewired", "training.ema=0.9"],
            "training.ema: got 0.9; allowed with connectivity=rewired: null",
        ),
        (["start=random_connectivity", "connectivity=rewired", "connectivity.noise=-1"], "connectivity.noise: got -1"),
        (
            ["start=random_connectivity", "connectivity=rewired", "connectivity.initial=0"],
            "connectivity.initial: got 0",
        ),
    ],
)
def test_what_cannot_be_rewired_is_refused_in_one_line(overrides, said):
    with pytest.raises(ConfigError) as error:
        compose("config", overrides)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_a_beginning_that_float32_does_not_know_is_refused():
    with pytest.raises(ValueError, match=r"^initial: got 1e-50; allowed: at least 1e-30"):
        Rewired(initial=1e-50)
