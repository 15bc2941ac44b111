"""Flags: raised by what they are made for, and not by its honest twin; never by noise."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from snnrobust.attacks.base import Attack
from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.attacks.losses import margin
from snnrobust.attacks.noise import GaussianNoise, UniformNoise
from snnrobust.console import results_line, results_table, stdout
from snnrobust.data.dataset import Split
from snnrobust.estimators.ensemble import Ensemble
from snnrobust.estimators.strongest import Strongest
from snnrobust.estimators.surrogate import TRAINED, Surrogate
from snnrobust.evaluation.checks import MEANING, Checks, checks_of
from snnrobust.evaluation.claims import claims_of
from snnrobust.evaluation.evaluator import Evaluator, Settings
from snnrobust.evaluation.judge import Judge
from snnrobust.evaluation.outcomes import BROKEN, CLEAN, NOT_ATTACKED, ROBUST
from snnrobust.evaluation.paired import Claim, refuted, tail
from snnrobust.evaluation.probes import NO_PROBES, HalfRange, Probes, Probing, declared, half_range
from snnrobust.evaluation.report import Report
from snnrobust.evaluation.selection import Selection
from snnrobust.flips import Flips
from snnrobust.randomness import uniform
from snnrobust.record import checks_content, summary
from snnrobust.spiking.classifier import Classifier
from snnrobust.spiking.encoder import Poisson
from snnrobust.spiking.surrogate import atan
from snnrobust.threat import L2, Bounds, Linf, Threat
from tests.contracts.toys import Flat, Toy

THREAT = Linf(0.2)
FGSM = ProjectedGradient(THREAT, steps=1, step_size=0.2, start="input")
PGD = ProjectedGradient(THREAT)
PAIR = Ensemble({"own": TRAINED, "other": Surrogate(atan())})


@dataclass(frozen=True)
class RandomSigns(Attack):
    """The best of many corners of the box, by the logits alone."""

    threat: Threat
    seed: int = 0

    black_box: ClassVar[bool] = True

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        best = x
        for number in range(60):
            signs = (uniform(x, index, number, self.seed) - 0.5).sign()
            new = (x + self.threat.size * signs).clamp(0, 1)
            better = margin(model(new), y) > margin(model(best), y)
            best = torch.where(better.view(-1, *[1] * (x.dim() - 1)), new, best)
        return best


# --- whole evaluations


class Steps(Toy):
    """Sees its input in sixteen steps, of which none has a slope."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((16 * x).floor() / 16 + 0 * x)


