"""What lies on disk of a model, and how configs refer to it. Light; imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from snnrobust.identity import TRAINING_KEYS, family_signature, training_signature
from snnrobust.job import CHECKPOINT, CONFIG
from snnrobust.schema import ConfigError

TRANSFER = "snnrobust.attacks.transfer.Transfer"
"""The attack whose `source` is a run."""
IMPORTED = "snnrobust.training.imported.Imported"
"""The training of weights that came from elsewhere."""


def checkpoint_of(key: str, given: str | Path) -> Path:
    """The checkpoint of a run directory, or that file itself.

    Raises:
        ConfigError: if there is none; the message begins with `key`.
    """
    path = Path(given)
    path = path / CHECKPOINT if path.is_dir() else path
    if not path.is_file():
        raise ConfigError(f"{key}: got {given}; allowed: a run directory with {CHECKPOINT}, or that file")
    return path


def config_beside(key: str, checkpoint: Path) -> dict[str, Any]:
    """The config of the run that a checkpoint belongs to.

    Raises:
        ConfigError: if there is none.
    """
    path = checkpoint.parent / CONFIG
    config = read_yaml(key, path)
    if not isinstance(config, dict) or not config.keys() >= set(TRAINING_KEYS):
        raise ConfigError(f"{key}: {path} is not the config of a run")
    return config


def source_beside(checkpoint: Path) -> Mapping[str, str] | None:
    """The run that the weights of a checkpoint began with, as its config refers to it; None if there is none.

    Raises:
        ConfigError: if the config is absent or damaged.
    """
    config = read_yaml("checkpoint", checkpoint.parent / CONFIG)
    start = config.get("start") if isinstance(config, dict) else None
    return start.get("source") if isinstance(start, dict) else None


def read_yaml(key: str, path: Path) -> Any:
    """A file that belongs to a run.

    Raises:
        ConfigError: if it is absent or damaged.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{key}: {path} must lie beside it ({type(error).__name__})") from error


def refuse_imported(config: Mapping[str, Any]) -> None:
    """Passes silently unless a config is of weights that came from elsewhere, which nothing trains.

    Raises:
        ConfigError: in one line.
    """
    if config["training"]["_target_"] == IMPORTED:
        raise ConfigError(
            "training: got imported weights, which nothing trains; allowed: any other choice, or snnrobust evaluate "
            "checkpoint=RUN with what snnrobust import has made"
        )


def pinned(key: str, node: Any) -> Any:
    """The same config, in which `source: RUN` of a transferred attack says also which training that is.

    The signature of an evaluation counts what the source is, not where it lies.

    Raises:
        ConfigError: if there is no such run.
    """
    if not isinstance(node, Mapping):
        return node
    inside = {name: pinned(f"{key}.{name}", value) for name, value in node.items()}
    if node.get("_target_") != TRANSFER or isinstance(node.get("source"), Mapping):
        return inside
    return inside | {"source": pinned_run(f"{key}.source", node.get("source"))}


def pinned_run(key: str, given: Any) -> Any:
    """A run that a config refers to: where it lies, and which training it is; None stays None.

    Raises:
        ConfigError: if there is no such run.
    """
    if given is None or isinstance(given, Mapping):
        return given
    config = config_beside(key, checkpoint_of(key, str(given)))
    return reference_to(Path(str(given)), config)


def reference_to(path: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """How a config refers to a run: where it lies, its training, and what it shares with runs of other seeds."""
    return {
        "path": str(path),
        "training_signature": training_signature(config),
        "family": family_signature(config),
        "lineage": lineage(config),
    }


def lineage(config: Mapping[str, Any]) -> str:
    """How the weights of a run came about, the last step first: `converted hydra 0.9 relu`."""
    start = config.get("start")
    if start is None:
        return str(config["neuron"]["_target_"]).rpartition(".")[2].lower()
    made = str(start["_target_"]).split(".")[-2]
    words = [] if made == "weights" else [made]
    words += [f"{start['sparsity']:g}"] if "sparsity" in start else []
    words += [start["source"].get("lineage", "")] if "source" in start else []
    return " ".join(word for word in words if word)


def pinned_weights(checkpoint: Any) -> dict[str, str | None]:
    """Where the weights of a foreign model lie, and the digest of their file; of None, none.

    Raises:
        ConfigError: if there is no such file.
    """
    if checkpoint is None:
        return {"path": None, "sha256": None}
    path = Path(str(checkpoint))
    try:
        stat = path.stat()
        return {"path": str(path), "sha256": _digest(path, stat.st_mtime_ns, stat.st_size)}
    except OSError as error:
        raise ConfigError(
            f"checkpoint: got {path} ({error.strerror}); allowed: a file with the state dict of the model, or null "
            "for a model that loads its weights itself"
        ) from error


@lru_cache
def _digest(path: Path, changed: int, size: int) -> str:
    """SHA-256 of a file, read once as long as it does not change."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
