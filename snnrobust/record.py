"""What is written about a run: `results.json`, `outcomes.npz`, `gradients.npz`, and what trackers are shown."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from snnrobust import environment
from snnrobust.data.dataset import Splits
from snnrobust.evaluation.checks import Checks, checks_of
from snnrobust.evaluation.examples import Examples
from snnrobust.evaluation.outcomes import ROBUST
from snnrobust.evaluation.report import Report
from snnrobust.evaluation.selection import Selection
from snnrobust.experiment import Experiment
from snnrobust.foreign_experiment import ForeignExperiment
from snnrobust.job import SCHEMA, Job
from snnrobust.training.checkpoint import Checkpoint
from snnrobust.training.scores import Epoch


def curves(epoch: Epoch) -> dict[str, float]:
    """One flat row per epoch, under the names that trackers show."""
    rows = {"train": vars(epoch.train), "validation": vars(epoch.validation)}
    flat = {f"{split}/{name}": value for split, scores in rows.items() for name, value in scores.items()}
    if epoch.robust_accuracy is not None:
        flat["validation/robust_accuracy"] = epoch.robust_accuracy
    return {"epoch": epoch.epoch, "lr": epoch.lr, **flat}


def kept_metrics(epoch: Epoch) -> dict[str, float]:
    """Of the epoch that was kept, as they stand beside the metrics of the test."""
    metrics = {"validation_accuracy": epoch.validation.accuracy, "validation_loss": epoch.validation.loss}
    if epoch.robust_accuracy is not None:
        metrics["validation_robust_accuracy"] = epoch.robust_accuracy
    return metrics


def results_content(
    experiment: Experiment | ForeignExperiment,
    job: Job,
    checkpoint: Checkpoint,
    splits: Splits,
    report: Report,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The content of `results.json`; `seconds` are those of the phases before the evaluation."""
    checks = checks_of(report)
    return {
        "schema": SCHEMA,
        "kind": job.kind,
        "training_signature": checkpoint.signature,
        "evaluation_signature": job.evaluation,
        "metrics": report.metrics() | checkpoint.metrics,
        "estimators": {name: dict(values) for name, values in report.estimators.items()},
        "layers": {measure: dict(values) for measure, values in by_layer(report).items()},
        "costs": report.costs.content() if report.costs else None,
        "checks": checks_content(report, checks),
        "selection": selection_content(report.selection),
        "flags": [vars(flag) | {"anchor": flag.anchor} for flag in checks.flags],
        "worst_case_over": list(report.inside),
        "best_epoch": checkpoint.epoch,
        "resumed_at": checkpoint.provenance.get("resumed_at", []),
        "samples": {name: len(getattr(splits, name)) for name in ("train", "validation", "test")},
        "split_digests": dict(splits.digests),
        "seeds": {"training": experiment.seed, "evaluation": experiment.evaluation.seed},
        "durations": seconds | dict(report.seconds),
        **provenance(experiment, job),
        "training": checkpoint.provenance,
        "choices": dict(job.choices),
        "overrides": list(job.overrides),
        "config": plain(job.config),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def by_layer(report: Report) -> dict[str, Mapping[str, float]]:
    """By measure: what passes through the spiking layers, and what they cost."""
    return {**report.layers, **(report.costs.layers() if report.costs else {})}


def checks_content(report: Report, checks: Checks) -> dict[str, Any]:
    """Numbers that should be 0 or close to it, and by flag what could not be looked at."""
    half = report.probes.half_range
    return {
        "largest_excess_over_budget": dict(report.excess),
        "half_range_accuracy": half.accuracy if half else None,
        "changed_logits": report.probes.changed,
        "not_determined": {name: list(what) for name, what in checks.not_determined.items()},
    }


def selection_content(selection: Selection | None) -> dict[str, Any] | None:
    """Which estimators were chosen on validation data, and what each candidate left of it."""
    if selection is None:
        return None
    return {
        "chosen": list(selection.estimator.members()),
        "validation_robust": {name: int((column == ROBUST).sum()) for name, column in selection.outcomes.items()},
        "samples": len(next(iter(selection.outcomes.values()))),
        "left_out": list(selection.left_out),
    }


def provenance(experiment: Experiment | ForeignExperiment, job: Job) -> dict[str, Any]:
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


def gradients(examples: Examples) -> bytes:
    """Arrays of a few samples and their input gradients, see `Examples.arrays`. `numpy.load` reads it; no pickle."""
    content = io.BytesIO()
    arrays: dict[str, Any] = examples.arrays()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def summary(results: Mapping[str, Any]) -> dict[str, Any]:
    """The final measures under fixed names, `test/<metric>`."""
    metrics = results["metrics"]
    held_out = {f"test/{k}": v for k, v in metrics.items() if not k.startswith("validation")}
    chosen = {k.replace("_", "/", 1): v for k, v in metrics.items() if k.startswith("validation")}
    # The first estimator's measures are among the metrics.
    others = list(results["estimators"].items())[1:]
    gradients = {f"test/{measure}/{name}": v for name, values in others for measure, v in values.items()}
    layers = {f"test/{m}/{k}": v for m, values in results["layers"].items() if "/" not in m for k, v in values.items()}
    flags = {f"flags/{flag['name']}": flag["value"] for flag in results["flags"]}
    return held_out | {f"best/{k}": v for k, v in chosen.items()} | gradients | layers | flags | {"flags": len(flags)}


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Containers that YAML and JSON know."""
    content: dict[str, Any] = json.loads(json.dumps(config))
    return content
