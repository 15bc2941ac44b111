"""Checks that accuse the evaluation itself: flags on a result, which a table marks with a dagger.

What each flag means, how it is tested and what to do about it is said in docs/checks.md, a section each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from snnrobust.evaluation.claims import claims_of
from snnrobust.evaluation.paired import refuted
from snnrobust.evaluation.report import Report

HALF_RANGE = 0.05
"""Of samples that are certain to be breakable at half the range: what ten steps may leave."""
VANISHED = 0.1
CHANGED = 0.05
"""Share of samples; in a few, rounding in another order may make a neuron at its threshold spike."""

MEANING = {
    "not_broken_at_half_range": "PGD with half the range as its budget misses adversarial inputs that must exist",
    "not_monotone_in_eps": "a smaller budget breaks more than half the range",
    "not_monotone_in_steps": "fewer steps break more than many",
    "noise_stronger_than_fgsm": "a random perturbation breaks more than a gradient step of the same size",
    "fgsm_stronger_than_pgd": "one gradient step breaks more than several",
    "black_box_stronger_than_white_box": "an attack without gradients breaks more than any with them",
    "vanished_gradient": "the input gradient of many samples is zero everywhere: attacks that follow it cannot move",
    "forward_not_repeatable": "the logits of a model said to be deterministic change from one forward to the next",
    "stochastic_without_eot": "the model draws, and attacks follow the gradient of single draws",
    "other_estimator_stronger": "another gradient estimator breaks more than the declared one",
}
"""By name of the flag, in the order in which flags are shown."""


@dataclass(frozen=True)
class Flag:
    """A name, what it means for the result, and the number that raised it."""

    name: str
    sentence: str
    value: float

    @property
    def anchor(self) -> str:
        """Where it is explained."""
        return f"docs/checks.md#{self.name}"


@dataclass(frozen=True)
class Checks:
    """What speaks against taking the accuracies under attack for robustness.

    Args:
        flags: that are raised.
        not_determined: by name of a flag, what could not be looked at, since outcomes or samples are missing.
    """

    flags: tuple[Flag, ...]
    not_determined: Mapping[str, tuple[str, ...]]


def checks_of(report: Report) -> Checks:
    """All checks on one result."""
    flags = [*_beyond_limits(report), *_single_draws(report)]
    missing = dict(_not_probed(report))
    for name, claims in claims_of(report).items():
        wrong = refuted([claim for claim in claims if claim.known])
        if wrong:
            pairs = ", ".join(f"{claim.weaker} > {claim.stronger}" for claim in wrong)
            flags.append(Flag(name, f"{MEANING[name]} ({pairs})", max(claim.excess for claim in wrong)))
        if unknown := [f"{claim.weaker} against {claim.stronger}" for claim in claims if not claim.known]:
            missing[name] = tuple(unknown)
    return Checks(tuple(sorted(flags, key=lambda flag: [*MEANING].index(flag.name))), missing)


def _beyond_limits(report: Report) -> Iterator[Flag]:
    """Flags of a number that is too large."""
    half, changed = report.probes.half_range, report.probes.changed
    numbers = (
        ("not_broken_at_half_range", half.accuracy if half else None, HALF_RANGE),
        ("vanished_gradient", report.measures["gradient_vanished"], VANISHED),
        ("forward_not_repeatable", changed, CHANGED),
    )
    for name, value, limit in numbers:
        if value is not None and value > limit:
            yield Flag(name, MEANING[name], value)


def _single_draws(report: Report) -> Iterator[Flag]:
    """Attacks on a stochastic model whose setting `samples` is 1; others have no such setting."""
    name, suite = "stochastic_without_eot", report.suite
    single = [attack for attack in suite if suite[attack].adversarial and vars(suite[attack]).get("samples") == 1]
    if report.majority and single:
        yield Flag(name, f"{MEANING[name]} ({', '.join(single)})", len(single))


def _not_probed(report: Report) -> Iterator[tuple[str, tuple[str, ...]]]:
    half = report.probes.half_range
    if half is None:
        yield "not_broken_at_half_range", ("no budget of half the range in this threat",)
    elif half.accuracy is None:
        yield "not_broken_at_half_range", ("no sample that is certain to be breakable: all keep their class when grey",)
