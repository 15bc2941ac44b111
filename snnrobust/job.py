"""One run as plain data: what was asked for, where it lies, and whether it is there. Light; imports no torch.

    runs/<training signature>/            config.yaml overrides.yaml checkpoint.pt history.jsonl run.log
                                          weights.sparse.safetensors   (where connections are absent)
                                          results.json outcomes.npz gradients.npz   (of the first evaluation)
    runs/<training signature>/<evaluation signature>/
                                          config.yaml overrides.yaml run.log results.json outcomes.npz gradients.npz

A failed run leaves `failure.json` with its traceback where its results would be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

from snnrobust.identity import evaluation_signature, training_signature

SCHEMA = 1
CONFIG, CHECKPOINT, HISTORY = "config.yaml", "checkpoint.pt", "history.jsonl"
SPARSE_WEIGHTS = "weights.sparse.safetensors"
RESULTS, OUTCOMES, GRADIENTS, FAILURE = "results.json", "outcomes.npz", "gradients.npz", "failure.json"
SEARCH = "search.json"
JOURNAL = "evaluation.jsonl"
"""Finished batches of an evaluation under way; gone once its results are there."""


STATE = "training.pt"
"""Where a training stands after its last whole epoch, until it is over."""
TRAINING_LOCK, EVALUATION_LOCK = ".lock", ".evaluation.lock"


class RunFailed(Exception):
    """A run that ended with an error, which is recorded in its directory: one line."""


@dataclass(frozen=True)
class Job:
    """What was asked for.

    Args:
        config: resolved, plain containers.
        choices: the choice made in every config group.
        overrides: of the command line, enough to repeat the run.
        kind: `train` trains where there is no checkpoint yet; `evaluate` needs one.
        checkpoint: of an evaluation.
        group: the sweep it belongs to.
    """

    config: Mapping[str, Any]
    choices: Mapping[str, str]
    overrides: tuple[str, ...]
    kind: Literal["train", "evaluate"]
    checkpoint: Path | None = None
    group: str | None = None

    @cached_property
    def training(self) -> str:
        return training_signature(self.config)

    @cached_property
    def evaluation(self) -> str:
        return evaluation_signature(self.config)

    @property
    def home(self) -> Path:
        """The run directory: that of the checkpoint, or `runs/<training signature>`."""
        return self.checkpoint.parent if self.checkpoint else Path(self.config["runs"]) / self.training

    @property
    def trains(self) -> bool:
        """Whether its weights have to be made first."""
        return self.kind == "train" and (self.config["force"] or not (self.home / CHECKPOINT).exists())

    @property
    def folder(self) -> Path:
        """Where the results go: the run directory for its first evaluation, a folder inside it for others.

        Which was first is what `config.yaml` says, since it is written before anything else.
        """
        return self.home / self.evaluation if _owner(self.home) not in (None, self.evaluation) else self.home


def _owner(home: Path) -> str | None:
    """Signature of the evaluation whose results belong directly into a run directory; None if there is none yet.

    A config that is damaged counts as absent: the run that is done next writes it again.
    """
    results = read_json(home / RESULTS)
    if results is not None:  # the same, and much faster to read
        return results.get("evaluation_signature")
    try:
        config = yaml.safe_load((home / CONFIG).read_text(encoding="utf-8"))
        return evaluation_signature(config)
    except FileNotFoundError:
        return None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError):
        return None
    except OSError:
        return "unreadable"


def read_json(path: Path) -> dict[str, Any] | None:
    """A record; None if there is none, or none that can be read (it is then made again)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("schema") == SCHEMA else None


def results_of(job: Job) -> dict[str, Any] | None:
    """The results of exactly this job, if they are there."""
    results = read_json(job.folder / RESULTS)
    return results if results and results.get("evaluation_signature") == job.evaluation else None


def failure_content(job: Job, line: str, trace: str = "", **more: Any) -> dict[str, Any]:
    """The content of `failure.json`.

    Args:
        job: that failed.
        line: why.
        trace: the traceback, if there is one.
        more: what else is known of the error.
    """
    return {
        "schema": SCHEMA,
        "error": line,
        "traceback": trace,
        "overrides": list(job.overrides),
        "training_signature": job.training,
        "evaluation_signature": job.evaluation,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        **more,
    }


def failure_of(job: Job) -> str | None:
    """Why a job that was run has no good results, in one line; None if it has."""
    failure = read_json(job.folder / FAILURE)
    if failure is not None and failure.get("evaluation_signature") == job.evaluation:
        return f"{job.folder}: {failure['error']}"
    return None if results_of(job) else f"{job.folder}: no results; the run was killed, see run.log there"
