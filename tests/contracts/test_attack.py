"""Every yaml file of an attack, and a choice of torchattacks' attacks, keeps the word of `attacks/base.py`."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from snnrobust import config, yamls
from snnrobust.attacks.base import Attack
from snnrobust.attacks.transfer import Transfer
from snnrobust.flips import Flips
from snnrobust.spiking.classifier import Classifier
from snnrobust.spiking.encoder import Frames, Poisson
from snnrobust.threat import L2, Bounds
from tests.contracts.toys import CLASSES, Broken, Flat, Restless, Shy, Toy, assert_same, disturb, state_of, streams

EPS = 0.1
THIRD_PARTY: dict[str, tuple[str, ...]] = {
    "PGD": (),
    "FGSM": (),
    "APGD": (),
    "APGDT": (),
    "Square": ("+attacks.it.parameters.n_queries=10",),
    "AutoAttack": ("+attacks.it.parameters.version=rand",),
    "CW": ("attacks.it.threat=null", "+attacks.it.parameters.steps=5"),
    "GN": (),
}
SHORTER = {"steps": 4, "queries": 20, "iterations": 4}
"""Searches are cut to so many; what is promised holds after any number."""
ONLY_LINF = {"sapgd"}


@dataclass(frozen=True)
class Case:
    """One attack as a user would choose it; `it` in the overrides stands for its name."""

    name: str
    stem: str
    threat: str
    overrides: tuple[str, ...]


def cases() -> Iterator[Case]:
    seen = set()
    for stem in yamls.groups()["attack"]:
        node = yaml.safe_load((yamls.folder() / "attack" / f"{stem}.yaml").read_text())
        target = node["_target_"]
        if target.endswith(".TorchAttack"):
            for name, more in THIRD_PARTY.items():
                yield Case(f"{stem}-{name}", stem, "linf", (f"attacks.it.name={name}", *more))
            continue
        overrides = [f"attacks.it.{key}={most}" for key, most in SHORTER.items() if node.get(key, 0) > most]
        if isinstance(node.get("attack", {}).get("threat"), dict):
            overrides.append("attacks.it.attack.threat.eps=${threat.eps}")
        if "source" in node:
            overrides.append("attacks.it.source={path:elsewhere}")
        yield Case(stem, stem, "linf", tuple(overrides))
        if node.get("threat") == "${threat}" and target not in seen and stem not in ONLY_LINF:
            yield Case(f"{stem}-l2", stem, "l2", tuple(overrides))
        seen.add(target)


CASES = [*cases()]
SHAPES = {"images": (1, 8, 8), "events": (3, 2, 4, 4)}


class Elsewhere(nn.Module):
    """As shy as `Shy`, with inputs of any shape: for attacks made on another model than the one they are for."""

    bounds = Bounds()
    stochastic = False

    def forward(self, x: Tensor) -> Tensor:
        distance = (x.flatten(1) - 0.5).abs().sum(1)
        return torch.stack([1e-3 - distance, *(-i + 0 * distance for i in range(CLASSES - 1))], 1)


@cache
def attacks(threat: str, eps: float, seed: int) -> dict[Case, Attack]:
    """All cases of one threat; composed at once, since that takes a while."""
    settings = ["dataset=digits_events_binary", f"threat={threat}", f"threat.eps={eps}", f"evaluation.seed={seed}"]
    chosen = [case for case in CASES if case.threat == threat]
    for number, case in enumerate(chosen):
        settings.append(f"+attack@attacks.case{number}={case.stem}")
        settings += [override.replace("attacks.it.", f"attacks.case{number}.") for override in case.overrides]
    nodes = config.compose("config", settings).config["attacks"]
    return {case: built(f"attacks.case{number}", nodes[f"case{number}"]) for number, case in enumerate(chosen)}


def built(key: str, node: Any) -> Attack:
    attack: Attack = config.instantiate(key, node)
    return replace(attack, source=Elsewhere()) if isinstance(attack, Transfer) else attack


def attack_of(case: Case, eps: float = EPS, seed: int = 0) -> Attack:
    return attacks(case.threat, eps, seed)[case]


@pytest.fixture(params=CASES, ids=[case.name for case in CASES])
def case(request) -> Case:
    return request.param


@pytest.fixture
def attack(case) -> Attack:
    return attack_of(case)


@pytest.fixture(params=SHAPES)
def shape(request) -> tuple[int, ...]:
    return SHAPES[request.param]


def inputs(attack: Attack, shape: tuple[int, ...], number: int = 6) -> tuple[Tensor, Tensor]:
    """Random inputs of which many entries lie on the bounds, and labels; binary where the attack asks for it."""
    torch.manual_seed(11)
    x = (1.6 * torch.rand(number, *shape) - 0.3).clamp(0, 1)
    return x.round() if isinstance(attack.threat, Flips) else x, torch.arange(number) % CLASSES


def plain(attack: Attack, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Four equal inputs, at which `Shy` decides for the label where they need not be binary."""
    middle = 0.0 if isinstance(attack.threat, Flips) else 0.5
    return torch.full((4, *shape), middle), torch.zeros(4, dtype=torch.long)


