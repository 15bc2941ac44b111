"""The choice of estimators on validation data."""

import pytest
import torch

from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.attacks.noise import UniformNoise
from snnrobust.data.dataset import Split
from snnrobust.estimators.base import Estimator
from snnrobust.estimators.ensemble import Ensemble
from snnrobust.estimators.pooling import MaxPoolSubstitute
from snnrobust.estimators.rate import BPTR
from snnrobust.estimators.strongest import Strongest
from snnrobust.estimators.surrogate import TRAINED, Surrogate
from snnrobust.evaluation.evaluator import Evaluator, Settings
from snnrobust.evaluation.judge import Judge
from snnrobust.evaluation.ledger import Ledger
from snnrobust.evaluation.outcomes import BROKEN, CLEAN, ROBUST
from snnrobust.evaluation.selection import _cover, resolved, select, wanted
from snnrobust.spiking.surrogate import rectangle
from snnrobust.threat import Linf

BLIND = Surrogate(rectangle(1e-6))
"""Its gradient is zero: an attack that follows it stays where it starts."""
WANTED = Strongest({"trained": TRAINED, "blind": BLIND, "bptr": BPTR()}, keep=2)


def split(model, number=24):
    """Random images, labelled as the model sees them, two of them wrongly."""
    values = torch.randint(256, (number, 1, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    with torch.no_grad():
        labels = model(values.float() / 255).argmax(1)
    labels[:2] = (labels[:2] + 1) % 4
    return Split(values, labels, 255)


def selected(model, wanted=WANTED, number=24, batch_size=7, eps=0.2):
    return select(wanted, model, Judge(model, 1, 0), split(model, number), Linf(eps), batch_size, 0, Ledger())


def test_the_cover_takes_the_strongest_and_then_what_adds_most():
    columns = {"a": "1000", "b": "0111", "c": "0011", "d": "1100"}
    outcomes = {n: torch.tensor([BROKEN if bit == "1" else ROBUST for bit in bits]) for n, bits in columns.items()}
    assert _cover(outcomes, 2) == ["b", "d"]  # a adds as much as d, which breaks more by itself
    assert _cover(outcomes, 9) == ["b", "d", "c", "a"]


def test_a_blind_estimator_is_not_chosen(classifier):
    found = selected(classifier)
    assert list(found.outcomes) == ["trained", "blind", "bptr"]
    assert set(found.estimator.members()) == {"trained", "bptr"}
    assert (found.outcomes["trained"] == BROKEN).sum() > (found.outcomes["blind"] == BROKEN).sum()


def test_the_choice_does_not_depend_on_the_batch_size_and_ignores_misclassified_samples(classifier):
    one, other = selected(classifier, batch_size=1), selected(classifier, batch_size=24)
    assert len(one.outcomes["trained"]) == 22
    assert all(torch.equal(one.outcomes[name], other.outcomes[name]) for name in one.outcomes)


def test_a_limit_on_the_samples_is_kept(classifier):
    found = selected(classifier, Strongest(WANTED.candidates, keep=1, samples=10))
    assert len(found.outcomes["trained"]) == 8
    assert len(found.estimator.members()) == 1


def test_no_correct_sample_at_all(classifier):
    data = split(classifier, 2)
    found = select(WANTED, classifier, Judge(classifier, 1, 0), data, Linf(0.1), 8, 0, Ledger())
    assert all(len(column) == 0 for column in found.outcomes.values())
    assert list(found.estimator.members()) == ["trained", "blind"]


def test_what_does_not_apply_is_left_out(classifier):
    candidates: dict[str, Estimator] = {"trained": TRAINED, "pooling": MaxPoolSubstitute("average", 1.0, TRAINED)}
    found = selected(classifier, Strongest(candidates))
    assert found.left_out == ("pooling",)
    assert list(found.estimator.members()) == ["trained"]


def test_attacks_get_the_ensemble_in_place_of_the_request():
    ensemble = Ensemble({"bptr": BPTR()})
    attacks = {
        "pgd": ProjectedGradient(Linf(0.1), WANTED),
        "own": ProjectedGradient(Linf(0.1), BPTR()),
        "noise": UniformNoise(Linf(0.1)),
    }
    assert wanted(attacks) == WANTED
    new = resolved(attacks, WANTED, ensemble)
    assert new["pgd"].estimator == ensemble
    assert new["own"] == attacks["own"]
    assert new["noise"] == attacks["noise"]
    assert wanted(new) is None
    with pytest.raises(ValueError, match="ask for different strongest estimators"):
        wanted({"a": attacks["pgd"], "b": ProjectedGradient(Linf(0.1), Strongest(WANTED.candidates, keep=3))})


def test_an_evaluation_chooses_on_validation_data_and_needs_them(classifier):
    attacks = {"pgd": ProjectedGradient(Linf(0.1), WANTED, steps=3)}
    evaluator = Evaluator(attacks, Linf(0.1), WANTED, {}, Settings())
    data = split(classifier)
    report = evaluator(classifier, data, validation=data)
    assert report.selection is not None
    chosen = list(report.selection.estimator.members())
    assert {f"pgd/{name}" for name in chosen} | {"pgd", CLEAN} == set(report.outcomes)
    with pytest.raises(ValueError, match="chosen on validation data"):
        evaluator(classifier, data)
