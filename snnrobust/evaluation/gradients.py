"""The gradients of a model under each of the estimators that an evaluation names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from snnrobust.data.dataset import Split
from snnrobust.estimators.base import Estimator
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.evaluation.layers import FIRING_RATE, watched
from snnrobust.evaluation.measures import gradient_measures
from snnrobust.spiking.classifier import Classifier


@dataclass(frozen=True)
class Gradients:
    """What was measured, by estimator.

    Args:
        estimators: per estimator the measures of its input gradient, the model's own first.
        layers: per measure a value per spiking layer, under the model's own gradient; and, as `measure/estimator`,
            under each other estimator.
    """

    estimators: Mapping[str, Mapping[str, float]]
    layers: Mapping[str, Mapping[str, float]]

    def scalars(self) -> dict[str, float]:
        """The measures under the model's own gradient; and `firing_rate`, the unweighted mean over spiking layers."""
        rates = self.layers.get(FIRING_RATE, {})
        mean = {FIRING_RATE: sum(rates.values()) / len(rates)} if rates else {}
        return dict(next(iter(self.estimators.values()))) | mean


def members(estimator: Estimator) -> Mapping[str, Estimator]:
    """The model's own gradient, so that runs can be compared, then the estimators that one stands for, by name.

    A single estimator has the name of its class (RateGradient: rate_gradient).
    """
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(estimator).__name__).lower()
    return {"trained": TRAINED, **(estimator.members() or {name: estimator})}


def survey(model: Classifier, data: Split, estimator: Estimator, batch_size: int, seed: int) -> Gradients:
    """One forward and one backward pass over the data for each estimator, on the network itself.

    The gradients of a fused network are the same up to rounding, but not what its layers see.

    Raises:
        ValueError: if an estimator does not apply to the model.
    """
    found: dict[str, dict[str, float]] = {}
    layers: dict[str, dict[str, float]] = {}
    for name, one in members(estimator).items():
        suffix = f"/{name}" if found else ""
        with watched(model) as watch:
            found[name] = gradient_measures(model, data.batches(batch_size), one, seed=seed)
        # The spikes are the same under every estimator.
        new = {measure + suffix: v for measure, v in watch.means().items() if not (suffix and measure == FIRING_RATE)}
        layers |= new
    return Gradients(found, layers)
