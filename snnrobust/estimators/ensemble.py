"""Several estimators at once: an attack is run under each, and a sample is robust if it is under all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from snnrobust.estimators.base import Estimator
from snnrobust.spiking.classifier import Classifier

NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)
"""Names become columns of records, where a slash or a colon would mean something else."""


@dataclass(frozen=True)
class Ensemble(Estimator):
    """The per-sample worst case over estimators. Attacks run their members one by one, on whatever survived.

    Args:
        estimators: by name, in the order in which they are tried; the first is the declared one.
    """

    estimators: Mapping[str, Estimator]

    def __post_init__(self) -> None:
        nested = [name for name, estimator in self.estimators.items() if estimator.members()]
        if not self.estimators or nested:
            raise ValueError(f"estimators: got {nested or 'none'}; allowed: one or more estimators, no ensembles")
        for name in self.estimators:
            if not NAME.fullmatch(name):
                raise ValueError(
                    f"estimators.{name}: a name consists of letters, digits and _, and begins with a letter"
                )

    def members(self) -> Mapping[str, Estimator]:
        return dict(self.estimators)

    def applied(self, model: Classifier) -> AbstractContextManager[Classifier]:
        raise TypeError("an ensemble has no gradient; its members have")
