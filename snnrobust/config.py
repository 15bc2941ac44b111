"""From the command line to objects: composes configs with Hydra, says clearly what is wrong, and builds.

With `launch.py` the only file that imports Hydra; neither torch nor any other heavy package is imported here until
`build` is called.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from snnrobust.check import NODES, TRUSTED, check
from snnrobust.schema import ConfigError, unknown

if TYPE_CHECKING:
    from snnrobust.experiment import Experiment
    from snnrobust.tracking import Tracker

VERSION_BASE = "1.3"


@dataclass(frozen=True)
class Composed:
    """A resolved config as plain containers, and the choice made in every group."""

    config: Mapping[str, Any]
    choices: Mapping[str, str]


def folder() -> Path:
    """Where the yaml files are: inside an installed package, or at the top of a source tree."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "conf"


@cache
def groups() -> dict[str, list[str]]:
    """Config groups and their choices."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder().rglob("*.yaml")):
        group = path.parent.relative_to(folder()).as_posix()
        if group != ".":
            found.setdefault(group, []).append(path.stem)
    return found


def prepare() -> None:
    """Registers `${frac:8/255}` for yaml files; on the command line plain 8/255 will do."""
    OmegaConf.register_new_resolver("frac", lambda text: float(Fraction(str(text))), replace=True)


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The jobs of a sweep, in Hydra's order: the product of all values given with commas or sweep functions."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    return [list(job) for batch in BasicSweeper.split_arguments(parse(overrides), None) for job in batch]


def parse(overrides: Sequence[str]) -> list[Override]:
    """Parsed overrides.

    Raises:
        ConfigError: if one cannot be read.
    """
    parsed = []
    for text in overrides:
        try:
            parsed += OverridesParser.create().parse_overrides([text])
        except HydraException as error:
            detail = str(error.__cause__ or error).splitlines()[0]
            raise ConfigError(f"{text}: cannot be read ({detail}); allowed: key=value") from error
    return parsed


def compose(root: str, overrides: Sequence[str], places: frozenset[str] | None = None) -> Composed:
    """Composes `conf/<root>.yaml` with the overrides of one job and checks the result.

    Args:
        root: `config` or `evaluate`.
        overrides: of the job.
        places: where targets may come from; by default what the overrides name is trusted as well.

    Raises:
        ConfigError: with one line per mistake.
    """
    prepare()
    parsed = parse(overrides)
    for override in parsed:
        _check_choice(override)
    with initialize_config_dir(str(folder().resolve()), version_base=VERSION_BASE):
        chosen = _chosen(root, tuple(str(o.input_line) for o in parsed if _is_group(o)))
        for override in parsed:
            _check_key(override, chosen)
        composed = _compose(root, list(overrides))
    result = resolved(composed, composed.hydra.runtime.choices)
    check({k: v for k, v in result.config.items() if k != "checkpoint"}, places or trusted(overrides))
    return result


@cache
def _chosen(root: str, choices: tuple[str, ...]) -> DictConfig:
    """The config that choices alone give, which says what keys there are; the jobs of a sweep share it."""
    return _compose(root, list(choices))


def _compose(root: str, overrides: list[str]) -> DictConfig:
    try:
        return hydra_compose(root, overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_in_one_line(error)) from error


def resolved(composed: DictConfig, choices: Mapping[Any, Any]) -> Composed:
    """Plain containers without Hydra's own node, and the choices without Hydra's own groups.

    Raises:
        ConfigError: if a value is missing or an interpolation fails.
    """
    try:
        own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        content = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_in_one_line(error)) from error
    assert isinstance(content, dict)
    content = {key: value if key == "tracker" else _numbers(value) for key, value in content.items()}
    named = {str(k): str(v) for k, v in choices.items() if not str(k).startswith("hydra") and v is not None}
    return Composed({str(k): v for k, v in content.items()}, named)


FRACTION = re.compile(r"\d+(\.\d+)?/[1-9]\d*")
"""Budgets as papers write them: 8/255."""


def _numbers(value: Any) -> Any:
    """Fractions that arrive as text become numbers."""
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    return float(Fraction(value)) if isinstance(value, str) and FRACTION.fullmatch(value) else value


def trusted(overrides: Sequence[str]) -> frozenset[str]:
    """Where a `_target_` may come from: `TRUSTED`, and the packages that these overrides name as target."""
    named = {o.get_value_string() for o in parse(overrides) if (o.key_or_group or "").endswith("_target_")}
    return TRUSTED | {target.strip("'\"").partition(".")[0] for target in named}


def _is_group(override: Override) -> bool:
    return override.key_or_group in groups() or override.key_or_group.startswith("hydra/")


def _check_choice(override: Override) -> None:
    if override.key_or_group == "attack" and override.package is None:
        name = override.get_value_string()
        raise ConfigError(f"attack: attacks have names; allowed: +attack@attacks.{name}={name}")
    choices = groups().get(override.key_or_group)
    if override.is_sweep_override():
        raise ConfigError(f"{override.input_line}: several values need -m (--multirun), or brackets for a list")
    if choices is None or override.is_delete():
        return
    given = override.value()
    for choice in given if isinstance(given, list) else [given]:
        if str(choice) not in choices:
            raise ConfigError(f"{override.key_or_group}: got {choice!r}; allowed: {', '.join(choices)}")


def _check_key(override: Override, chosen: DictConfig) -> None:
    """Refuses keys that do not exist (Hydra does too, in four lines and without a suggestion)."""
    if _is_group(override) or override.is_add() or override.is_force_add() or override.is_delete():
        return
    node: Any = chosen
    done: list[str] = []
    for part in override.key_or_group.split("."):
        done.append(part)
        if isinstance(node, DictConfig):
            keys = [str(key) for key in node]  # `part in node` is False for keys that are still missing
            if part not in keys:
                allowed = [key for key in keys if key != "hydra" and not key.startswith("_")]
                raise ConfigError(unknown(".".join(done), part, allowed) + _hint(done))
            node = node._get_node(part)


def _hint(path: Sequence[str]) -> str:
    """How to add what is not there yet."""
    if path[0] == "attacks" and len(path) == 2:
        return f"; to add one: +attack@attacks.{path[1]}=CHOICE"
    return "; to add one: a leading +" if "parameters" in path else ""


def _in_one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next((line.partition("full_key:")[2].strip() for line in lines if line.startswith("full_key:")), "")
    said = [line for line in lines if not line.startswith(("full_key:", "object_type="))]
    text = " ".join(said)[:300] or type(error).__name__
    return f"{key}: {text}" if key else text


def build(config: Mapping[str, Any]) -> tuple[Experiment, Tracker]:
    """The objects that a checked config describes. Imports torch.

    Raises:
        ConfigError: if an object refuses its settings in combination.
    """
    import torch

    from snnrobust.evaluation.evaluator import Settings
    from snnrobust.experiment import Experiment, resolve_device

    torch.set_num_threads(config["threads"])
    try:
        parts = {key: instantiate(key, config[key]) for key in NODES}
        attacks = {name: instantiate(f"attacks.{name}", node) for name, node in config["attacks"].items()}
        device = resolve_device(config["device"])
    except ValueError as error:
        raise ConfigError(str(error)) from error
    tracker = parts.pop("tracker")
    experiment = Experiment(
        **parts,
        attacks=attacks,
        headline=dict(config["suite"]["headline"]),
        evaluation=Settings(**config["evaluation"], cascade=config["suite"]["cascade"]),
        seed=config["seed"],
        device=device,
    )
    return experiment, tracker


def instantiate(key: str, node: Mapping[str, Any]) -> Any:
    """One object from its node.

    Raises:
        ValueError: if it refuses its settings; the message begins with the key.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate as hydra_instantiate

    try:
        return hydra_instantiate(OmegaConf.create(dict(node)), _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError):
            text = str(cause)
            raise ValueError(text if text.startswith(key) else f"{key}.{text}") from error
        raise ValueError(f"{key}: {_in_one_line(error)}") from error


def replayed(earlier: Sequence[str], later: Sequence[str]) -> list[str]:
    """Overrides of an earlier command followed by those of a later one, which win key by key; none of Hydra's own."""
    keys = {o.get_key_element().lstrip("+~") for o in parse(later)}
    kept = [
        o.input_line
        for o in parse(earlier)
        if o.get_key_element().lstrip("+~") not in keys and not o.key_or_group.startswith("hydra")
    ]
    return [line for line in kept if line is not None] + list(later)


def touched(overrides: Sequence[str], keys: Sequence[str], free: Sequence[str]) -> Iterator[str]:
    """Overrides that set one of the top-level `keys`, apart from the dotted names in `free`."""
    for override in parse(overrides):
        name = override.key_or_group.partition("@")[0]
        if name.replace("/", ".").partition(".")[0] in keys and name not in free:
            yield str(override.input_line)
