"""Checks a composed config, whole, before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from snnrobust.schema import ConfigError, check_node, unknown
from snnrobust.trainable import misfits

LAYERS = (
    *("data", "spiking", "estimators", "models", "regularizers"),
    *("attacks", "training", "conversion", "threat", "flips", "tracking", "launchers"),
)
TRUSTED = frozenset({*(f"snnrobust.{layer}" for layer in LAYERS), "torch.nn", "torch.optim"})
"""Where a config may find a `_target_`; other packages have to be named on the command line.

Not all of snnrobust and torch: a config that came with someone's run must not reach functions that write or load files.
"""
TAKEN = frozenset({"clean", "worst", "validation", "file", "allow_pickle"})
"""No names for attacks: they would overwrite other records."""

NODES = (
    *("dataset", "encoder", "neuron", "model", "regularizer", "defence"),
    *("threat", "estimator", "training", "tracker"),
)
OPTIONAL_NODES = ("start", "connectivity", "launcher")
"""Those that a config may lack; a launcher is of a command, not of its runs."""
FOREIGN_NODES = ("dataset", "model", "threat", "estimator", "tracker")
SAVED_NODES = ("dataset", "encoder", "neuron", "model")
"""What a saved classifier is built from."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Count = Annotated[int, Ge(1)]
Seed = Annotated[int, Ge(0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Suite(_Strict):
    """Which attacks a run is judged by is in `attacks`; which of them give the headline metrics, here."""

    name: str
    headline: dict[Name, str]
    cascade: bool


class Evaluation(_Strict):
    batch_size: Count
    seed: Seed
    draws: Count
    exhaustive: bool
    fast: bool
    precision: Literal["float32", "bfloat16"]


class _Judged(_Strict):
    """What every evaluation needs: scalars by type, groups as mappings that are checked against their targets."""

    dataset: dict[str, Any]
    model: dict[str, Any]
    threat: dict[str, Any]
    estimator: dict[str, Any]
    tracker: dict[str, Any]
    suite: Suite
    attacks: dict[Name, dict[str, Any]]
    evaluation: Evaluation
    seed: Seed
    device: Annotated[str, StringConstraints(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
    threads: Count
    runs: str
    force: bool
    launcher: dict[str, Any] | None = None


class Root(_Judged):
    """The top level of a run that trains, or attacks what it has trained."""

    encoder: dict[str, Any]
    neuron: dict[str, Any]
    regularizer: dict[str, Any]
    defence: dict[str, Any]
    training: dict[str, Any]
    start: dict[str, Any] | None = None
    connectivity: dict[str, Any] | None = None
    reference: dict[str, Any] | None


class Weights(_Strict):
    """Of a model made elsewhere; both None if it loads them itself."""

    path: str | None
    sha256: str | None


class Foreign(_Judged):
    """The top level of an evaluation of a model made elsewhere; `encoder` is there for event data alone."""

    weights: Weights
    stochastic: bool
    encoder: dict[str, Any] | None = None


def check(config: Mapping[str, Any], trusted: frozenset[str] = TRUSTED) -> None:
    """Passes silently, or names every mistake.

    Args:
        config: resolved, plain containers.
        trusted: packages whose names are allowed as `_target_`.

    Raises:
        ConfigError: with one line per mistake.
    """
    foreign = "weights" in config
    mistakes = [*_structure(config, Foreign if foreign else Root)]
    if not mistakes:
        mistakes = [*_targets("", config, trusted)]
    if not mistakes:
        nodes = (*(FOREIGN_NODES if foreign else NODES), *OPTIONAL_NODES)
        mistakes = [mistake for key in nodes for mistake in check_node(key, config.get(key))]
    if not mistakes:  # attacks repeat values of the nodes above, such as the threat: one mistake, one line
        mistakes = [m for name, node in config["attacks"].items() for m in check_node(f"attacks.{name}", node)]
    if not mistakes:
        mistakes = [*_together(config), *(() if foreign else misfits(config))]
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def check_saved(config: Mapping[str, Any]) -> None:
    """Passes silently if what a saved classifier is built from is in order, whoever wrote the config.

    Raises:
        ConfigError: with one line per mistake.
    """
    mistakes = [mistake for key in SAVED_NODES for mistake in _targets(key, config[key], TRUSTED)]
    if not mistakes:
        mistakes = [mistake for key in SAVED_NODES for mistake in check_node(key, config[key])]
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def _structure(config: Mapping[str, Any], root: type[_Judged]) -> Iterator[str]:
    try:
        root.model_validate(dict(config))
    except ValidationError as error:
        wrong = {detail["loc"] for detail in error.errors()}
        for detail in error.errors():
            if detail["loc"] == ("evaluation", "seed") and ("seed",) in wrong:
                continue  # it repeats the seed
            path = ".".join(map(str, detail["loc"]))
            if detail["type"] == "extra_forbidden":
                sections: dict[str, type[_Strict]] = {"suite": Suite, "evaluation": Evaluation}
                inside = sections.get(str(detail["loc"][0]), root)
                yield unknown(path, str(detail["loc"][-1]), [*inside.model_fields])
            elif detail["type"] == "missing":
                yield f"{path}: missing; it has no default"
            elif path == "device":
                yield f"device: got {detail['input']!r}; allowed: auto, cpu, cuda, cuda:N"
            else:
                yield f"{path}: got {detail['input']!r}; allowed: {detail['msg'].removeprefix('Input should be ')}"


def _targets(key: str, node: Any, trusted: frozenset[str]) -> Iterator[str]:
    """Targets in packages that nobody named; importing them could run anything."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _targets(f"{key}.{name}" if key else str(name), value, trusted)
        target = node.get("_target_")
        if target is not None and not any(str(target).startswith(f"{place}.") for place in trusted):
            yield (
                f"{key}._target_: got {target!r}; allowed: {', '.join(sorted(trusted))}, "
                f"and packages that the command line names ({key}._target_=...)"
            )
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _targets(f"{key}[{i}]", value, trusted)


def _together(config: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong only in combination."""
    dataset, attacks = config["dataset"], config["attacks"]
    held_out = dataset.get("validation", 0) + dataset.get("test", 0)
    if held_out > 0.98:
        yield f"dataset.validation + dataset.test: got {held_out:g}; allowed: at most 0.98, the rest is for training"
    if dataset.get("slices") == "count" and dataset.get("window_us") is not None:
        yield f"dataset.window_us: got {dataset['window_us']}; allowed: null, or any with dataset.slices=time"
    for metric, attack in config["suite"]["headline"].items():
        if attack not in attacks:
            yield f"suite.headline.{metric}: got {attack!r}; allowed: {', '.join(attacks) or 'no attack is configured'}"
            continue
        clash = metric.removesuffix("_accuracy")
        if not metric.endswith("_accuracy") or clash in TAKEN or (clash in attacks and clash != attack):
            yield f"suite.headline.{metric}: the name is taken; allowed: names ending in _accuracy that no attack has"
    flips = ", ".join(name for name, node in attacks.items() if _flips(node.get("threat")))
    if flips and dataset.get("max_count") != 1:
        yield (
            f"attacks ({flips}): flips are of events in binary frames; allowed with dataset=digits_events_binary, or "
            "dataset.max_count=1"
        )
    for name, node in attacks.items():
        if name in TAKEN:
            yield f"attacks.{name}: the name is taken; choose another"
        if "_target_" not in node:
            yield f"attacks.{name}: got {dict(node)!r}; allowed: a choice of the group attack (names hold no dots)"


def _flips(threat: Any) -> bool:
    return isinstance(threat, Mapping) and str(threat.get("_target_", "")).endswith(".Flips")
