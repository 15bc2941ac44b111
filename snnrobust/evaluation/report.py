"""What an evaluation found: one bit per sample and attack, kept, so that any worst case can be formed later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

CLEAN = "clean"


@dataclass(frozen=True)
class Report:
    """Outcomes and measures of one model on one split.

    Args:
        correct: per name (`clean` and every attack), `[N]` bool: classified correctly under it.
        inside: attacks that stay inside the threat of the evaluation; they form the worst case.
        headline: names of metrics that repeat an attack's accuracy, as `{"pgd_accuracy": "pgd"}`.
        measures: further scalars, by name.
        firing_rates: mean spikes per neuron and step, by layer.
        excess: per attack, by how much its largest perturbation left its own budget (0 or rounding).
        seconds: per phase.
    """

    correct: Mapping[str, Tensor]
    inside: tuple[str, ...]
    headline: Mapping[str, str]
    measures: Mapping[str, float]
    firing_rates: Mapping[str, float]
    excess: Mapping[str, float]
    seconds: Mapping[str, float]

    def worst(self, *names: str) -> Tensor:
        """`[N]` bool: correct on the clean input and under every one of the named attacks."""
        return torch.stack([self.correct[name] for name in (CLEAN, *names)]).all(0)

    def metrics(self) -> dict[str, float]:
        """All scalars, accuracies as fractions; every accuracy is exact (a count over N)."""
        accuracies = {f"{name}_accuracy": _mean(bits) for name, bits in self.correct.items()}
        headline = {metric: accuracies[f"{name}_accuracy"] for metric, name in self.headline.items()}
        worst = {"worst_accuracy": _mean(self.worst(*self.inside))}
        return accuracies | headline | worst | dict(self.measures)


def _mean(bits: Tensor) -> float:
    return int(bits.sum()) / len(bits)
