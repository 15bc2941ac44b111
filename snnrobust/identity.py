"""A run is its content: signatures of the resolved config, from which folders and table cells follow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

TRAINING_KEYS = ("dataset", "encoder", "neuron", "model", "regularizer", "defence", "training", "seed")
"""What weights depend on."""
OPTIONAL_KEYS = ("start", "connectivity")
"""The same, of runs that begin with other weights than random ones, or whose connections do not all train."""
FOREIGN_KEYS = ("dataset", "model", "weights", "stochastic")
"""What stands for them where the weights were made elsewhere: such a config has the key `weights`."""
EVALUATION_KEYS = ("threat", "estimator", "attacks", "suite", "evaluation", "reference")
"""What outcomes depend on beyond the weights. What is absent or null does not count."""
PLACES = ("root", "download", "cache", "workers")
"""Settings of a dataset that say where things lie and how they come there, which an evaluation may change."""
REFERRING = ("path", "family", "lineage")
"""What a config says of a run that it refers to, beside its training signature."""
NOT_CONTENT = {"dataset": (*PLACES, "eps"), "suite": ("name",), "weights": ("path",)}
"""Where things lie, or names and defaults of values that count elsewhere."""
OF_MEMORY = ("auto_batch",)
"""Settings, wherever they stand, by which a run that fits into memory is the same run."""


def training_signature(config: Mapping[str, Any]) -> str:
    """10 hex digits of a SHA-256 over everything that the weights depend on. A changed default is a different run."""
    keys = FOREIGN_KEYS if "weights" in config else (*TRAINING_KEYS, *OPTIONAL_KEYS)
    return _signature(_present(config, keys))


def family_signature(config: Mapping[str, Any]) -> str:
    """The training signature without seeds, its own and those of the runs that it begins with: equal for runs that
    differ in nothing else."""
    own = {key: value for key, value in config.items() if key != "seed"}
    start = own.get("start") or {}
    if isinstance(start.get("source"), Mapping):
        own["start"] = {**start, "source": {"family": start["source"].get("family")}}
    return _signature(_present(_seedless(own), (*TRAINING_KEYS, *OPTIONAL_KEYS)))


def _seedless(value: Any) -> Any:
    """Nodes repeat the seed of their run."""
    if isinstance(value, Mapping):
        return {k: _seedless(v) for k, v in value.items() if k != "seed"}
    return value


def evaluation_signature(config: Mapping[str, Any]) -> str:
    """10 hex digits of a SHA-256 over the training signature and everything that the outcomes depend on."""
    content = _present(config, EVALUATION_KEYS)
    return _signature({"training_signature": training_signature(config), **content})


def _present(config: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: _content(key, config[key]) for key in keys if config.get(key) is not None}


def _content(key: str, value: Any) -> Any:
    left_out = NOT_CONTENT.get(key, ())
    return {k: v for k, v in value.items() if k not in left_out} if isinstance(value, Mapping) else value


def _signature(content: Mapping[str, Any]) -> str:
    return digest(_canonical(content))


def digest(content: Any) -> str:
    """10 hex digits of a SHA-256 over plain containers."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _canonical(value: Any) -> Any:
    """Equal numbers look equal: `weight=0` and `weight=0.0` are one run."""
    if isinstance(value, Mapping):
        # A run that is referred to is its training, wherever it lies.
        left_out = (*OF_MEMORY, *(REFERRING if "training_signature" in value else ()))
        return {str(k): _canonical(v) for k, v in value.items() if k not in left_out}
    if isinstance(value, list | tuple):
        return [_canonical(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
