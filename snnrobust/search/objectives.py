"""What a search may choose by: measures on validation data, and of the weights themselves."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from snnrobust.schema import ConfigError


@dataclass(frozen=True)
class Measure:
    """One that a run records.

    Args:
        larger_is_better: or smaller.
        of_validation: taken after every epoch of a training.
    """

    larger_is_better: bool
    of_validation: bool


MEASURES = {
    "validation_accuracy": Measure(True, True),
    "validation_robust_accuracy": Measure(True, True),
    "validation_loss": Measure(False, True),
    "sparsity": Measure(True, False),
    "stored_weights": Measure(False, False),
    "stored_bytes": Measure(False, False),
}


class Missing(Exception):
    """A run whose results lack an objective: one line."""


def refuse_objectives(names: Sequence[str]) -> None:
    """Raises `ConfigError` for names that are no measures, or are those of the test."""
    allowed = ", ".join(MEASURES)
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"search.objectives: got {list(names)}; allowed: one or more, each once, of {allowed}")
    for name in names:
        if name in MEASURES:
            continue
        why = ", which is measured on test data: what chooses must not be what judges" if _of_test(name) else ""
        raise ConfigError(f"search.objectives: got {name}{why}; allowed: {allowed}")


def _of_test(name: str) -> bool:
    """True for the names of what `results.json` says of test data."""
    others = {"firing_rate", "spikes", "synaptic_operations", "energy_ratio", "energy_nanojoule"}
    return name in others or name.endswith("_accuracy") or name.startswith("gradient_")


def refuse_unmeasured(names: Sequence[str], config: Mapping[str, Any]) -> None:
    """Raises `ConfigError` if runs of this config will not measure an objective."""
    validation = config["training"].get("validation")
    for name in names:
        if MEASURES[name].of_validation and validation is None:
            raise ConfigError(
                f"search.objectives: got {name}, but training=none validates nothing; allowed: a training"
            )
        if name == "validation_robust_accuracy" and validation["attack"] is None:
            raise ConfigError(
                f"search.objectives: got {name}, but no validation is under attack; allowed: training/validation=robust"
            )


def means(names: Sequence[str], results: Sequence[Mapping[str, Any]]) -> list[float]:
    """Each objective, as its mean over the runs of a trial.

    Raises:
        Missing: if a run has none, or it is no number.
    """
    return [statistics.fmean(_value(name, run) for run in results) for name in names]


def _value(name: str, results: Mapping[str, Any]) -> float:
    value = results["metrics"].get(name)
    if value is None:
        raise Missing(f"results.json of training {results['training_signature']} has no number for {name}")
    return float(value)
