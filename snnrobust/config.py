"""From the command line to a checked config: composes with Hydra, and says clearly what is wrong.

Hydra is imported here, in `overrides.py`, `building.py` and `launch.py` alone; torch is not.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from snnrobust.building import build as build
from snnrobust.building import in_one_line
from snnrobust.building import instantiate as instantiate
from snnrobust.check import check
from snnrobust.fitting import fit_attacks
from snnrobust.overrides import parse, trusted
from snnrobust.saved import pinned, pinned_run, pinned_weights
from snnrobust.schema import ConfigError, unknown
from snnrobust.yamls import folder, groups

VERSION_BASE = "1.3"


@dataclass(frozen=True)
class Composed:
    """A resolved config as plain containers.

    Args:
        config: of a run.
        choices: the choice made in every group.
        launcher: where the runs of the command take place; no part of any of them.
    """

    config: Mapping[str, Any]
    choices: Mapping[str, str]
    launcher: Mapping[str, Any] | None = None


def _times(*factors: object) -> float:
    """`${times:${threat.eps},0.31875}`; what is no number is left for the check to complain about."""
    try:
        return math.prod(float(Fraction(str(factor))) for factor in factors)
    except ValueError:
        return math.nan


def prepare() -> None:
    """Registers `${frac:8/255}` and `${times:...}` for yaml files; on the command line plain 8/255 will do."""
    OmegaConf.register_new_resolver("frac", lambda text: float(Fraction(str(text))), replace=True)
    OmegaConf.register_new_resolver("times", _times, replace=True)


def compose(root: str, overrides: Sequence[str], places: frozenset[str] | None = None) -> Composed:
    """Composes `conf/<root>.yaml` with the overrides of one job and checks the result.

    Args:
        root: `config`, `evaluate` or `foreign`.
        overrides: of the job.
        places: where targets may come from; by default what the overrides name is trusted as well.

    Raises:
        ConfigError: with one line per mistake.
    """
    composed = _checked(root, overrides)
    result = resolved(composed, composed.hydra.runtime.choices)
    known = {k: v for k, v in result.config.items() if k != "checkpoint"}
    check(known | ({"launcher": result.launcher} if result.launcher else {}), places or trusted(overrides))
    return result


def compose_plain(root: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Composes `conf/<root>.yaml`, whose content is no run; keys that do not exist are refused.

    Raises:
        ConfigError: with one line per mistake.
    """
    composed = _checked(root, overrides)
    own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    try:
        content = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(in_one_line(error)) from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def _checked(root: str, overrides: Sequence[str]) -> DictConfig:
    """Composes with overrides whose choices and keys exist.

    Raises:
        ConfigError: if one does not.
    """
    prepare()
    parsed = parse(overrides)
    for override in parsed:
        _check_choice(override)
    with initialize_config_dir(str(folder().resolve()), version_base=VERSION_BASE):
        choices = tuple(str(o.input_line) for o in parsed if _is_group(o))
        chosen = _chosen(root, choices)
        for override in parsed:
            _check_key(override, chosen)
        values = [override for override in parsed if not _is_group(override)]
        if all(_is_plain(override) for override in values):
            return _changed(_base(root, choices), values)
        return _compose(root, list(overrides))


@cache
def _base(root: str, choices: tuple[str, ...]) -> DictConfig:
    """The config that choices alone give; the jobs of a sweep share it, since composing takes most of their time."""
    return _compose(root, list(choices))


@cache
def _chosen(root: str, choices: tuple[str, ...]) -> DictConfig:
    """The same with attacks that fit, which says what keys there are."""
    composed = copy.deepcopy(_base(root, choices))
    fit_attacks(composed, composed.hydra.runtime.choices)
    return composed


def _changed(base: DictConfig, values: Sequence[Override]) -> DictConfig:
    """A copy with values put in, as Hydra does it."""
    composed = copy.deepcopy(base)
    for override in values:
        try:
            OmegaConf.update(composed, override.key_or_group, override.value(), merge=True)
        except (ConfigAttributeError, ConfigKeyError) as error:
            raise _unknown(composed, str(error.full_key)) from error
        except OmegaConfBaseException as error:
            raise ConfigError(in_one_line(error)) from error
    return composed


