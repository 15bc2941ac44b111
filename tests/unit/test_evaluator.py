"""Outcomes, who is attacked, the worst case and metrics."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import pytest
import torch
from torch import Tensor

from snnrobust.attacks.base import Attack
from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.attacks.noise import GaussianNoise, UniformNoise
from snnrobust.data.dataset import Split
from snnrobust.estimators.base import Estimator
from snnrobust.estimators.ensemble import Ensemble
from snnrobust.estimators.surrogate import TRAINED, Surrogate
from snnrobust.evaluation.columns import families
from snnrobust.evaluation.evaluator import Evaluator, Settings
from snnrobust.evaluation.measures import GRADIENT_MEASURES
from snnrobust.evaluation.outcomes import BROKEN, CLEAN, NOT_ATTACKED, ROBUST, worst_case
from snnrobust.evaluation.report import Report
from snnrobust.spiking.classifier import Classifier
from snnrobust.spiking.encoder import Poisson
from snnrobust.spiking.surrogate import atan, sigmoid
from snnrobust.threat import Bounds, Linf, Threat
from tests.contracts.toys import Toy, assert_same, disturb, state_of, streams

EPS = 0.1
THREAT = Linf(EPS)
ATTACKS: dict[str, Attack] = {
    "noise": UniformNoise(THREAT),
    "gauss": GaussianNoise(0.5),
    "fgsm": ProjectedGradient(THREAT, steps=1, step_size=EPS, start="input"),
    "pgd": ProjectedGradient(THREAT),
    "weak": ProjectedGradient(Linf(EPS / 2)),
    "wide": ProjectedGradient(Linf(0.5)),
}
INSIDE = ("noise", "fgsm", "pgd", "weak")
HEADLINE = {"pgd_accuracy": "pgd", "headline": "fgsm"}
THREE: Estimator = Ensemble({"own": TRAINED, "wide": Surrogate(atan()), "smooth": Surrogate(sigmoid())})


def split(model, number: int = 40) -> Split:
    """Random inputs with the labels that the model gives, apart from every fifth."""
    values = torch.randint(17, (number, 1, 8, 8), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    with torch.no_grad():
        labels = model.eval()(values / 16).argmax(1)
    labels[::5] = (labels[::5] + 1) % 4
    return Split(values, labels, 16)


class Double(torch.nn.Module):
    """A model that sums in double precision, so that rounding does not depend on the batch."""

    bounds, stochastic = Bounds(), False

    def __init__(self, model) -> None:
        super().__init__()
        self.inside = model.double()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inside(x.double())
        return logits


@pytest.fixture
def double(classifier) -> Any:
    return Double(classifier)


def evaluate(model, attacks=ATTACKS, data=None, headline=None, progress=None, **settings) -> Report:
    shown = {metric: name for metric, name in HEADLINE.items() if name in attacks} if headline is None else headline
    evaluator = Evaluator(attacks, THREAT, TRAINED, shown, replace(Settings(batch_size=16), **settings))
    return evaluator(model, data or split(model), *([progress] if progress else []))


@pytest.fixture
def report(classifier) -> Report:
    return evaluate(classifier)


# --- numbers


def test_the_clean_accuracy_is_that_counted_by_hand(report):
    assert report.metrics()["clean_accuracy"] == 32 / 40


def test_an_accuracy_is_that_of_the_attacked_inputs(classifier):
    data = split(classifier)
    batch = data.batch(torch.arange(40))
    found = ATTACKS["pgd"](classifier, batch.x, batch.y, batch.index)
    with torch.no_grad():
        correct = classifier(found).argmax(1) == data.labels
        correct &= classifier(batch.x).argmax(1) == data.labels
    assert torch.equal(evaluate(classifier, fast=False).outcomes["pgd"] == ROBUST, correct)
    assert 0 < int(correct.sum()) < 32


def test_the_worst_case_is_formed_sample_by_sample(report):
    bits = {name: (outcome == ROBUST).tolist() for name, outcome in report.outcomes.items()}
    expected = [all(bits[name][i] for name in (CLEAN, *INSIDE)) for i in range(40)]
    assert report.worst(*report.inside).tolist() == expected
    metrics = report.metrics()
    assert metrics["worst_accuracy"] == sum(expected) / 40
    assert metrics["worst_accuracy"] <= min(metrics[f"{name}_accuracy"] for name in (CLEAN, *INSIDE))


def test_only_attacks_inside_the_threat_form_the_worst_case(report):
    assert report.inside == INSIDE
    metrics = report.metrics()
    assert metrics["wide_accuracy"] < metrics["worst_accuracy"]


def columns(**bits: list[int]) -> dict[str, Tensor]:
    return {name: torch.tensor(outcome, dtype=torch.int8) for name, outcome in bits.items()}


def test_the_worst_case_of_disjoint_failures_is_worse_than_each():
    outcomes = columns(clean=[1, 1, 1, 0], a=[0, 1, 1, 0], b=[1, 0, 1, 0], c=[0, 0, 0, 0])
    majority = columns(clean=[1, 1, 1, 1], a=[1, 1, 1, 0])
    metrics = Report(outcomes, majority, ("a", "b"), {"main": "b"}, {"m": 0.5}, {}, {}).metrics()
    assert metrics == {
        "clean_accuracy": 0.75,
        "a_accuracy": 0.5,
        "b_accuracy": 0.5,
        "c_accuracy": 0.0,
        "main": 0.5,
        "worst_accuracy": 0.25,
        "clean_majority_accuracy": 1.0,
        "a_majority_accuracy": 0.75,
        "m": 0.5,
    }


def test_a_worst_case_that_cannot_be_known_is_refused():
    outcomes = columns(clean=[1, 1, 1, 0], a=[0, 1, 1, 0], b=[-1, 0, 1, 0], c=[-1, -1, 1, 0])
    assert worst_case(outcomes, "a", "b", "c").tolist() == [False, False, True, False]
    assert worst_case(outcomes, "b", "a").tolist() == [False, False, True, False]
    with pytest.raises(ValueError, match=r"^1 samples were left alone by b, since .*exhaustive=true$"):
        worst_case(outcomes, "b")
    with pytest.raises(ValueError, match=r"^1 samples were left alone by c, "):
        worst_case(outcomes, "a", "c")


def test_without_attacks_the_worst_case_is_the_clean_one(classifier):
    metrics = evaluate(classifier, attacks={}).metrics()
    assert metrics["worst_accuracy"] == metrics["clean_accuracy"]


def test_the_metrics_are_those_of_attacks_headline_and_measures(report):
    names = {f"{name}_accuracy" for name in (CLEAN, "worst", *ATTACKS)} | {"headline", "firing_rate"}
    metrics = report.metrics()
    assert report.costs is not None
    assert metrics.keys() == names | GRADIENT_MEASURES.keys() | report.costs.metrics().keys()
    assert metrics["headline"] == metrics["fgsm_accuracy"]
    assert all(isinstance(value, float) for value in metrics.values())
    assert len(report.layers["firing_rate"]) == 2


def test_the_excess_over_the_budget_is_rounding(report):
    assert report.excess.keys() == ATTACKS.keys() - {"gauss"}
    assert all(0 <= value <= 1e-6 for value in report.excess.values())


@dataclass(frozen=True)
class Overshooting(Attack):
    """Leaves its own budget: what the guarantee of `Attack` prevents, done behind its back."""

    threat: Threat
    seed: int = 0

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        return x

    def __call__(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor | None = None) -> Tensor:
        return (x + 0.25).clamp(0, 1)


def test_an_attack_that_leaves_its_budget_is_seen(classifier):
    report = evaluate(classifier, attacks={"over": Overshooting(THREAT)})
    assert report.excess["over"] == pytest.approx(0.15, abs=1e-6)


# --- who is attacked


@dataclass(frozen=True)
class Spy(Attack):
    """Notes whom it is given."""

    threat: Threat
    seed: int = 0
    seen: list[int] = field(default_factory=list)

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        self.seen.extend(index.tolist())
        return x


@dataclass(frozen=True)
class Bystander(Spy):
    threat: Threat
    seed: int = 0

    adversarial: ClassVar[bool] = False


def test_what_is_misclassified_anyway_is_never_attacked_but_meets_noise(classifier):
    spies = {"attack": Spy(THREAT), "noise": Bystander(THREAT)}
    report = evaluate(classifier, attacks=spies)
    assert spies["attack"].seen == [i for i in range(40) if i % 5]
    assert spies["noise"].seen == [*range(40)]
    assert torch.equal(report.outcomes["attack"], report.outcomes[CLEAN])
    assert not (report.outcomes["noise"] == NOT_ATTACKED).any()


def test_the_batch_size_does_not_change_an_outcome(double):
    data = split(double, 12)
    attacks = {
        "noise": ATTACKS["noise"],
        "fgsm": ATTACKS["fgsm"],
        "three": ProjectedGradient(Linf(0.25), THREE, steps=4),
    }
    whole, *parts = (evaluate(double, attacks, data, batch_size=size) for size in (12, 5, 1))
    assert 0 < whole.metrics()["three_accuracy"] < whole.metrics()["clean_accuracy"]
    for part in parts:
        assert part.outcomes.keys() == whole.outcomes.keys()
        for name, outcome in whole.outcomes.items():
            assert torch.equal(part.outcomes[name], outcome), name
    assert parts[0].measures == pytest.approx(whole.measures, rel=1e-5)


def test_survivors_of_the_estimators_before_give_the_worst_case_of_all(double):
    attacks = {"three": ProjectedGradient(Linf(0.25), THREE)}
    few, all_ = (evaluate(double, attacks, exhaustive=exhaustive) for exhaustive in (False, True))
    members = [f"three/{member}" for member in THREE.members()]
    assert all_.outcomes.keys() == {CLEAN, "three", *members}
    assert torch.equal(few.outcomes["three"], all_.outcomes["three"])
    assert torch.equal(all_.outcomes["three"] == ROBUST, all_.worst(*members))
    assert not any((all_.outcomes[name] == NOT_ATTACKED).any() for name in members)
    standing = few.outcomes[CLEAN] == ROBUST
    for name in members:
        expected = torch.where(standing, all_.outcomes[name], NOT_ATTACKED)
        expected[few.outcomes[CLEAN] == BROKEN] = BROKEN
        assert torch.equal(few.outcomes[name], expected), name
        standing &= all_.outcomes[name] == ROBUST
        assert (all_.outcomes[name] == ROBUST).any(), name
    assert (few.outcomes[members[-1]] == NOT_ATTACKED).any()
    with pytest.raises(ValueError, match=f"left alone by {members[-1]},"):
        few.worst(members[-1])
    assert torch.equal(few.worst(*members), all_.worst(*members))


def test_under_a_cascade_attacks_see_survivors_and_count_the_worst_case_so_far(double):
    order = ("noise", "wide", "fgsm", "pgd", "weak")
    attacks = {name: ATTACKS[name] for name in order}
    cascade, each = (evaluate(double, attacks, cascade=cascade) for cascade in (True, False))
    so_far = [CLEAN]
    for name in order:
        broken_before = ~each.worst(*so_far)
        if name != "noise":
            alone = cascade.outcomes[name] == NOT_ATTACKED
            assert torch.equal(alone, broken_before & (each.outcomes[CLEAN] == ROBUST)), name
        if name != "wide":  # outside the threat
            so_far.append(name)
            accuracy = cascade.metrics()[f"{name}_accuracy"]
            assert name == "noise" or accuracy == int(each.worst(*so_far).sum()) / 40
    assert torch.equal(cascade.outcomes["noise"], each.outcomes["noise"])
    assert torch.equal(cascade.worst(*cascade.inside), each.worst(*each.inside))
    assert (cascade.outcomes["weak"] == NOT_ATTACKED).any()


def test_lengths_of_one_search_give_what_separate_attacks_give(double):
    long = ProjectedGradient(THREAT, THREE, steps=7, step_size=0.02)
    attacks: dict[str, Attack] = {"seven": long, "two": replace(long, steps=2), "other": replace(long, steps=2, seed=1)}
    assert [[name for name, _ in family] for family in families(attacks)] == [["two", "seven"], ["other"]]
    together = evaluate(double, attacks)
    assert {"attack/two+seven", "attack/other"} <= together.seconds.keys()
    for name, attack in attacks.items():
        alone = evaluate(double, {name: attack})
        for column, outcome in alone.outcomes.items():
            assert torch.equal(together.outcomes[column], outcome), column
    assert together.metrics()["seven_accuracy"] < together.metrics()["two_accuracy"]


@pytest.mark.parametrize("encoder", [None, Poisson(2)])
def test_where_nothing_is_correct_nothing_is_attacked(make_tiny, encoder):
    model = make_tiny(encoder)
    data = split(model, 6)
    with torch.no_grad():
        [*model.parameters()][-1].sub_(100 * torch.nn.functional.one_hot(data.labels[1], 4))
    wrong = Split(data.values, torch.full_like(data.labels, int(data.labels[1])), 16)
    report = evaluate(model, {"three": ProjectedGradient(THREAT, THREE)}, wrong, draws=2)
    assert {name: outcome.tolist() for name, outcome in report.outcomes.items()} == {
        name: [BROKEN] * 6 for name in (CLEAN, "three", *(f"three/{member}" for member in THREE.members()))
    }
    assert report.metrics()["worst_accuracy"] == 0


# --- stochastic models


class Wavering(Toy):
    """Takes a sample for class 0, in a share of the draws that is its first entry, and for class 1 in the others."""

    stochastic = True

    def forward(self, x: Tensor) -> Tensor:
        share = x.flatten(1)[:, 0]
        right = (torch.rand(len(x)) < share).to(x) + 0 * share
        return torch.stack([right, 1 - right, -right, -right], 1)


def test_a_stochastic_model_must_be_right_in_every_draw_or_in_most():
    shares = torch.tensor([16, 13, 3, 0], dtype=torch.uint8).repeat_interleave(25)
    data = Split(shares.view(-1, 1, 1, 1), torch.zeros(100, dtype=torch.long), 16)
    spy = Spy(THREAT)
    report = evaluate(Wavering(1), {"spy": spy}, data, draws=40, batch_size=10)
    always, mostly = (report.outcomes[CLEAN] == ROBUST).view(4, 25), (report.majority[CLEAN] == ROBUST).view(4, 25)
    assert always.sum(1).tolist() == [25, 0, 0, 0]
    assert mostly.sum(1).tolist() == [25, 25, 0, 0]
    # What is broken in some sense, but not in every sense, is still attacked.
    assert spy.seen == [*range(50)]
    assert report.majority["spy"].tolist() == [ROBUST] * 50 + [BROKEN] * 50
    assert report.outcomes["spy"].tolist() == [ROBUST] * 25 + [BROKEN] * 75
    metrics = report.metrics()
    assert (metrics["clean_accuracy"], metrics["clean_majority_accuracy"]) == (0.25, 0.5)
    assert metrics["worst_accuracy"] == 0.25


def test_a_deterministic_model_has_no_majority(report):
    assert report.majority == {}


def test_the_seed_decides_the_outcomes_of_a_stochastic_model(make_tiny):
    model = make_tiny(Poisson(4))
    data = split(model)
    with torch.no_grad():  # on average no class is ahead, so that the draws decide
        [*model.parameters()][-1].sub_(model(data.batch(torch.arange(40)).x).mean(0))
    attacks = {"noise": ATTACKS["noise"]}
    found = []
    for stream, seed in ((1, 0), (2, 0), (1, 5)):
        torch.manual_seed(stream)
        found.append(evaluate(model, attacks, data, seed=seed, draws=3))
    assert torch.equal(found[0].outcomes["noise"], found[1].outcomes["noise"])
    assert found[0].metrics() == found[1].metrics()
    assert not torch.equal(found[0].majority[CLEAN], found[2].majority[CLEAN])


# --- around


def test_the_model_and_the_streams_are_left_as_they_were(make_tiny):
    model = make_tiny(Poisson(2))
    data = split(model)
    disturb(model)
    before = state_of(model), streams()
    evaluate(model, data=data, draws=2)
    assert_same(before[0], state_of(model))
    assert_same(before[1], streams())


def test_progress_is_told_of_every_batch(classifier):
    phases: dict[str, list[tuple[int, float]]] = {}

    @contextmanager
    def progress(name: str, samples: int) -> Iterator[Any]:
        assert samples == 40
        calls = phases.setdefault(name, [])
        yield lambda done, accuracy: calls.append((done, accuracy))

    report = evaluate(classifier, progress=cast(Any, progress))
    assert phases.keys() == {CLEAN, *ATTACKS}
    for name, calls in phases.items():
        everyone = name in (CLEAN, "noise", "gauss")
        assert [done for done, _ in calls] == ([16, 16, 8] if everyone else [16, 16])
        assert calls[-1][1] == report.metrics()[f"{name}_accuracy"]
