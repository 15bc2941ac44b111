"""Which runs are the same but for the seed, and what tells the others apart."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from snnrobust.identity import NOT_CONTENT
from snnrobust.reporting.records import Record

NOT_SCIENCE = frozenset(
    {
        *("seed", "evaluation.seed", "device", "threads", "runs", "force"),
        *(f"dataset.{key}" for key in NOT_CONTENT["dataset"]),
        "weights.path",
        *(f"{run}.{key}" for run in ("start.source", "reference") for key in ("path", "training_signature")),
        *("evaluation.batch_size", "evaluation.fast", "evaluation.exhaustive"),  # outcomes do not depend on them
    }
)
"""Keys that tell runs apart, but not settings."""
NOT_SCIENCE_GROUPS = ("tracker", "attack@attacks.", "experiment")

HASH = re.compile("[0-9a-f]{64}")
"""Of a file with weights; eight digits tell it."""

Label = tuple[str, Any]
"""A dotted key and its value."""


@dataclass(frozen=True)
class Estimate:
    """Mean and sample standard deviation over n runs; the deviation is None for a single one."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seeds alone.

    Args:
        labels: the keys that vary among the settings of a report, with the values of this one.
        records: its runs, ordered by seed.
    """

    labels: tuple[Label, ...]
    records: tuple[Record, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(record.seed for record in self.records)

    def values(self, metric: str) -> list[float]:
        return [record.metrics[metric] for record in self.records if metric in record.metrics]

    def pairs(self, one: str, other: str) -> list[tuple[float, float]]:
        """Both metrics of every run that has both."""
        metrics = [record.metrics for record in self.records]
        return [(m[one], m[other]) for m in metrics if one in m and other in m]

    def estimate(self, metric: str) -> Estimate | None:
        """None if no run has the metric: a missing value is never filled in."""
        values = [value for value in self.values(metric) if math.isfinite(value)]
        if not values:
            return None
        std = statistics.stdev(values) if len(values) > 1 else None
        return Estimate(statistics.fmean(values), std, len(values))

    @property
    def flagged(self) -> bool:
        return any(record.flags for record in self.records)

    def label(self, key: str) -> Any:
        return self._labels.get(key)

    @cached_property
    def _labels(self) -> dict[str, Any]:
        return dict(self.labels)


def settings_of(records: Sequence[Record]) -> tuple[Setting, ...]:
    """Groups records by everything but the seed, labels the groups, and sorts them by their labels."""
    shared = frozenset.intersection(*(frozenset(record.config["attacks"]) for record in records))
    contents: dict[str, dict[str, Any]] = {}
    groups: dict[str, list[Record]] = {}
    for record in records:
        content = science(record, shared)
        group = json.dumps(content, sort_keys=True)
        contents[group] = content
        groups.setdefault(group, []).append(record)
    keys = varying([*contents.values()])
    settings = []
    for group, content in contents.items():
        members = joined(groups[group])
        members.sort(key=lambda record: (record.seed, record.identity))
        labels = tuple((key, content[key]) for key in keys if key in content)
        settings.append(Setting(labels, tuple(members)))
    return tuple(sorted(settings, key=lambda setting: [_order(value) for _, value in setting.labels]))


def joined(records: Sequence[Record]) -> list[Record]:
    """One record per trained model: evaluations of it that differ in additional attacks alone share a row.

    Each attack has a column of its own. Where two evaluations have the same metric (the worst case, say), that of the
    evaluation with more attacks counts.
    """
    models: dict[str, list[Record]] = {}
    for record in records:
        models.setdefault(record.identity[0], []).append(record)
    merged = []
    for members in models.values():
        members.sort(key=lambda record: (len(record.config["attacks"]), record.finished))
        metrics = {name: value for record in members for name, value in record.content["metrics"].items()}
        flags = [flag for record in members for flag in record.content.get("flags", ())]
        merged.append(Record(members[-1].path, {**members[-1].content, "metrics": metrics, "flags": flags}))
    return merged


def science(record: Record, attacks: frozenset[str]) -> dict[str, Any]:
    """All that defines a setting, flat: dotted config keys, and the choice made in each group under its name.

    Of the attacks only those named: an attack that not all runs have tells nothing apart, it adds a column.
    """
    flat: dict[str, Any] = {}
    chosen_attacks = {name: node for name, node in record.config["attacks"].items() if name in attacks}
    _flatten("", {**record.config, "attacks": chosen_attacks}, flat)
    chosen = {k: v for k, v in record.choices.items() if not k.startswith(NOT_SCIENCE_GROUPS)}
    kept = {k: v for k, v in flat.items() if k not in NOT_SCIENCE and not k.startswith(("tracker.", "suite."))}
    return {k: v for k, v in kept.items() if not k.endswith(".seed")} | chosen  # attacks and defences repeat the seed


def _flatten(prefix: str, node: Any, flat: dict[str, Any]) -> None:
    if isinstance(node, Mapping):
        for key, value in node.items():
            _flatten(f"{prefix}.{key}" if prefix else str(key), value, flat)
    else:
        flat[prefix] = json.dumps(node) if isinstance(node, list) else node


def varying(contents: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every key that varies among the settings, but for those that say the same twice.

    Left out are: the inner keys of a group, and the choices inside it, as far as its choice explains them (each choice
    has one value); a key with the same values as another one, of which it is a copy (`dataset.steps` is
    `encoder.steps`); and what the keys already taken explain of an attack (its own copy of the budget), of a group
    inside another, of a `_target_`, or of the family of a run that is referred to (its lineage).
    """
    keys = dict.fromkeys(key for content in contents for key in content)
    values = {key: [json.dumps(content.get(key)) for content in contents] for key in keys}
    taken: dict[str, list[str]] = {}
    for key in sorted((k for k in keys if len(set(values[k])) > 1), key=_preference):
        derived = key.startswith("attacks.") or key.endswith(("_target_", ".family")) or "/" in key
        derived |= key == "estimator"
        explaining = [*taken.values()] if derived else [values[group] for group in _groups(key, keys)]
        if values[key] not in taken.values() and not _explains(explaining, values[key]):
            taken[key] = values[key]
    return list(taken)


def _groups(key: str, keys: Iterable[str]) -> list[str]:
    """The choices among the keys that a key may lie below.

    Of `training.validation.attack.steps` these are `training`, `training/validation` and
    `attack@training.validation.attack`.
    """
    place = key.rpartition("@")[2]
    return [k for k in keys if place.startswith(k.rpartition("@")[2].replace("/", ".") + ".")]


def _explains(columns: Sequence[Sequence[str]], column: Sequence[str]) -> bool:
    """True if rows that agree in all `columns` agree in `column`; no columns explain nothing."""
    rows = list(zip(*columns, strict=True))
    return len(set(rows)) == len(set(zip(*columns, column, strict=True))) if columns else False


def _preference(key: str) -> tuple[int, str]:
    """The suite, then choices, values, copies in the attacks, targets."""
    if key == "suite":
        return -1, key
    if "." not in key:
        return 0, key
    if key.endswith("_target_"):
        return 4, key
    if key == "threat.eps":
        return 2, key
    # The encoder's steps before the copy that an event dataset has of them.
    return (3 if key.startswith("attacks.") else 1), key.replace("dataset.", "zz")


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers by size, before words by alphabet."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0, float(value), ""
    return 1, 0.0, str(value)


def short(key: str) -> str:
    """`regularizer.weight` reads `weight`; a choice reads as its group."""
    return key.rpartition(".")[2] if not key.startswith("attacks.") else key.removeprefix("attacks.")


def show(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text[:8] if HASH.fullmatch(text) else text
