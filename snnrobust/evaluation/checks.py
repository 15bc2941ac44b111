"""Checks that accuse the evaluation itself: flags on a result, which a table marks with a dagger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from snnrobust.evaluation.report import Report

VANISHED = 0.1


@dataclass(frozen=True)
class Flag:
    """A name, what it means for the result, and the number that raised it."""

    name: str
    sentence: str
    value: float


def flags_of(report: Report) -> Iterator[Flag]:
    """What speaks against taking the accuracies under attack for robustness."""
    vanished = report.measures["gradient_vanished"]
    if vanished > VANISHED:
        sentence = "the input gradient of many samples is zero everywhere: attacks that follow it cannot move"
        yield Flag("vanished_gradient", sentence, vanished)