def _unknown(composed: DictConfig, key: str) -> ConfigError:
    """Of a key inside something that has none, or others."""
    around, _, last = key.rpartition(".")
    node = OmegaConf.select(composed, around)
    allowed = [str(own) for own in node if not str(own).startswith("_")] if isinstance(node, DictConfig) else []
    return ConfigError(unknown(key, last, allowed))


def _compose(root: str, overrides: list[str]) -> DictConfig:
    try:
        return hydra_compose(root, overrides, return_hydra_config=True)
    except YAMLError as error:
        raise ConfigError(f"no yaml: {' '.join(str(error).split())}") from error
    except (HydraException, OmegaConfBaseException) as error:
        text = in_one_line(error)
        other = re.match("In 'experiment/(.*)': Could not override", text)
        if other:
            verbs = "convert" if root != "convert" else "train"
            text = f"experiment: {other[1]} is of another verb; allowed: snnrobust {verbs} experiment={other[1]}"
        raise ConfigError(text) from error


def resolved(composed: DictConfig, choices: Mapping[Any, Any]) -> Composed:
    """Plain containers without Hydra's own node, and the choices without Hydra's own groups.

    What the config says of files elsewhere (the source of a transferred attack, foreign weights) is pinned down.

    Raises:
        ConfigError: if a value is missing, an interpolation fails, or such a file is absent.
    """
    try:
        own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        fit_attacks(own, choices)
        content = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        text = in_one_line(error)
        if "'threat.eps' not found" in text:
            text = "threat: the attacks of this suite need eps; allowed: linf, l2, or suite=flips, which brings flips"
        raise ConfigError(text) from error
    assert isinstance(content, dict)
    content = {key: value if key == "tracker" else _numbers(value) for key, value in content.items()}
    if "attacks" in content:
        content |= {"attacks": pinned("attacks", content["attacks"])}
    if "reference" in content:
        content |= {"reference": pinned_run("reference", content["reference"])}
    if "source" in (content.get("start") or {}):
        content["start"] |= {"source": pinned_run("start.source", content["start"]["source"])}
    if "weights" in content:
        content |= {"weights": pinned_weights(content["checkpoint"])}
    named = {str(k): str(v) for k, v in choices.items() if not str(k).startswith("hydra") and v is not None}
    launcher = content.pop("launcher", None)
    named.pop("launcher", None)
    return Composed({str(k): v for k, v in content.items()}, named, launcher)


FRACTION = re.compile(r"\d+(\.\d+)?/[1-9]\d*")
"""Budgets as papers write them: 8/255."""


def _numbers(value: Any) -> Any:
    """Fractions that arrive as text become numbers."""
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    return float(Fraction(value)) if isinstance(value, str) and FRACTION.fullmatch(value) else value


def _is_group(override: Override) -> bool:
    return override.key_or_group in groups() or override.key_or_group.startswith("hydra/")


def _is_plain(override: Override) -> bool:
    """`key=value` of a key that is there."""
    changes = override.is_add() or override.is_force_add() or override.is_delete()
    return not changes and override.package is None and not override.key_or_group.startswith("hydra")


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
                if "weights" in chosen and done[0] == "model":
                    raise ConfigError(
                        f"{'.'.join(done)}: arguments of a model made elsewhere are added: +{override.input_line}"
                    )
                raise ConfigError(unknown(".".join(done), part, allowed) + _hint(done))
            node = node._get_node(part)


def _hint(path: Sequence[str]) -> str:
    """How to add what is not there yet."""
    if path[0] == "attacks" and len(path) == 2:
        return f"; to add one: +attack@attacks.{path[1]}=CHOICE"
    return "; to add one: a leading +" if {"parameters", "optimizer", "scheduler"} & {*path} else ""
