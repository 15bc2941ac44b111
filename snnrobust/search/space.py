"""The words of a search: which keys are fixed, and what the others may be. Typed in Hydra's grammar of sweeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from snnrobust.identity import EVALUATION_KEYS, PLACES
from snnrobust.overrides import parse, place
from snnrobust.schema import ConfigError

DIGITS = 6
"""To which numbers are rounded, so that the words of a trial can be read and typed."""
ALLOWED = "interval(LOW,HIGH), range(START,STOP,STEP), choice(A,B), A,B, or these inside tag(log,...), tag(int,...)"
NOT_OF_A_RUN = ("runs", "force", "device", "threads", "launcher", "tracker")
"""Keys that change no result."""


@dataclass(frozen=True)
class Numbers:
    """All numbers of an interval with both its ends, or those a number of steps above its lower end.

    Args:
        low: the lower end.
        high: the upper end.
        whole: whole numbers alone.
        log: drawn evenly on a logarithmic scale.
        step: between two values; None: any.
    """

    low: float
    high: float
    whole: bool
    log: bool
    step: float | None

    def text(self, value: float) -> str:
        return str(int(value)) if self.whole else repr(min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high))

    @property
    def extremes(self) -> tuple[float, ...]:
        return self.low, self.high

    @property
    def values(self) -> list[float] | None:
        """All of them, where they can be counted."""
        step = self.step or (1 if self.whole else None)
        return None if step is None else [self.low + k * step for k in range(round((self.high - self.low) / step) + 1)]


@dataclass(frozen=True)
class Choices:
    """Values as they are typed, none nearer to one than to another."""

    values: tuple[str, ...]

    def text(self, value: str) -> str:
        return value

    @property
    def extremes(self) -> tuple[str, ...]:
        return self.values


Dimension = Numbers | Choices


@dataclass(frozen=True)
class Space:
    """What a search ranges over.

    Args:
        fixed: words that every trial shares.
        typed: by key, the word that says what it may be.
        dimensions: by key, the same as an object.
    """

    fixed: tuple[str, ...]
    typed: Mapping[str, str]
    dimensions: Mapping[str, Dimension]

    def own(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """The words that tell a trial apart."""
        return tuple(f"{key}={dimension.text(values[key])}" for key, dimension in self.dimensions.items())

    def words(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """The command line of a trial."""
        return (*self.fixed, *self.own(values))

    def corners(self) -> Iterator[dict[str, Any]]:
        """Every choice and both ends of every interval at least once, the other keys at their first."""
        first = {key: dimension.extremes[0] for key, dimension in self.dimensions.items()}
        yield first
        for key, dimension in self.dimensions.items():
            yield from ({**first, key: value} for value in dimension.extremes[1:])

    def combination(self, number: int) -> dict[str, Any] | None:
        """One of all combinations, the last key varying fastest; None beyond the last.

        Raises:
            ConfigError: if there are infinitely many.
        """
        values = {key: dimension.values for key, dimension in self.dimensions.items()}
        for key, found in values.items():
            if found is None:
                raise ConfigError(
                    f"{self.typed[key]}: no grid over an interval; allowed: range(...), or another sampler"
                )
        combinations = product(*(found or () for found in values.values()))
        chosen = next(islice(combinations, number, None), None)
        return None if chosen is None else dict(zip(values, chosen, strict=True))

    @property
    def identity(self) -> list[str]:
        """The words that results depend on, in any order."""
        kept = (word for word in (*self.fixed, *self.typed.values()) if not _free(place(parse([word])[0])))
        return sorted(kept)


def space(words: Sequence[str]) -> Space:
    """Reads the words of a search.

    Raises:
        ConfigError: in one line, if one cannot be searched over, or none is.
    """
    fixed: list[str] = []
    typed: dict[str, str] = {}
    dimensions: dict[str, Dimension] = {}
    for override in parse(words):
        line, key = str(override.input_line), override.get_key_element()
        if not override.is_sweep_override():
            fixed.append(line)
            continue
        _refuse_key(place(override), line)
        if key in typed:
            raise ConfigError(f"{key}: given twice")
        typed[key], dimensions[key] = line, _dimension(override)
    if not dimensions:
        raise ConfigError(f"search: every key is fixed; allowed: at least one KEY={ALLOWED}")
    return Space(tuple(fixed), typed, dimensions)


def _free(where: str) -> bool:
    return where.partition(".")[0] in NOT_OF_A_RUN or where in {f"dataset.{key}" for key in PLACES}


def _refuse_key(where: str, line: str) -> None:
    top = where.partition(".")[0]
    if top == "seed":
        raise ConfigError(f"{line}: would find the luckiest seed; allowed: one, or search.over_seeds=[0,1,2]")
    if _free(where):
        raise ConfigError(f"{line}: no result depends on it; allowed: one value")
    if top in EVALUATION_KEYS:
        raise ConfigError(f"{line}: of the evaluation on test data, which is no objective; allowed: one value")


def _dimension(override: Override) -> Dimension:
    line, sweep = str(override.input_line), override.value()
    tags = set(getattr(sweep, "tags", ()))
    if tags - {"log", "int"} or getattr(sweep, "shuffle", False):
        raise ConfigError(f"{line}: cannot be searched over; allowed: {ALLOWED}")
    if isinstance(sweep, IntervalSweep):
        return _interval(line, sweep.start, sweep.end, tags)
    if isinstance(sweep, RangeSweep):
        return _range(line, list(sweep.range()), tags)
    if isinstance(sweep, ChoiceSweep) and not tags:
        return Choices(tuple(dict.fromkeys(map(str, override.sweep_string_iterator()))))
    raise ConfigError(f"{line}: cannot be searched over; allowed: {ALLOWED}")


def _interval(line: str, low: float | None, high: float | None, tags: set[str]) -> Numbers:
    whole = "int" in tags or (isinstance(low, int) and isinstance(high, int))  # as of int(interval(1,8))
    if low is None or high is None or not low < high or ("log" in tags and low <= 0):
        above = ", above 0 on a logarithmic scale" if "log" in tags else ""
        raise ConfigError(f"{line}: allowed: interval(LOW,HIGH) with LOW below HIGH{above}")
    if whole and (low != int(low) or high != int(high)):
        raise ConfigError(f"{line}: allowed: an interval between whole numbers")
    return Numbers(low, high, whole, "log" in tags, None)


def _range(line: str, values: Sequence[float], tags: set[str]) -> Numbers:
    if "log" in tags or len(values) < 2:
        raise ConfigError(f"{line}: allowed: a range of two values at least, on no logarithmic scale")
    whole = all(isinstance(value, int) for value in values)
    step = abs(values[1] - values[0]) if whole else float(f"{abs(values[1] - values[0]):.{DIGITS}g}")
    low, high = (end if whole else float(f"{end:.{DIGITS}g}") for end in (min(values), max(values)))
    return Numbers(low, high, whole, False, step)
