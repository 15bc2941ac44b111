"""Overrides as the user typed them: parsed, multiplied out, replayed. One of the files that import Hydra."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import HydraException

from snnrobust.check import TRUSTED
from snnrobust.schema import ConfigError


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The jobs of a sweep, in Hydra's order: the product of all values given with commas or sweep functions.

    Raises:
        ConfigError: for functions that give no list of values.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    parsed = parse(overrides)
    for override in parsed:
        if isinstance(override.value(), IntervalSweep | Glob):
            raise ConfigError(f"{override.input_line}: no list of values; allowed: A,B, choice(A,B) or range(...)")
    return [list(job) for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]


def place(override: Override) -> str:
    """Where in the config its value goes, as a dotted key."""
    return (override.package or override.key_or_group).replace("/", ".")  # `attack@defence.attack` is in the defence


def parse(overrides: Sequence[str]) -> list[Override]:
    """Parsed overrides.

    Raises:
        ConfigError: if one cannot be read.
    """
    return [_parsed(text) for text in overrides]


@cache
def _parsed(text: str) -> Override:
    """Kept, since the jobs of a sweep share most of their overrides."""
    try:
        (override,) = OverridesParser.create().parse_overrides([text])
    except HydraException as error:
        detail = str(error.__cause__ or error).splitlines()[0]
        raise ConfigError(f"{text}: cannot be read ({detail}); allowed: key=value") from error
    return override


def quoted(value: str) -> str:
    """The value of an override that is this text, whatever its characters."""
    if "/" in value and re.fullmatch(r"[\w./-]+", value, re.ASCII):  # a usual path, which is no number
        return value
    return "'" + re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), value) + "'"


def referring(key: str, run: Mapping[str, str]) -> str:
    """The override that gives a run as configs refer to it (`saved.reference_to`): it need not be there any more."""
    inside = ",".join(f"{name}:{quoted(value)}" for name, value in run.items())
    return f"{key}={{{inside}}}"


def trusted(overrides: Sequence[str]) -> frozenset[str]:
    """Where a `_target_` may come from: `TRUSTED`, and the packages that these overrides name as target."""
    named = {o.get_value_string() for o in parse(overrides) if (o.key_or_group or "").endswith("_target_")}
    return TRUSTED | {target.strip("'\"").partition(".")[0] for target in named}


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
        where = place(override)
        if where.partition(".")[0] in keys and where not in free:
            yield str(override.input_line)
