"""From the words of `snnrobust convert` to its stages, each of which is a run of `snnrobust train`.

A stage begins with the run of another one. Since a run is named by its content, all of them are composed and checked,
and known by name, before the first one runs; what is on record is not run again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from snnrobust.config import Composed, compose, compose_plain
from snnrobust.identity import TRAINING_KEYS
from snnrobust.job import Job
from snnrobust.overrides import parse, place, quoted, referring, touched
from snnrobust.saved import checkpoint_of, config_beside, read_yaml, reference_to
from snnrobust.schema import ConfigError, unknown
from snnrobust.yamls import groups

OWN = ("conversion", "experiment")
"""Keys of `conf/convert.yaml` itself."""
SHARED = ("dataset", "model", "seed", "threat", "device", "threads", "runs", "force", "tracker")
"""What all stages have in common."""
JUDGING = ("suite", "estimator", "attacks", "evaluation", "reference")
"""By what the result is judged; the stages before it get the suite `quick`."""


class _Stage(BaseModel):
    """One stage.

    Args:
        source: the stage that it begins with; none: at random.
        like: a stage whose words go before its own, and with them what is said of that stage.
        words: of the command line.
        more: further ones.
        reference: the stage whose energy is compared with.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str | None = Field(default=None, alias="from")
    like: str | None = None
    words: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    reference: str | None = None


class _Conversion(BaseModel):
    """The part of a conversion that is read here; its other settings stand in the words."""

    model_config = ConfigDict(frozen=True)

    result: str
    stages: Mapping[str, _Stage]
    common: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planned:
    """A stage and its run."""

    name: str
    job: Job


@dataclass(frozen=True)
class _Said:
    """What was said of all stages, of single ones, and of the judgement of the result."""

    shared: tuple[str, ...]
    single: Mapping[str, tuple[str, ...]]
    judging: tuple[str, ...]
    given: Mapping[str, Path]


def plan(words: Sequence[str]) -> list[Planned]:
    """The stages that `snnrobust convert` with these words consists of, in order; the last one is the result.

    Raises:
        ConfigError: in one line per mistake, if a stage is not in order.
    """
    own = [str(o.input_line) for o in parse(words) if place(o).partition(".")[0] in OWN]
    try:
        composed = compose_plain("convert", own)
    except ConfigError as error:
        pruning = re.search(r"'conversion\.scores\.(.*)' not found", str(error))
        if pruning is None:
            raise
        raise ConfigError(f"conversion.pruning: got {pruning[1]}; allowed: magnitude, hydra, harp") from error
    conversion = _read(composed["conversion"])
    named = _said(conversion, composed["settings"])
    typed = _said(conversion, [word for word in words if word not in own])
    if conversion.result not in conversion.stages:
        raise ConfigError(f"conversion.result: got {conversion.result}; allowed: {', '.join(conversion.stages)}")
    if conversion.result in typed.given:
        raise ConfigError(
            f"{conversion.result}: is what the command makes; allowed: an earlier stage, or conversion.result"
        )
    made: dict[str, Planned] = {}
    _make(conversion.result, conversion, named, typed, made)
    return [*made.values()]


def _read(node: Mapping[str, Any]) -> _Conversion:
    try:
        return _Conversion.model_validate(node)
    except ValidationError as error:
        detail = error.errors()[0]
        raise ConfigError(f"conversion.{'.'.join(map(str, detail['loc']))}: {detail['msg']}") from error


def _said(conversion: _Conversion, words: Iterable[str]) -> _Said:
    """Sorts words by what they are about.

    Raises:
        ConfigError: if a word is of one stage, and does not say which.
    """
    shared: list[str] = []
    judging: list[str] = []
    single: dict[str, list[str]] = {name: [] for name in conversion.stages}
    given: dict[str, Path] = {}
    for override in parse([*words]):
        line, where = str(override.input_line), place(override)
        first, _, rest = where.partition(".")
        sign = line[: len(line) - len(line.lstrip("+~"))]
        key = line.lstrip("+~")
        if first in conversion.stages and not rest:
            given[first] = Path(str(override.value()))
        elif key.partition("=")[0].partition(".")[0] in conversion.stages:
            name, _, word = key.partition(".")
            single[name].append(sign + word)
        elif first in JUDGING:
            judging.append(line)
        elif first in SHARED:
            shared.append(line)
        elif first in {*TRAINING_KEYS, "start", "connectivity"}:
            one = conversion.result
            raise ConfigError(
                f"{line}: of which stage? allowed: {one}.{line}, or another of {', '.join(conversion.stages)}"
            )
        else:
            raise ConfigError(unknown(where, first, [*OWN, *SHARED, *JUDGING, *conversion.stages]))
    return _Said(tuple(shared), {k: tuple(v) for k, v in single.items()}, tuple(judging), given)


