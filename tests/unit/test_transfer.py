"""Attacks made on one model and judged on another."""

import pytest
import torch
from torch import Tensor

from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.attacks.noise import GaussianNoise
from snnrobust.attacks.transfer import Transfer
from snnrobust.estimators.ensemble import Ensemble
from snnrobust.estimators.surrogate import Surrogate, Trained
from snnrobust.spiking.surrogate import atan
from snnrobust.threat import L2, Bounds, Linf
from tests.contracts.toys import Linear, Restless, Toy, assert_same, disturb, state_of, streams

PGD = ProjectedGradient(Linf(0.1), steps=3, restarts=2, seed=7)


@pytest.mark.parametrize("inner", [PGD, ProjectedGradient(L2(0.7), steps=3)])
def test_from_the_model_itself_it_is_the_attack_itself(classifier, images, inner):
    x, y = images
    index = torch.arange(30, 30 + len(x))
    assert torch.equal(Transfer(classifier, inner)(classifier, x, y, index), inner(classifier, x, y, index))


def test_it_finds_what_is_found_on_the_source(make_tiny, images):
    source, model = make_tiny(seed=1), make_tiny(seed=0)
    found = Transfer(source, PGD)(model, *images)
    assert torch.equal(found, PGD(source, *images))
    assert not torch.equal(found, PGD(model, *images))


def test_the_model_is_asked_for_nothing(images):
    class Silent:
        bounds, stochastic = Bounds(), False

        def __call__(self, x: Tensor) -> Tensor:
            raise AssertionError("was asked")

    source = Toy(64).eval()
    assert torch.equal(Transfer(source, PGD)(Silent(), *images), PGD(source, *images))


def test_an_ensemble_is_judged_by_the_source(make_tiny, images):
    source, model = make_tiny(seed=1), make_tiny(seed=0)
    estimator = Ensemble({"own": Trained(), "narrow": Surrogate(atan(5.0))})
    inner = ProjectedGradient(Linf(0.1), steps=2, estimator=estimator)
    transfer = Transfer(source, inner)
    assert list(transfer.variants()) == [""]
    assert torch.equal(transfer(model, *images), inner(source, *images))


def test_budget_and_seed_are_those_of_the_attack():
    transfer = Transfer(Toy(4), PGD)
    assert transfer.threat == Linf(0.1)
    assert transfer.seed == 7
    assert Transfer(Toy(4), GaussianNoise(0.1)).threat is None
    assert Transfer.black_box
    assert Transfer.space == "input"


def test_the_source_and_the_streams_are_left_as_they_were(images):
    source = Restless(64)
    disturb(source)
    before = state_of(source), streams()
    Transfer(source, PGD)(Toy(64), *images)
    assert_same(before[0], state_of(source))
    assert_same(before[1], streams())


def test_a_better_source_transfers_better(images):
    """From a linear model to one that is nearly the same, and to one that is the opposite."""
    x, _ = images
    generator = torch.Generator().manual_seed(0)
    weight, other = torch.randn(2, 64, generator=generator), torch.randn(2, 64, generator=generator)
    models = [Linear(w, torch.zeros(2)) for w in (weight, weight + 0.2 * other, -weight)]
    with torch.no_grad():
        y = models[0](x).argmax(1)
        start, *rest = (model(x).gather(1, y[:, None]).squeeze(1) for model in models)
        found = Transfer(models[0], PGD)(models[1], x, y)
        after = [model(found).gather(1, y[:, None]).squeeze(1) for model in models]
    assert (after[0] < start).all()
    assert (after[1] < rest[0]).all()
    assert (after[2] > rest[1]).all()
