"""Sweeps as documents: `+sweeps=NAME` stands for the words that `sweeps/NAME.yaml` holds.

A document is written as Hydra writes experiments: choices in `defaults`, values below them, and what varies in
`hydra.sweeper.params`. It is turned into words before anything is composed, so that its runs are those that the same
words typed by hand give, and can be repeated when the document is gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from snnrobust.overrides import quoted
from snnrobust.schema import ConfigError

FOLDER = Path("sweeps")
"""Below the current folder."""
WORD = re.compile(r"\+?sweeps=(.*)")
PLAIN = re.compile(r"[\w.:/+-]+|\$\{.*\}", re.ASCII)
"""Text that the command line reads as it stands: names, paths, `1e-4` and `8/255`, interpolations."""
OWN = ("defaults", "hydra", "table")
"""Parts of a document that are no values; `table` says how its results are told."""


def named(words: Sequence[str]) -> str | None:
    """The document that a command names, if it names one.

    Raises:
        ConfigError: if it names two.
    """
    names = [found[1] for word in words if (found := WORD.fullmatch(word))]
    if len(names) > 1:
        raise ConfigError(f"sweeps: got {' and '.join(names)}; allowed: one")
    return names[0] if names else None


def words_of(name: str) -> list[str]:
    """The overrides that a document stands for: choices, values, and what varies.

    Raises:
        ConfigError: in one line, if there is no such document, or it is not in order.
    """
    path = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml") if _is_sweep(file)))
        raise ConfigError(
            f"sweeps: got {name}, but there is no {path}; allowed: {there or 'a file of yours'}"
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"sweeps: {path}: {' '.join(str(error).split())}") from error
    varied = _varied(content)
    if varied is None:
        raise ConfigError(f"sweeps: {path} says nothing of hydra.sweeper.params, a mapping from keys to values")
    values = {key: value for key, value in content.items() if key not in OWN}
    varying = (f"{key}={_varying(value)}" for key, value in varied.items())
    return [*_choices(path, content.get("defaults") or []), *_values(values), *varying]


def _is_sweep(path: Path) -> bool:
    try:
        return _varied(yaml.safe_load(path.read_text(encoding="utf-8"))) is not None
    except (OSError, ValueError, yaml.YAMLError):
        return False


def _varied(content: Any) -> Mapping[str, Any] | None:
    for key in ("hydra", "sweeper", "params"):
        content = content.get(key) if isinstance(content, Mapping) else None
    return content if isinstance(content, Mapping) else None


def _choices(path: Path, defaults: Any) -> Iterator[str]:
    """`- override /experiment: x` is `experiment=x`, `- /attack@attacks.apgd: apgd` adds one."""
    for entry in defaults if isinstance(defaults, list) else [defaults]:
        if entry == "_self_":
            continue
        if not isinstance(entry, Mapping) or len(entry) != 1:
            raise ConfigError(f"sweeps: {path}: defaults: got {entry!r}; allowed: override /GROUP: CHOICE")
        ((key, choice),) = entry.items()
        override, _, group = str(key).rpartition("/") if str(key).startswith("/") else str(key).partition(" /")
        if not group or override not in ("override", ""):
            raise ConfigError(f"sweeps: {path}: defaults: got {key}; allowed: override /GROUP: CHOICE")
        yield f"{'' if override else '+'}{group}={_text(choice)}"


def _values(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _values(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={_text(value)}"


def _varying(value: Any) -> str:
    """A list is several values; text is what would be typed."""
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return value if isinstance(value, str) else _text(value)


def _text(value: Any) -> str:
    """A value as the command line knows it. Text that would be read there as anything else is quoted."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_text(inside)}" for key, inside in value.items()) + "}"
    text = str(value)
    return text if PLAIN.fullmatch(text) and text.lower() not in ("null", "true", "false") else quoted(text)
