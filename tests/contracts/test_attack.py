"""Every yaml file of an attack, and a choice of torchattacks' attacks, keeps the word of `attacks/base.py`."""

import itertools
from functools import cache

import numpy as np
import pytest
import torch
import yaml

from snnrobust import config
from snnrobust.attacks.base import Attack
from snnrobust.attacks.thirdparty import TorchAttack
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
NONE: tuple[str, ...] = ()
CASES: list[tuple[str, tuple[str, ...]]] = []
for stem in config.groups()["attack"]:
    target = yaml.safe_load((config.folder() / "attack" / f"{stem}.yaml").read_text())["_target_"]
    if target.endswith(".TorchAttack"):
        CASES += [(stem, (f"attacks.it.name={name}", *more)) for name, more in THIRD_PARTY.items()]
    else:
        CASES.append((stem, NONE))
SHAPES = {"images": (1, 8, 8), "events": (3, 2, 4, 4)}


@cache
def attacks(eps: float, seed: int) -> list[Attack]:
    """All cases; composed at once, since that takes a while."""
    settings = [f"threat.eps={eps}", f"evaluation.seed={seed}"]
    for number, (stem, overrides) in enumerate(CASES):
        settings.append(f"+attack@attacks.case{number}={stem}")
        settings += [override.replace("attacks.it.", f"attacks.case{number}.") for override in overrides]
    nodes = config.compose("config", settings).config["attacks"]
    return [config.instantiate(f"attacks.case{number}", nodes[f"case{number}"]) for number in range(len(CASES))]


def attack_of(case: tuple[str, tuple[str, ...]], eps: float = EPS, seed: int = 0) -> Attack:
    return attacks(eps, seed)[CASES.index(case)]


@pytest.fixture(params=CASES, ids=["-".join([stem, *(o.rpartition("=")[2] for o in more[:1])]) for stem, more in CASES])
def case(request) -> tuple[str, tuple[str, ...]]:
    return request.param


@pytest.fixture
def attack(case) -> Attack:
    return attack_of(case)


@pytest.fixture(params=SHAPES)
def shape(request) -> tuple[int, ...]:
    return SHAPES[request.param]