def toy(shape: tuple[int, ...], kind: type[Toy] = Toy) -> Toy:
    return kind(int(np.prod(shape))).eval()


def assert_allowed(attack: Attack, found: Tensor, x: Tensor, bounds: Bounds | None = None) -> None:
    bounds = bounds or Bounds()
    assert found.shape == x.shape
    assert found.dtype == x.dtype
    assert not found.requires_grad
    assert found.isfinite().all()
    assert found.min() >= bounds.low
    assert found.max() <= bounds.high
    if isinstance(attack.threat, Flips):
        assert ((found - x).abs().flatten(1).sum(1) <= attack.threat.count).all()
        assert ((found == bounds.low) | (found == bounds.high)).all()
    elif attack.threat is not None:
        norm = 2 if isinstance(attack.threat, L2) else torch.inf
        assert float((found - x).flatten(1).norm(norm, dim=1).max()) <= EPS + 1e-6


def test_results_stay_inside_threat_and_bounds(attack, shape):
    x, y = inputs(attack, shape)
    assert_allowed(attack, attack(toy(shape), x, y), x)


def test_results_on_a_spiking_classifier_stay_inside(attack, make_tiny):
    x, y = inputs(attack, (1, 8, 8), 4)
    model, origin = attack.target(make_tiny(), x)
    assert_allowed(attack, attack(model, origin, y), origin, model.bounds)


def test_results_on_event_frames_stay_inside(attack, make_tiny):
    x, y = inputs(attack, (2, 2, 8, 8), 4)
    model, origin = attack.target(make_tiny(Frames(2), channels=2), x)
    assert_allowed(attack, attack(model, origin, y), origin, model.bounds)


def test_double_precision_is_kept(attack, shape):
    x, y = inputs(attack, shape)
    assert_allowed(attack, attack(toy(shape).double(), x.double(), y), x.double())


def test_inputs_and_labels_are_not_written_to(attack, shape):
    x, y = inputs(attack, shape)
    before = x.clone(), y.clone()
    attack(toy(shape), x, y)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


def test_model_and_streams_are_left_as_they_were(attack, shape):
    x, y = inputs(attack, shape)
    model = toy(shape, Restless)
    disturb(model)
    before = state_of(model), streams()
    attack(model, x, y)
    assert_same(before[1], streams())
    assert_same(before[0], state_of(model))


def test_model_and_streams_are_left_as_they_were_by_a_search_that_fails(attack, shape):
    x, y = inputs(attack, shape)
    counter = Restless(int(np.prod(shape)))
    attack(counter, x, y)
    if counter.calls == 0:
        pytest.skip("never asks the model")
    model = Restless(int(np.prod(shape)))
    model.fails_at = min(3, counter.calls)
    disturb(model)
    before = state_of(model), streams()
    with pytest.raises(RuntimeError, match="gave up"):
        attack(model, x, y)
    assert_same(before[1], streams())
    assert_same(before[0], state_of(model))


def test_the_mode_of_the_model_does_not_matter(attack, shape):
    x, y = inputs(attack, shape)
    model = toy(shape)
    assert torch.equal(attack(model, x, y), attack(model.train(), x, y))