def split(model: nn.Module, number: int = 200) -> Split:
    """Random inputs with the classes that the model gives them."""
    values = torch.randint(17, (number, 1, 6, 6), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    with torch.no_grad():
        return Split(values, model(values / 16).argmax(1), 16)


def evaluated(model: Any, attacks: dict[str, Attack]) -> Report:
    model.eval()
    return Evaluator(attacks, THREAT, TRAINED, {}, Settings(batch_size=64))(model, split(model))


SUITE: dict[str, Attack] = {"noise": UniformNoise(THREAT), "fgsm": FGSM, "pgd": PGD, "signs": RandomSigns(THREAT)}


def test_a_model_without_a_slope_is_accused_and_its_smooth_twin_is_not():
    accused, cleared = (checks_of(evaluated(kind(36), SUITE)) for kind in (Steps, Toy))
    names = ["noise_stronger_than_fgsm", "black_box_stronger_than_white_box", "vanished_gradient"]
    assert [flag.name for flag in accused.flags] == ["not_broken_at_half_range", "not_monotone_in_eps", *names]
    assert cleared == Checks((), {})
    values = {flag.name: flag.value for flag in accused.flags}
    assert values["vanished_gradient"] == 1.0
    assert values["not_broken_at_half_range"] > 0.2
    assert accused.flags[1].sentence.endswith("(signs > pgd at half the range)")
    assert accused.flags[2].sentence.endswith("(noise > fgsm)")


def test_a_constant_model_is_not_accused_of_what_is_true_of_it():
    report = evaluated(Flat(36), SUITE)
    checks = checks_of(report)
    assert [flag.name for flag in checks.flags] == ["vanished_gradient"]
    assert checks.not_determined.keys() == {"not_broken_at_half_range"}
    assert checks_content(report, checks)["half_range_accuracy"] is None


# --- comparisons of outcomes


def report_of(suite: Mapping[str, Attack], outcomes: dict[str, Tensor], **more: Any) -> Report:
    clean = torch.ones_like(next(iter(outcomes.values())))
    measures = {"gradient_vanished": 0.0}
    return Report({CLEAN: clean, **outcomes}, {}, (), {}, measures, {}, {}, suite=suite, **more)


def bits(samples: int, broken: range) -> Tensor:
    column = torch.full((samples,), ROBUST, dtype=torch.int8)
    column[broken.start : broken.stop] = BROKEN
    return column


Make = Callable[[Tensor, Tensor], Report]


def at_half_range(weaker: Tensor, stronger: Tensor) -> Report:
    everyone = torch.arange(len(stronger))
    half = HalfRange(Linf(0.5), everyone, stronger == ROBUST, torch.zeros(len(stronger), dtype=torch.bool))
    # What the probe did not look at counts as unknown here.
    known = stronger != NOT_ATTACKED
    column = torch.where(known, weaker, NOT_ATTACKED).to(torch.int8)
    return report_of({"pgd": PGD}, {"pgd": column}, probes=Probes(half, 0.0))


def selected(weaker: Tensor, stronger: Tensor) -> Report:
    found = {"trained": stronger, "other": weaker}
    return report_of({}, {"x": stronger}, selection=Selection(PAIR, found, ()))


CASES: dict[str, tuple[str, Make]] = {
    "eps": ("not_monotone_in_eps", at_half_range),
    "steps": (
        "not_monotone_in_steps",
        lambda w, s: report_of({"many": replace(PGD, steps=50), "few": PGD}, {"many": s, "few": w}),
    ),
    "noise": (
        "noise_stronger_than_fgsm",
        lambda w, s: report_of({"noise": UniformNoise(THREAT), "fgsm": FGSM}, {"noise": w, "fgsm": s}),
    ),
    "single": ("fgsm_stronger_than_pgd", lambda w, s: report_of({"pgd": PGD, "fgsm": FGSM}, {"pgd": s, "fgsm": w})),
    "black": (
        "black_box_stronger_than_white_box",
        lambda w, s: report_of({"signs": RandomSigns(THREAT), "pgd": PGD}, {"signs": w, "pgd": s}),
    ),
    "members": (
        "other_estimator_stronger",
        lambda w, s: report_of(
            {"pgd": replace(PGD, estimator=PAIR)}, {"pgd": torch.minimum(w, s), "pgd/own": s, "pgd/other": w}
        ),
    ),
    "selection": ("other_estimator_stronger", selected),
}


@pytest.fixture(params=CASES)
def case(request) -> tuple[str, Make]:
    return CASES[request.param]


def comparative(report: Report) -> list[tuple[str, float]]:
    return [(flag.name, flag.value) for flag in checks_of(report).flags]


def test_the_weaker_breaking_more_raises_the_flag_and_the_stronger_does_not(case):
    name, make = case
    few, many = bits(200, range(40, 44)), bits(200, range(22))
    ((raised, value),) = comparative(make(many, few))
    assert raised == name
    assert value == pytest.approx(0.09)
    assert comparative(make(few, many)) == []
    assert comparative(make(many, many)) == []


def test_a_difference_that_could_be_chance_raises_nothing(case):
    """Of 30 samples on which the two differ, 20 speak for one: 5 points, and p = 0.049; with 22, p = 0.008."""
    _, make = case
    for more, raised in ((20, False), (22, True)):
        weaker, stronger = bits(200, range(more)), bits(200, range(more, 30))
        assert bool(comparative(make(weaker, stronger))) is raised


def test_a_certain_difference_below_the_margin_raises_nothing(case):
    _, make = case
    for more, raised in ((39, False), (40, True)):
        assert bool(comparative(make(bits(2000, range(more)), bits(2000, range(0))))) is raised


@pytest.mark.parametrize("side", [0, 1])
def test_what_was_left_alone_makes_a_comparison_undetermined(case, side):
    name, make = case
    columns = [bits(200, range(40)), bits(200, range(0))]
    columns[side][50] = NOT_ATTACKED
    checks = checks_of(make(*columns))
    assert checks.flags == ()
    assert len(checks.not_determined[name]) == 1


def test_only_samples_that_are_correct_when_clean_are_compared():
    report = report_of(
        {"noise": UniformNoise(THREAT), "fgsm": FGSM}, {"noise": bits(200, range(40)), "fgsm": bits(200, range(0))}
    )
    assert comparative(report) != []
    report.outcomes[CLEAN][:40] = BROKEN
    assert comparative(report) == []


def test_pairs_share_the_level_of_their_flag():
    suite: dict[str, Attack] = {"a": PGD, "b": replace(PGD, steps=20)}
    columns = {"a": bits(100, range(8)), "b": bits(100, range(0))}
    assert comparative(report_of(suite, columns)) == [("not_monotone_in_steps", 0.08)]
    suite["c"], columns["c"] = replace(PGD, steps=30), bits(100, range(8))
    assert len(claims_of(report_of(suite, columns))["not_monotone_in_steps"]) == 3
    assert comparative(report_of(suite, columns)) == []


def test_the_rival_of_a_black_box_attack_is_the_strongest():
    suite = {"signs": RandomSigns(THREAT), "fgsm": FGSM, "pgd": PGD}
    columns = {"signs": bits(200, range(30)), "fgsm": bits(200, range(0)), "pgd": bits(200, range(30))}
    assert comparative(report_of(suite, columns)) == []


class Encoded(ProjectedGradient):
    threat: Threat
    seed: int
    space: ClassVar[Any] = "code"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (UniformNoise(Linf(0.3)), FGSM),
        (GaussianNoise(0.5), FGSM),
        (UniformNoise(THREAT), replace(FGSM, step_size=0.1)),
        (UniformNoise(THREAT), replace(FGSM, start="uniform")),
        (FGSM, replace(PGD, threat=Linf(0.3))),
        (FGSM, replace(PGD, estimator=Surrogate(atan()))),
        (FGSM, replace(PGD, step_size=0.01)),
        (replace(PGD, loss="margin"), replace(PGD, steps=50)),
        (PGD, replace(PGD, steps=50, seed=1)),
        (RandomSigns(THREAT), UniformNoise(THREAT)),
        (RandomSigns(Linf(0.1)), PGD),
        (RandomSigns(THREAT), Encoded(THREAT)),
    ],
)
def test_what_cannot_be_compared_is_not(one, other):
    columns = {"one": bits(200, range(100)), "other": bits(200, range(0))}
    claims = claims_of(report_of({"one": one, "other": other}, columns))
    assert {name: found for name, found in claims.items() if found} == {}