def _make(
    name: str, conversion: _Conversion, named: _Said, typed: _Said, made: dict[str, Planned], *under_way: str
) -> dict[str, Any]:
    """Plans a stage after those that it needs, and says how configs refer to its run."""
    if name in made:
        return _reference(made[name].job)
    if name in typed.given:
        path = typed.given[name]
        return reference_to(path, config_beside(name, checkpoint_of(name, path)))
    stage = conversion.stages[name]
    if name in under_way:
        raise ConfigError(f"conversion.stages.{name}: begins with itself; allowed: another stage")
    needed = {"start.source": stage.source}
    if name == conversion.result and _within_reach(stage.reference, conversion, typed.given):
        needed["reference"] = stage.reference
    words = _words(name, conversion, named, typed)
    said = {place(override) for override in parse(words)}
    runs: dict[str, dict[str, Any]] = {}
    for key, other in needed.items():
        if key in said:  # as reference=RUN, or null
            continue
        if other is not None and other not in conversion.stages:
            raise ConfigError(f"conversion.stages.{name}: got {other}; allowed: {', '.join(conversion.stages)}")
        if other is not None:
            runs[key] = _make(other, conversion, named, typed, made, name, *under_way)
    pinned = [referring(key, run) for key, run in runs.items()]
    try:
        composed = _composed((*words, *pinned))
    except ConfigError as error:
        raise ConfigError("\n".join(f"{name}: {line}" for line in str(error).splitlines())) from error
    overrides = (*words, *(f"{key}={quoted(run['path'])}" for key, run in runs.items()))
    made[name] = Planned(name, Job(composed.config, composed.choices, overrides, "train", None, None))
    return _reference(made[name].job)


@cache
def _composed(words: tuple[str, ...]) -> Composed:
    """The conversions of a sweep share stages."""
    return compose("config", words)


def _within_reach(reference: str | None, conversion: _Conversion, given: Mapping[str, Path]) -> bool:
    """False where the command begins with a run that the reference does not come from: none is made for it alone."""
    lineage: set[str] = set()
    while reference is not None and reference in conversion.stages and reference not in lineage:
        lineage.add(reference)
        reference = conversion.stages[reference].source
    return not given or bool(given.keys() & lineage)


def _reference(job: Job) -> dict[str, Any]:
    return reference_to(job.home, job.config)


def _words(name: str, conversion: _Conversion, named: _Said, typed: _Said) -> list[str]:
    """The command line of a stage; of what is said twice, the later one counts."""
    lineage = [name]
    while (like := conversion.stages[lineage[0]].like) is not None:
        if like in lineage or like not in conversion.stages:
            raise ConfigError(f"conversion.stages.{lineage[0]}.like: got {like}; allowed: another stage")
        lineage.insert(0, like)
    words = [*conversion.common]
    for stage in lineage:
        its = conversion.stages[stage]
        for later in (its.words, its.more, named.single[stage], typed.single[stage]):
            words = followed(words, later)
    judged = (*named.judging, *typed.judging) if name == conversion.result else ("suite=quick",)
    for later in (named.shared, tuple(_of_given(typed)), typed.shared, judged):
        words = followed(words, later)
    return words


def _of_given(typed: _Said) -> Iterator[str]:
    """Dataset, model and seed of the run that the command begins with."""
    for name, path in typed.given.items():
        earlier = read_yaml(name, checkpoint_of(name, path).parent / "overrides.yaml")
        yield from touched(earlier, ("dataset", "model", "seed"), free=())


def followed(words: Sequence[str], later: Sequence[str]) -> list[str]:
    """Words, and later ones, which win: key by key, and with all that was said inside what they choose anew."""
    new = parse(later)
    keys = {place(o) for o in new}
    chosen = tuple(f"{place(o)}." for o in new if o.key_or_group in groups())
    kept = [
        str(o.input_line) for o in parse(words) if place(o) not in keys and not (chosen and place(o).startswith(chosen))
    ]
    return [*kept, *later]