def test_the_seed_alone_decides_the_result(case, shape, monkeypatch):
    """Neither the caller's streams nor the clock do."""
    clock = itertools.count(1_000_000, 1000)
    monkeypatch.setattr("time.time", lambda: float(next(clock)))
    x, y = plain(attack_of(case), shape)
    torch.manual_seed(1)
    first = attack_of(case)(toy(shape, Shy), x, y)
    torch.manual_seed(2)
    assert torch.equal(attack_of(case)(toy(shape, Shy), x, y), first)
    if torch.equal(first, x):
        pytest.skip("starts at the input")
    assert not torch.equal(attack_of(case, seed=1)(toy(shape, Shy), x, y), first)


def test_two_batches_meet_different_draws(attack, shape):
    x, y = plain(attack, shape)
    first, second = (attack(toy(shape, Shy), x, y, index) for index in torch.arange(8).split(4))
    if torch.equal(first, x):
        pytest.skip("starts at the input")
    assert not torch.equal(first, second)


INDEX = torch.tensor([5, 3, 17, 0, 100, 8])
OWN = [case for case in CASES if case.stem != "torchattacks"]


@pytest.mark.parametrize("case", OWN, ids=[case.name for case in OWN])
def test_results_do_not_depend_on_the_batch(case, shape):
    """Of our own attacks; torchattacks draws for the batch as a whole."""
    attack = attack_of(case)
    x, y = inputs(attack, shape)
    assert_same_in_any_batch(attack, toy(shape).double(), x.double(), y)


@pytest.mark.parametrize("case", OWN, ids=[case.name for case in OWN])
def test_results_on_a_model_that_draws_do_not_depend_on_the_batch(case, make_tiny):
    attack = attack_of(case)
    x, y = inputs(attack, (1, 8, 8))
    model, origin = attack.target(make_tiny(Poisson(3)).double(), x.double(), INDEX)
    assert_same_in_any_batch(attack, model, origin, y)


def assert_same_in_any_batch(attack: Attack, model: Classifier, x: Tensor, y: Tensor) -> None:
    """In halves, in another order, and whatever the caller's streams are at."""
    whole = attack(model, x, y, INDEX)
    for part in (slice(0, 2), slice(2, 6), torch.tensor([3, 0, 5, 1, 4, 2])):
        found = attack(model, x[part], y[part], INDEX[part])
        torch.testing.assert_close(found, whole[part], atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", [Flat, Broken])
def test_a_model_without_a_useful_gradient_gives_finite_results_inside(attack, shape, kind):
    x, y = inputs(attack, shape)
    assert_allowed(attack, attack(toy(shape, kind), x, y), x)


def test_a_budget_of_zero_returns_the_input(case, shape):
    attack = attack_of(case, eps=0.0)
    if attack.threat is None or isinstance(attack.threat, Flips):
        pytest.skip("has no budget, or none of zero")
    x, y = inputs(attack, shape)
    assert torch.equal(attack(toy(shape), x, y), x)


def test_a_batch_of_one(attack, shape):
    x, y = inputs(attack, shape, 1)
    model = toy(shape)
    for label in range(CLASSES):
        assert_allowed(attack, attack(model, x, torch.full_like(y, label)), x)


def test_an_empty_batch(attack, shape):
    x, y = inputs(attack, shape, 0)
    found = attack(toy(shape), x, y)
    assert found.shape == (0, *shape)
    assert found.dtype == x.dtype


@pytest.mark.parametrize("wrong", [-0.01, 1.01, float("nan")])
def test_inputs_outside_the_bounds_are_refused(attack, wrong):
    x, y = inputs(attack, (1, 4, 4))
    x.view(-1)[5] = wrong
    with pytest.raises(ValueError, match=r"inputs must lie in \[0\.0, 1\.0\]"):
        attack(toy((1, 4, 4)), x, y)


class Blind(Toy):
    """Refuses to be differentiated with respect to its input."""

    def forward(self, x: Tensor) -> Tensor:
        assert not x.requires_grad
        return super().forward(x)


def test_black_box_attacks_ask_for_no_gradient(shape):
    found = [attack for case in CASES if (attack := attack_of(case)).black_box]
    assert {type(attack).__name__ for attack in found} >= {"Square", "Transfer"}
    for attack in found:
        attack(toy(shape, Blind), *inputs(attack, shape))
