"""The estimators that break most of a model, found on validation data before the attacks begin."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from snnrobust.estimators.base import Estimator
from snnrobust.settings import PositiveInt
from snnrobust.spiking.classifier import Classifier


@dataclass(frozen=True)
class Strongest(Estimator):
    """A request: the evaluation replaces it by an ensemble (`snnrobust.evaluation.selection`).

    Args:
        candidates: by name, the declared one first; those that do not apply to the model are left out.
        keep: size of the ensemble.
        samples: of the validation data that the candidates are tried on, at most.
    """

    candidates: Mapping[str, Estimator]
    keep: PositiveInt = 4
    samples: PositiveInt = 500

    def applied(self, model: Classifier) -> AbstractContextManager[Classifier]:
        raise TypeError("the strongest estimators have to be chosen on validation data first")
