"""Which settings of a report share their trained models: those that differ in their evaluation alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from snnrobust.identity import FOREIGN_KEYS, TRAINING_KEYS, training_signature
from snnrobust.reporting.records import Record
from snnrobust.reporting.settings import Setting, short, show

OF_EVALUATION = ("suite", "threat", "attacks", "estimator", "evaluation", "reference")
"""Labels that say nothing about a training."""


@dataclass(frozen=True)
class Training:
    """All evaluations of all models that were trained alike, but for the seed.

    Args:
        labels: what tells the training apart from others of the report, by key, as text.
        task: dataset and model.
        records: ordered by seed; several of a model where it was evaluated several times.
    """

    labels: Mapping[str, str]
    task: str
    records: tuple[Record, ...]

    @property
    def name(self) -> str:
        return ", ".join(self.labels.values()) or self.task

    def of_each_model(self, fits: Callable[[Record], bool]) -> list[Record]:
        """The first fitting evaluation of every model that has one."""
        found: dict[str, Record] = {}
        for record in self.records:
            if fits(record):
                found.setdefault(record.identity[0], record)
        return [*found.values()]


def trainings_of(settings: Sequence[Setting]) -> tuple[Training, ...]:
    """In the order of the settings."""
    groups: dict[str, list[Setting]] = {}
    for setting in settings:
        # Filled up, since a record may be of a version that knew fewer keys.
        config = {**dict.fromkeys((*TRAINING_KEYS, *FOREIGN_KEYS)), **setting.records[0].config, "seed": None}
        if "weights" not in setting.records[0].config:
            del config["weights"]
        groups.setdefault(training_signature(config), []).append(setting)
    return tuple(map(_training, groups.values()))


def _training(settings: Sequence[Setting]) -> Training:
    first = settings[0]
    groups = {key: key.partition(".")[0].partition("/")[0] for key, _ in first.labels}
    labels = {k: f"{short(k)} {show(v)}" for k, v in first.labels if groups[k] not in OF_EVALUATION}
    choices = first.records[0].choices
    records = sorted((record for setting in settings for record in setting.records), key=lambda record: record.seed)
    return Training(labels, f"{choices.get('dataset', '?')}, {choices.get('model', '?')}", tuple(records))
