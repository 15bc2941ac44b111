"""Outcomes, the worst case and metrics."""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from snnrobust.attacks.base import Attack
from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.attacks.noise import GaussianNoise, UniformNoise
from snnrobust.data.dataset import Split
from snnrobust.evaluation.evaluator import Evaluator
from snnrobust.evaluation.measures import GRADIENT_MEASURES
from snnrobust.evaluation.report import Report
from snnrobust.spiking.classifier import Classifier
from snnrobust.spiking.encoder import Poisson
from snnrobust.threat import Linf, Threat
from tests.contracts.toys import assert_same, disturb, state_of, streams

EPS = 0.1
ATTACKS: dict[str, Attack] = {
    "noise": UniformNoise(Linf(EPS)),
    "gauss": GaussianNoise(0.5),
    "fgsm": ProjectedGradient(Linf(EPS), steps=1, random_start=False),
    "pgd": ProjectedGradient(Linf(EPS)),
    "weak": ProjectedGradient(Linf(EPS / 2)),
    "wide": ProjectedGradient(Linf(0.5)),
}
INSIDE = ("noise", "fgsm", "pgd", "weak")
HEADLINE = {"pgd_accuracy": "pgd", "headline": "fgsm"}


def split(model, number: int = 40) -> Split:
    """Random inputs with the labels that the model gives, apart from every fifth."""
    values = torch.randint(17, (number, 1, 8, 8), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    with torch.no_grad():
        labels = model.eval()(values.to(next(model.parameters()).dtype) / 16).argmax(1)
    labels[::5] = (labels[::5] + 1) % 4
    return Split(values, labels, 16)


def evaluator(batch_size: int = 16, attacks=ATTACKS, seed: int = 0, headline=HEADLINE) -> Evaluator:
    return Evaluator(attacks, Linf(EPS), headline, batch_size, seed)


@pytest.fixture
def report(classifier) -> Report:
    return evaluator()(classifier, split(classifier))


def test_the_clean_accuracy_is_that_counted_by_hand(report):
    assert report.metrics()["clean_accuracy"] == 32 / 40


def test_an_accuracy_is_that_of_the_attacked_inputs(report, classifier):
    data = split(classifier)
    batch = data.batch(torch.arange(40))
    found = ATTACKS["pgd"](classifier, batch.x, batch.y, batch.index)
    with torch.no_grad():
        correct = classifier(found).argmax(1) == data.labels
    assert torch.equal(report.correct["pgd"], correct)
    assert 0 < int(correct.sum()) < 32


def test_the_worst_accuracy_is_at_most_that_of_any_member(report):
    metrics = report.metrics()
    assert metrics["worst_accuracy"] <= min(metrics[f"{name}_accuracy"] for name in ("clean", *INSIDE))


def test_the_worst_case_is_formed_sample_by_sample(report):
    bits = {name: outcome.tolist() for name, outcome in report.correct.items()}
    expected = [all(bits[name][i] for name in ("clean", *INSIDE)) for i in range(40)]
    assert report.worst(*report.inside).tolist() == expected
    assert report.metrics()["worst_accuracy"] == sum(expected) / 40


def test_only_attacks_inside_the_threat_form_the_worst_case(report):
    assert report.inside == INSIDE
    metrics = report.metrics()
    assert metrics["wide_accuracy"] < metrics["worst_accuracy"]


def test_the_worst_case_of_disjoint_failures_is_worse_than_each():
    bits = {"clean": [1, 1, 1, 0], "a": [0, 1, 1, 1], "b": [1, 0, 1, 1], "c": [0, 0, 0, 0]}
    correct = {name: torch.tensor(outcome, dtype=torch.bool) for name, outcome in bits.items()}
    metrics = Report(correct, ("a", "b"), {"main": "b"}, {"m": 0.5}, {"x": 0.25, "y": 0.75}, {}, {}).metrics()
    assert metrics == {
        "clean_accuracy": 0.75,
        "a_accuracy": 0.75,
        "b_accuracy": 0.75,
        "c_accuracy": 0.0,
        "main": 0.75,
        "worst_accuracy": 0.25,
        "m": 0.5,
    }


def test_without_attacks_the_worst_case_is_the_clean_one(classifier):
    metrics = evaluator(attacks={}, headline={})(classifier, split(classifier)).metrics()
    assert metrics["worst_accuracy"] == metrics["clean_accuracy"]


def test_the_metrics_are_those_of_attacks_headline_and_measures(report):
    names = {f"{name}_accuracy" for name in ("clean", "worst", *ATTACKS)} | {"headline", "firing_rate"}
    metrics = report.metrics()
    assert metrics.keys() == names | GRADIENT_MEASURES.keys()
    assert metrics["headline"] == metrics["fgsm_accuracy"]
    assert all(isinstance(value, float) for value in metrics.values())
    assert len(report.firing_rates) == 2


def test_the_excess_over_the_budget_is_rounding(report):
    assert report.excess.keys() == ATTACKS.keys()
    assert all(0 <= value <= 1e-6 for value in report.excess.values())


def test_the_batch_size_does_not_change_an_outcome(classifier):
    model = classifier.double()
    data = split(model, 20)

    class Double(torch.nn.Module):
        """The split is in single precision; the model sums in double."""

        bounds, stochastic = model.bounds, False

        def __init__(self) -> None:
            super().__init__()
            self.inside = model

        def forward(self, x: Tensor) -> Tensor:
            return self.inside(x.double())

    reports = [evaluator(size)(cast(Any, Double()), data) for size in (20, 8, 1)]
    for name in ("clean", *ATTACKS):
        assert torch.equal(reports[0].correct[name], reports[1].correct[name]), name
        assert torch.equal(reports[0].correct[name], reports[2].correct[name]), name
    assert reports[1].measures == pytest.approx(reports[0].measures, rel=1e-5)
    assert reports[1].firing_rates == pytest.approx(reports[0].firing_rates, rel=1e-9)


def test_the_model_and_the_streams_are_left_as_they_were(make_tiny):
    model = make_tiny(Poisson(2))
    data = split(model)
    disturb(model)
    before = state_of(model), streams()
    evaluator()(model, data)
    assert_same(before[0], state_of(model))
    assert_same(before[1], streams())


def test_the_seed_decides_the_outcomes_of_a_stochastic_model(make_tiny):
    model = make_tiny(Poisson(4))
    data = split(model)
    with torch.no_grad():  # on average no class is ahead, so that the draws decide
        [*model.parameters()][-1].sub_(model(data.batch(torch.arange(40)).x).mean(0))
    attacks = {"noise": ATTACKS["noise"]}
    found = []
    for stream, seed in ((1, 0), (2, 0), (1, 5)):
        torch.manual_seed(stream)
        found.append(evaluator(seed=seed, attacks=attacks, headline={})(model, data))
    assert torch.equal(found[0].correct["noise"], found[1].correct["noise"])
    assert found[0].metrics() == found[1].metrics()
    assert not torch.equal(found[0].correct["clean"], found[2].correct["clean"])


@dataclass(frozen=True)
class Overshooting(Attack):
    """Leaves its own budget: what the guarantee of `Attack` prevents, done behind its back."""

    threat: Threat
    seed: int = 0

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        return x

    def __call__(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor | None = None) -> Tensor:
        return (x + 0.25).clamp(0, 1)


def test_an_attack_that_leaves_its_budget_is_seen(classifier):
    report = evaluator(attacks={"over": Overshooting(Linf(EPS))}, headline={})(classifier, split(classifier))
    assert report.excess["over"] == pytest.approx(0.15, abs=1e-6)


def test_progress_is_told_of_every_batch(classifier):
    phases: dict[str, list[tuple[int, float]]] = {}

    @contextmanager
    def progress(name: str, samples: int):
        assert samples == 40
        calls = phases.setdefault(name, [])
        yield lambda done, accuracy: calls.append((done, accuracy))

    report = evaluator()(classifier, split(classifier), progress)
    assert phases.keys() == {"clean", *ATTACKS}
    for name, calls in phases.items():
        assert [done for done, _ in calls] == [16, 16, 8]
        assert calls[-1][1] == report.metrics()[f"{name}_accuracy"]
