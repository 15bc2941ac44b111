"""What holds between the outcomes of a suite if the gradients lead anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations, product

from torch import Tensor

from snnrobust.attacks.base import Attack, Stepwise
from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.evaluation.outcomes import CLEAN, ROBUST
from snnrobust.evaluation.paired import Claim
from snnrobust.evaluation.report import Report

Names = tuple[str, str]
"""Of two columns: that of the attack which should break fewer samples, and that of the other."""
Suite = Mapping[str, Attack]


def claims_of(report: Report) -> dict[str, list[Claim]]:
    """By name of the flag that is raised if one of them is refuted; all on samples that are correct when clean."""
    correct = report.outcomes[CLEAN] == ROBUST
    columns = {name: column[correct] for name, column in report.outcomes.items()}
    suite = {name: attack for name, attack in report.suite.items() if attack.threat and attack.space == "input"}
    pairs = {
        "not_monotone_in_steps": _fewer_steps(suite),
        "noise_stronger_than_fgsm": _noise(suite),
        "fgsm_stronger_than_pgd": _one_step(suite),
        "black_box_stronger_than_white_box": _black_box(suite, columns),
        "other_estimator_stronger": _other_estimators(report),
    }
    claims = {
        flag: [Claim(weaker, stronger, columns[weaker], columns[stronger]) for weaker, stronger in found]
        for flag, found in pairs.items()
    }
    claims["other_estimator_stronger"] += _on_validation(report)
    return {"not_monotone_in_eps": [*_smaller_budgets(report, suite)], **claims}


def _smaller_budgets(report: Report, suite: Suite) -> Iterator[Claim]:
    """Attacks within their budgets, and PGD with half the range, on the samples of that probe."""
    half = report.probes.half_range
    for name, attack in suite.items():
        if half and attack.threat and attack.adversarial and half.threat.contains(attack.threat):
            column = report.outcomes[name]
            yield Claim(name, "pgd at half the range", column[half.index], half.robust.to(column))


def _fewer_steps(suite: Suite) -> Iterator[Names]:
    """Attacks that differ in their steps alone."""
    for (few, one), (many, other) in permutations(suite.items(), 2):
        if isinstance(one, Stepwise) and isinstance(other, Stepwise) and one.steps < other.steps:
            alike = type(one) is type(other) and {**vars(one), "steps": other.steps} == vars(other)
            if alike:
                yield few, many


def _noise(suite: Suite) -> Iterator[Names]:
    """Random perturbations, and one gradient step from the input that goes as far."""
    for (random, noise), (step, attack) in product(suite.items(), _gradient(suite)):
        full = attack.steps == 1 and attack.start == "input" and attack.step >= attack.threat.size
        if not noise.adversarial and full and noise.threat == attack.threat:
            yield random, step


def _one_step(suite: Suite) -> Iterator[Names]:
    """One gradient step, and several by the same estimator that together reach across the threat set."""
    for (single, one), (several, many) in permutations(_gradient(suite), 2):
        reaching = one.steps == 1 < many.steps and many.steps * many.step >= many.threat.size
        if reaching and (one.threat, one.estimator) == (many.threat, many.estimator):
            yield single, several


def _black_box(suite: Suite, columns: Mapping[str, Tensor]) -> Iterator[Names]:
    """Attacks without gradients, and the strongest with them."""
    for name, attack in suite.items():
        rivals = [n for n, a in suite.items() if a.adversarial and not a.black_box and a.threat == attack.threat]
        if attack.black_box and rivals:
            yield name, min(rivals, key=lambda rival: int((columns[rival] == ROBUST).sum()))


def _other_estimators(report: Report) -> Iterator[Names]:
    """Members of an attack's ensemble, and the first, which is the declared one unless the ensemble was selected."""
    chosen = report.selection.estimator if report.selection else None
    for name, attack in report.suite.items():
        members = [f"{name}/{member}" for member in attack.estimator.members() if attack.estimator != chosen]
        yield from product(members[1:], members[:1])


def _on_validation(report: Report) -> Iterator[Claim]:
    """The same of all candidates of a selection, the declared one first, on validation data."""
    candidates = [*report.selection.outcomes.items()] if report.selection else []
    for (name, column), (declared, expected) in product(candidates[1:], candidates[:1]):
        yield Claim(f"validation/{name}", f"validation/{declared}", column, expected)


def _gradient(suite: Suite) -> list[tuple[str, ProjectedGradient]]:
    return [(name, attack) for name, attack in suite.items() if isinstance(attack, ProjectedGradient)]
