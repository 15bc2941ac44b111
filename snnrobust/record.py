"""What is written about a run: the content of `results.json`, of `outcomes.npz`, and what trackers are shown."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from snnrobust import environment
from snnrobust.data.dataset import Splits
from snnrobust.evaluation.checks import flags_of
from snnrobust.evaluation.report import ROBUST, Report, share
from snnrobust.evaluation.selection import Selection
from snnrobust.experiment import Experiment
from snnrobust.job import SCHEMA, Job
from snnrobust.training.checkpoint import Checkpoint
from snnrobust.training.loop import Epoch


def curves(epoch: Epoch) -> dict[str, float]:
    """One flat row per epoch, under the names that trackers show."""
    rows = {"train": vars(epoch.train), "validation": vars(epoch.validation)}
    flat = {f"{split}/{name}": value for split, scores in rows.items() for name, value in scores.items()}
    return {"epoch": epoch.epoch, "lr": epoch.lr, **flat}


def results_content(
    experiment: Experiment, job: Job, checkpoint: Checkpoint, splits: Splits, report: Report, seconds: dict[str, float]
) -> dict[str, Any]:
    """The content of `results.json`; `seconds` are those of the phases before the evaluation."""
    return {
        "schema": SCHEMA,
        "kind": job.kind,
        "training_signature": checkpoint.signature,
        "evaluation_signature": job.evaluation,
        "metrics": report.metrics() | checkpoint.metrics,
        "layers": {measure: dict(values) for measure, values in report.layers.items()},
        "checks": {"largest_excess_over_budget": dict(report.excess)},
        "selection": selection_content(report.selection),
        "flags": [vars(flag) for flag in flags_of(report)],
        "worst_case_over": list(report.inside),
        "best_epoch": checkpoint.epoch,
        "samples": {name: len(getattr(splits, name)) for name in ("train", "validation", "test")},
        "seeds": {"training": experiment.seed, "evaluation": experiment.evaluation.seed},
        "durations": seconds | dict(report.seconds),
        **provenance(experiment, job),
        "training": checkpoint.provenance,
        "choices": dict(job.choices),
        "overrides": list(job.overrides),
        "config": plain(job.config),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def selection_content(selection: Selection | None) -> dict[str, Any] | None:
    """Which estimators were chosen on validation data, and what each candidate left of it."""
    if selection is None:
        return None
    return {
        "chosen": list(selection.estimator.members()),
        "validation_accuracy": {name: share(column == ROBUST) for name, column in selection.outcomes.items()},
        "samples": len(next(iter(selection.outcomes.values()))),
        "left_out": list(selection.left_out),
    }


def provenance(experiment: Experiment, job: Job) -> dict[str, Any]:
    """With what something was made; that of the weights may differ from that of their evaluation."""
    return {
        "versions": environment.versions(),
        "git": environment.commit(),
        "hardware": environment.hardware(str(experiment.device), job.config["threads"]),
    }


def outcomes(report: Report) -> bytes:
    """One int8 array `[N]` per attack, and `attack/estimator` where there were several: 1 correct, 0 misclassified,
    -1 left alone since broken before. `NAME:majority` is by majority over draws. `numpy.load` reads it; no pickle."""
    content = io.BytesIO()
    arrays: dict[str, Any] = {name: column.numpy() for name, column in report.outcomes.items()}
    arrays |= {f"{name}:majority": column.numpy() for name, column in report.majority.items()}
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def summary(results: Mapping[str, Any]) -> dict[str, Any]:
    """The final measures under fixed names, `test/<metric>`."""
    metrics = results["metrics"]
    held_out = {f"test/{k}": v for k, v in metrics.items() if not k.startswith("validation")}
    chosen = {k.replace("_", "/", 1): v for k, v in metrics.items() if k.startswith("validation")}
    layers = {f"test/{m}/{k}": v for m, values in results["layers"].items() for k, v in values.items()}
    return held_out | {f"best/{k}": v for k, v in chosen.items()} | layers


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Containers that YAML and JSON know."""
    content: dict[str, Any] = json.loads(json.dumps(config))
    return content
