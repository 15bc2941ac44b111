"""The table of gradient measures under every estimator."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from snnrobust.reporting.examples import training_of
from snnrobust.reporting.records import Record
from snnrobust.reporting.settings import Estimate, Setting
from snnrobust.reporting.tables import cell

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


def estimator_table(settings: Sequence[Setting]) -> EstimatorTable:
    """A row for each training configuration under each estimator; no rows if no run has measured them."""
    return EstimatorTable(("training", "estimator", "n", *MEASURES.values()), tuple(_rows(settings)))


def _rows(settings: Sequence[Setting]) -> Iterator[tuple[str, ...]]:
    seen: set[tuple[str, str]] = set()
    for setting in settings:
        records = [record for record in setting.records if record.content.get("estimators")]
        for name in dict.fromkeys(name for record in records for name in record.content["estimators"]):
            # Budgets do not change a gradient.
            identity = records[0].identity[0], name
            if identity not in seen:
                seen.add(identity)
                members = [record for record in records if name in record.content["estimators"]]
                values = [cell(m, _estimate(members, name, m), len(members)) for m in MEASURES]
                yield training_of(setting), name, str(len(members)), *values


def _estimate(records: Sequence[Record], estimator: str, measure: str) -> Estimate | None:
    found = [record.content["estimators"][estimator].get(measure) for record in records]
    values = [value for value in found if value is not None]
    if not values:
        return None
    return Estimate(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))
