"""The table of gradient measures under every estimator."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from snnrobust.reporting.records import Record
from snnrobust.reporting.settings import Estimate
from snnrobust.reporting.tables import cell
from snnrobust.reporting.trainings import Training

MEASURES = {
    "gradient_sparsity": "sparsity",
    "gradient_zero_fraction": "zero fraction",
    "gradient_hoyer": "Hoyer",
    "gradient_gini": "Gini",
    "gradient_l1": "l1",
    "gradient_vanished": "vanished",
}


@dataclass(frozen=True)
class EstimatorTable:
    """As text: `training` and `estimator` are labels, the rest are means ± deviations over seeds."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def estimator_table(trainings: Sequence[Training]) -> EstimatorTable:
    """A row for each training configuration under each estimator; no rows if no run has measured them."""
    return EstimatorTable(("training", "estimator", "n", *MEASURES.values()), tuple(_rows(trainings)))


def estimators_of(record: Record) -> Mapping[str, Mapping[str, float | None]]:
    """Gradient measures by estimator, the declared one first; older runs have none."""
    found: Mapping[str, Mapping[str, float | None]] = record.content.get("estimators", {})
    return found


def _rows(trainings: Sequence[Training]) -> Iterator[tuple[str, ...]]:
    for training in trainings:
        for name in dict.fromkeys(name for record in training.records for name in estimators_of(record)):
            records = training.of_each_model(partial(_has, name))
            values = [cell(measure, _estimate(records, name, measure), len(records)) for measure in MEASURES]
            yield training.name, name, str(len(records)), *values


def _has(estimator: str, record: Record) -> bool:
    return estimator in estimators_of(record)


def _estimate(records: Sequence[Record], estimator: str, measure: str) -> Estimate | None:
    found = [estimators_of(record)[estimator].get(measure) for record in records]
    values = [value for value in found if value is not None]
    if not values:
        return None
    return Estimate(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))