def test_a_larger_budget_than_half_the_range_is_not_compared_with_it():
    half = HalfRange(Linf(0.5), torch.arange(5), torch.ones(5).bool(), torch.ones(5).bool())
    for eps, number in ((0.5, 1), (0.6, 0)):
        report = report_of(
            {"pgd": replace(PGD, threat=Linf(eps))}, {"pgd": bits(9, range(9))}, probes=Probes(half, 0.0)
        )
        assert len(claims_of(report)["not_monotone_in_eps"]) == number


def test_members_that_were_selected_are_not_held_against_the_first():
    columns = {"pgd": bits(200, range(40)), "pgd/own": bits(200, range(0)), "pgd/other": bits(200, range(40))}
    suite: dict[str, Attack] = {"pgd": replace(PGD, estimator=PAIR)}
    same = {"trained": bits(50, range(5)), "other": bits(50, range(5))}
    assert comparative(report_of(suite, columns)) != []
    assert comparative(report_of(suite, columns, selection=Selection(PAIR, same, ()))) == []


# --- the test itself


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (0, 5), (8, 8), (5, 8), (550, 1000), (1000, 1000)])
def test_the_tail_is_that_of_the_binomial_distribution(successes, trials):
    exact = Fraction(sum(math.comb(trials, k) for k in range(successes, trials + 1)), 2**trials)
    assert tail(successes, trials) == pytest.approx(float(exact), rel=1e-9)