def inputs(shape: tuple[int, ...], number: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Random inputs of which many entries lie on the bounds, and labels."""
    torch.manual_seed(11)
    x = (1.6 * torch.rand(number, *shape) - 0.3).clamp(0, 1)
    return x, torch.arange(number) % CLASSES


def toy(shape: tuple[int, ...], kind: type[Toy] = Toy) -> Toy:
    return kind(int(np.prod(shape))).eval()


def assert_allowed(attack: Attack, found: torch.Tensor, x: torch.Tensor) -> None:
    assert found.shape == x.shape
    assert found.dtype == x.dtype
    assert not found.requires_grad
    assert found.isfinite().all()
    assert found.min() >= 0
    assert found.max() <= 1
    if attack.threat is not None:
        assert float((found - x).abs().max()) <= EPS + 1e-6


def test_results_stay_inside_threat_and_bounds(attack, shape):
    x, y = inputs(shape)
    assert_allowed(attack, attack(toy(shape), x, y), x)


def test_results_on_a_spiking_classifier_stay_inside(attack, make_tiny, images):
    x, y = images
    assert_allowed(attack, attack(make_tiny(), x[:4], y[:4]), x[:4])


def test_results_on_event_frames_stay_inside(attack, make_tiny):
    from snnrobust.spiking.encoder import Frames

    x, y = inputs((2, 2, 8, 8), 4)
    assert_allowed(attack, attack(make_tiny(Frames(2), channels=2), x, y), x)


def test_double_precision_is_kept(attack, shape):
    x, y = inputs(shape)
    assert_allowed(attack, attack(toy(shape).double(), x.double(), y), x.double())


def test_inputs_and_labels_are_not_written_to(attack, shape):
    x, y = inputs(shape)
    before = x.clone(), y.clone()
    attack(toy(shape), x, y)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


def test_model_and_streams_are_left_as_they_were(attack, shape):
    x, y = inputs(shape)
    model = toy(shape, Restless)
    disturb(model)
    before = state_of(model), streams()
    attack(model, x, y)
    assert_same(before[1], streams())
    assert_same(before[0], state_of(model))


def test_model_and_streams_are_left_as_they_were_by_a_search_that_fails(attack, shape):
    x, y = inputs(shape)
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
    x, y = inputs(shape)
    model = toy(shape)
    assert torch.equal(attack(model, x, y), attack(model.train(), x, y))


def test_the_seed_alone_decides_the_result(case, shape, monkeypatch):
    """Neither the caller's streams nor the clock do."""
    clock = itertools.count(1_000_000, 1000)
    monkeypatch.setattr("time.time", lambda: float(next(clock)))
    x, y = torch.full((4, *shape), 0.5), torch.zeros(4, dtype=torch.long)
    torch.manual_seed(1)
    first = attack_of(case)(toy(shape, Shy), x, y)
    torch.manual_seed(2)
    assert torch.equal(attack_of(case)(toy(shape, Shy), x, y), first)
    if torch.equal(first, x):
        pytest.skip("starts at the input")
    assert not torch.equal(attack_of(case, seed=1)(toy(shape, Shy), x, y), first)


def test_two_batches_meet_different_draws(attack, shape):
    x, y = torch.full((4, *shape), 0.5), torch.zeros(4, dtype=torch.long)
    first, second = (attack(toy(shape, Shy), x, y, index) for index in torch.arange(8).split(4))
    if torch.equal(first, x):
        pytest.skip("starts at the input")
    assert not torch.equal(first, second)


OWN = [case for case in CASES if not case[1]]


@pytest.mark.parametrize("case", OWN, ids=[stem for stem, _ in OWN])
def test_results_do_not_depend_on_the_batch(case, shape):
    """Of our own attacks; torchattacks draws for the batch as a whole."""
    attack = attack_of(case)
    x, y = (part.double() if part.is_floating_point() else part for part in inputs(shape))
    model, index = toy(shape).double(), torch.tensor([5, 3, 17, 0, 100, 8])
    whole = attack(model, x, y, index)
    halves = [attack(model, x[part], y[part], index[part]) for part in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close(torch.cat(halves), whole, atol=1e-9, rtol=0)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(attack(model, x[order], y[order], index[order]), whole[order], atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", [Flat, Broken])
def test_a_model_without_a_useful_gradient_gives_finite_results_inside(attack, shape, kind):
    x, y = inputs(shape)
    assert_allowed(attack, attack(toy(shape, kind), x, y), x)


def test_a_budget_of_zero_returns_the_input(case, shape):
    attack = attack_of(case, eps=0.0)
    if isinstance(attack, TorchAttack) and attack.threat is None:
        pytest.skip("has no budget")
    x, y = inputs(shape)
    assert torch.equal(attack(toy(shape), x, y), x)


def test_a_batch_of_one(attack, shape):
    x, y = inputs(shape, 1)
    model = toy(shape)
    for label in range(CLASSES):
        assert_allowed(attack, attack(model, x, torch.full_like(y, label)), x)


def test_an_empty_batch(attack, shape):
    x, y = inputs(shape, 0)
    found = attack(toy(shape), x, y)
    assert found.shape == (0, *shape)
    assert found.dtype == x.dtype


@pytest.mark.parametrize("wrong", [-0.01, 1.01, float("nan")])
def test_inputs_outside_the_bounds_are_refused(attack, shape, wrong):
    x, y = inputs(shape)
    x.view(-1)[5] = wrong
    with pytest.raises(ValueError, match=r"inputs must lie in \[0\.0, 1\.0\]"):
        attack(toy(shape), x, y)
