"""What an evaluation found: an outcome per sample and attack, kept, so that any worst case can be formed later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from snnrobust.attacks.base import Attack
from snnrobust.evaluation.costs import Costs
from snnrobust.evaluation.examples import Examples
from snnrobust.evaluation.outcomes import CLEAN, ROBUST, share, worst_case
from snnrobust.evaluation.probes import NO_PROBES, Probes
from snnrobust.evaluation.selection import Selection


@dataclass(frozen=True)
class Report:
    """Outcomes and measures of one model on one split.

    Args:
        outcomes: by name (`clean`, every attack, and `attack/estimator` where an attack ran under several), `[N]` int8.
            An attack's own column is the worst case over its estimators; under a cascade, over all attacks so far.
        majority: for a stochastic model, the same by majority over draws instead of all draws; else empty.
        inside: attacks that stay inside the threat of the evaluation; they form the worst case.
        headline: names of metrics that repeat an attack's accuracy, as `{"pgd_accuracy": "pgd"}`.
        measures: further scalars, by name.
        layers: per measure, a value per spiking layer; as `measure/estimator` under each estimator but the first.
        excess: per attack, by how much its largest perturbation left its own budget (0 or rounding).
        seconds: per phase.
        selection: of the strongest estimators on validation data, where there was one.
        suite: the attacks as they were run, by name.
        probes: what is known of the model apart from the attacks.
        estimators: gradient measures under each estimator, the declared one first, whose are among `measures`.
        examples: a few samples with their gradients.
        costs: connections, spikes, operations and energy; None of a model made elsewhere.
    """

    outcomes: Mapping[str, Tensor]
    majority: Mapping[str, Tensor]
    inside: tuple[str, ...]
    headline: Mapping[str, str]
    measures: Mapping[str, float]
    layers: Mapping[str, Mapping[str, float]]
    excess: Mapping[str, float]
    seconds: Mapping[str, float] = field(default_factory=dict)
    selection: Selection | None = None
    suite: Mapping[str, Attack] = field(default_factory=dict)
    probes: Probes = NO_PROBES
    estimators: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    examples: Examples | None = None
    costs: Costs | None = None

    @property
    def attacks(self) -> tuple[str, ...]:
        """Attacks, without the columns of their estimators."""
        return tuple(name for name in self.outcomes if name != CLEAN and "/" not in name)

    def worst(self, *names: str) -> Tensor:
        """See `worst_case`."""
        return worst_case(self.outcomes, *names)

    def metrics(self) -> dict[str, float]:
        """All scalars, accuracies as fractions; every accuracy is exact (a count over N)."""
        accuracies = {f"{name}_accuracy": share(self.outcomes[name] == ROBUST) for name in (CLEAN, *self.attacks)}
        headline = {metric: accuracies[f"{name}_accuracy"] for metric, name in self.headline.items()}
        worst = {"worst_accuracy": share(self.worst(*self.inside))}
        majority = {
            f"{name}_majority_accuracy": share(bits == ROBUST)
            for name, bits in self.majority.items()
            if "/" not in name
        }
        spent = self.costs.metrics() if self.costs else {}
        return accuracies | headline | worst | majority | dict(self.measures) | spent