def test_equal_attacks_are_accused_in_less_than_one_draw_of_a_hundred():
    """Five attacks of the same strength on samples of any difficulty; each comparative flag by itself."""
    suite = {**SUITE, "few": replace(PGD, steps=5), "more": replace(PGD, steps=20), "most": replace(PGD, steps=40)}
    generator = torch.Generator().manual_seed(0)
    raised = dict.fromkeys(MEANING, 0)
    draws = 2000
    for _ in range(draws):
        difficulty = torch.rand(150, generator=generator)
        half = HalfRange(
            Linf(0.5), torch.arange(150), torch.rand(150, generator=generator) < difficulty, torch.zeros(150).bool()
        )
        columns = {n: (torch.rand(150, generator=generator) < difficulty).to(torch.int8) for n in suite}
        for flag in checks_of(report_of(suite, columns, probes=Probes(half, 0.0))).flags:
            raised[flag.name] += 1
    assert max(raised.values()) < draws / 100


def test_a_real_difference_is_seen_in_most_draws():
    generator = torch.Generator().manual_seed(0)
    seen = 0
    for _ in range(200):
        difficulty = torch.rand(1000, generator=generator)
        weaker = (torch.rand(1000, generator=generator) < difficulty - 0.1).to(torch.int8)
        stronger = (torch.rand(1000, generator=generator) < difficulty).to(torch.int8)
        seen += len(refuted([Claim("weaker", "stronger", weaker, stronger)]))
    assert seen > 180


# --- probes


def probed(model: Any, threat: Threat = THREAT, number: int = 48, batch_size: int = 32) -> Probes:
    data = split(model, number)
    probing = Probing(threat, TRAINED, batch_size, 0)
    return probing(model, Judge(model, 4, 0), data, torch.ones(number, dtype=torch.bool))


class Remembering(Toy):
    """Adds a trace of what it saw before."""

    trace: Any = 0.0

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x) + self.trace
        self.trace = self.trace + 0.01 * z.detach().mean()
        return z


class Sociable(Toy):
    """Normalises by the statistics of the batch in eval mode as well."""

    def forward(self, x: Tensor) -> Tensor:
        self.norm.train()
        return super().forward(x)


class Careless(Toy):
    """Leaves dropout on."""

    def forward(self, x: Tensor) -> Tensor:
        self.drop.train()
        return super().forward(x)


class Rounding(Toy):
    """Rounds differently from call to call."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 + 1e-6 * torch.rand(len(x), 1))


@pytest.mark.parametrize(("kind", "changed"), [(Remembering, 1), (Sociable, 1), (Careless, 1), (Rounding, 0), (Toy, 0)])
def test_a_forward_that_cannot_be_repeated_is_seen(kind, changed):
    found = probed(kind(36).eval())
    assert found.changed == pytest.approx(changed, abs=0.1)
    names = [flag.name for flag in checks_of(report_of({}, {"x": bits(5, range(0))}, probes=found)).flags]
    assert ("forward_not_repeatable" in names) is bool(changed)


@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_spiking_networks_repeat_themselves_and_stochastic_ones_need_not(make_tiny, images, batch_size):
    data = Split((16 * images[0]).to(torch.uint8), images[1], 16)
    nothing = torch.zeros(12, dtype=torch.bool)
    changed = [
        Probing(THREAT, TRAINED, batch_size, 0)(model, Judge(model, 2, 0), data, nothing).changed
        for model in (make_tiny(), make_tiny(Poisson(2)))
    ]
    assert changed == [0, None]


@pytest.mark.parametrize("threat", [Linf(0.01), L2(0.5)])
def test_half_the_range_reaches_grey_from_every_corner_and_no_less_does(threat):
    corners = torch.randint(2, (50, 3, 4, 4), generator=torch.Generator().manual_seed(0)).double() * 3 - 1
    grey = torch.full_like(corners, 0.5)
    half: Any = half_range(threat, 48, Bounds(-1, 2))
    assert type(half) is type(threat)
    assert half.excess(grey, corners).max() < 1e-9
    assert replace(half, eps=0.999 * half.eps).excess(grey, corners).min() > 0


def test_other_threats_have_no_half_range():
    assert half_range(Flips(3), 48, Bounds()) is None
    checks = checks_of(report_of({}, {"x": bits(5, range(0))}, probes=NO_PROBES))
    assert checks.not_determined.keys() == {"not_broken_at_half_range"}


@pytest.mark.parametrize("threat", [THREAT, L2(0.5)])
def test_at_half_the_range_a_smooth_model_breaks_wherever_grey_shows_that_it_can(threat):
    model = Toy(36).eval()
    half = probed(model, threat).half_range
    assert half is not None
    assert half.accuracy == 0
    data = split(model, 48)
    with torch.no_grad():
        grey = model(torch.full((1, 1, 6, 6), 0.5)).argmax(1)
    assert torch.equal(half.breakable, data.labels != grey)
    assert 0 < int(half.breakable.sum()) < 48


def test_the_probe_takes_correct_samples_of_the_first_256():
    model = Toy(36).eval()
    data = split(model, 300)
    correct = torch.arange(300) % 3 > 0
    half = Probing(THREAT, TRAINED, 100, 0)(model, Judge(model, 1, 0), data, correct).half_range
    assert half is not None
    assert half.index.tolist() == [i for i in range(256) if i % 3]
    assert len(half.robust) == len(half.breakable) == len(half.index)


def test_the_declared_estimator_is_the_first():
    other = Surrogate(atan())
    assert declared(other) == other
    assert declared(PAIR) == TRAINED
    assert declared(Strongest({"a": other, "b": TRAINED})) == other


# --- stochastic models


@pytest.mark.parametrize(("samples", "raised"), [(1, True), (10, False)])
def test_a_stochastic_model_attacked_by_single_draws_raises_a_flag(samples, raised):
    suite = {"noise": UniformNoise(THREAT), "signs": RandomSigns(THREAT), "pgd": replace(PGD, samples=samples)}
    columns = {name: bits(50, range(10)) for name in suite}
    report = report_of(suite, columns)
    assert comparative(report) == []
    stochastic = replace(report, majority=report.outcomes)
    assert comparative(stochastic) == [("stochastic_without_eot", 1)] * raised


# --- where they are shown


def test_every_flag_has_its_section():
    text = (Path(__file__).parents[2] / "docs" / "checks.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == [*MEANING]


def results(flags: list[dict[str, Any]]) -> dict[str, Any]:
    metrics = {"clean_accuracy": 0.9, "pgd_accuracy": 0.5}
    return {"metrics": metrics, "layers": {}, "estimators": {}, "flags": flags, "config": {"suite": {"headline": {}}}}


def test_the_terminal_and_the_tracker_are_told():
    flag = {"name": "vanished_gradient", "sentence": "many [b]zeros[/b]", "value": 0.25, "anchor": "docs/checks.md#x"}
    console = stdout()
    console.width = 200
    with console.capture() as shown:
        console.print(results_table(results([flag])))
    assert shown.get().splitlines()[-1] == "† vanished_gradient 0.25: many [b]zeros[/b] (docs/checks.md#x)"
    assert results_line("run", results([flag])).endswith("PGD 50.0 % † vanished_gradient")
    assert summary(results([flag]))["flags/vanished_gradient"] == 0.25
    assert [summary(results(flags))["flags"] for flags in ([], [flag])] == [0, 1]
    with console.capture() as shown:
        console.print(results_table(results([])))
    assert "†" not in shown.get() + results_line("run", results([]))
