"""Finds the records of runs in any number of folders. What cannot be used is named, never dropped in silence."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from snnrobust.job import CONFIG, FAILURE, RESULTS, SCHEMA, SEARCH
from snnrobust.reporting.searches import Search, search_of

SKIPPED = ("wandb", "__pycache__")


class RecordError(Exception):
    """Nothing to report: one line that says why."""


class _Suite(BaseModel):
    headline: dict[str, str]


class _Config(BaseModel):
    seed: int
    suite: _Suite
    threat: dict[str, Any]
    attacks: dict[str, dict[str, Any]]


class _Flag(BaseModel):
    name: str
    sentence: str
    value: float
    anchor: str = ""


class _Content(BaseModel):
    """What a report reads of a `results.json`; anything else in it is welcome."""

    training_signature: str
    evaluation_signature: str
    choices: dict[str, str]
    config: _Config
    metrics: dict[str, float | None]
    finished: datetime
    overrides: list[str] = []
    flags: list[_Flag] = []
    layers: dict[str, dict[str, float | None]] = {}
    estimators: dict[str, dict[str, float | None]] = {}
    samples: dict[str, int] = {}
    durations: dict[str, float] = {}
    git: dict[str, Any] | None = None
    training: dict[str, Any] = {}
    hardware: dict[str, Any] = {}


@dataclass(frozen=True)
class Raised:
    """A flag: its name, what it means, the number that raised it, and where more is said (older records lack it)."""

    name: str
    sentence: str
    value: float
    anchor: str


@dataclass(frozen=True)
class Record:
    """One evaluation of one trained model: the content of its `results.json`."""

    path: Path
    content: Mapping[str, Any]

    @property
    def identity(self) -> tuple[str, str]:
        return self.content["training_signature"], self.content["evaluation_signature"]

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Those that are numbers; null stands for NaN in JSON and counts as missing."""
        return {k: float(v) for k, v in self.content["metrics"].items() if v is not None}

    @property
    def config(self) -> Mapping[str, Any]:
        config: Mapping[str, Any] = self.content["config"]
        return config

    @property
    def choices(self) -> Mapping[str, str]:
        choices: Mapping[str, str] = self.content["choices"]
        return choices

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def flags(self) -> list[Raised]:
        """What the evaluation says against itself."""
        return [
            Raised(f["name"], f["sentence"], f["value"], f.get("anchor", "")) for f in self.content.get("flags", ())
        ]

    @property
    def finished(self) -> float:
        """Seconds since 1970."""
        return datetime.fromisoformat(self.content["finished"]).timestamp()


@dataclass(frozen=True)
class Failure:
    """One run that ended with an error: the content of its `failure.json`."""

    path: Path
    error: str
    traceback: str
    overrides: tuple[str, ...]

    @property
    def command(self) -> str:
        return shlex.join(["snnrobust", "train", *self.overrides])


@dataclass(frozen=True)
class Problem:
    """Something in the folders that is no usable record, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Collection:
    """All that was found, in a fixed order."""

    records: tuple[Record, ...]
    failures: tuple[Failure, ...]
    problems: tuple[Problem, ...]
    searches: tuple[Search, ...] = ()


def collect(paths: Sequence[Path]) -> Collection:
    """Reads every record below the given folders: runs, sweeps, copies from other machines.

    The same evaluation found twice counts once; if the two differ, the one finished last counts and a problem says so.

    Raises:
        RecordError: if a folder does not exist.
    """
    records: dict[tuple[str, str], Record] = {}
    failures: list[Failure] = []
    searches: list[Search] = []
    problems: list[Problem] = []
    seen: set[Path] = set()
    for path in paths:
        if not path.is_dir():
            raise RecordError(f"{path}: no such folder")
        for found in _walk(path):
            if isinstance(found, Problem):
                problems.append(found)
            elif found.path.resolve() in seen:
                continue
            elif isinstance(found, Failure):
                failures.append(found)
            elif isinstance(found, Search):
                searches.append(found)
            else:
                problems += _keep(records, found)
            if not isinstance(found, Problem):
                seen.add(found.path.resolve())
    ordered = tuple(sorted(records.values(), key=lambda record: record.identity))
    unique = tuple(dict.fromkeys(problems))
    failed = tuple(sorted(failures, key=lambda failure: str(failure.path)))
    return Collection(ordered, failed, unique, tuple(sorted(searches, key=lambda search: str(search.path))))


def _keep(records: dict[tuple[str, str], Record], new: Record) -> Iterator[Problem]:
    old = records.get(new.identity)
    if old is not None and old.metrics != new.metrics:
        later = max(old, new, key=lambda record: record.finished)
        other = old if later is new else new
        yield Problem(other.path, f"the same run as {later.path} with other results; the one finished last counts")
        records[new.identity] = later
    elif old is None:
        records[new.identity] = new


def _walk(root: Path) -> Iterator[Record | Failure | Search | Problem]:
    unreadable: list[Problem] = []

    def note(error: OSError) -> None:
        unreadable.append(Problem(Path(str(error.filename)), f"cannot be read: {error.strerror}"))

    for folder, names, files in os.walk(root, onerror=note):
        names[:] = sorted(name for name in names if name not in SKIPPED and not name.startswith("."))
        here = Path(folder)
        if RESULTS in files:
            yield _record(here / RESULTS)
        if FAILURE in files:
            yield _failure(here / FAILURE)
        if SEARCH in files:
            yield _search(here / SEARCH)
        if CONFIG in files and RESULTS not in files and FAILURE not in files:
            yield Problem(here, "unfinished: a config without results")
    yield from unreadable


def _record(path: Path) -> Record | Problem:
    content = _read(path)
    if isinstance(content, Problem):
        return content
    try:
        _Content.model_validate(content, strict=False)
    except ValidationError as error:
        return Problem(path, _first(error))
    return Record(path, content)


def _search(path: Path) -> Search | Problem:
    content = _read(path)
    if isinstance(content, Problem):
        return content
    try:
        return search_of(path, content)
    except ValidationError as error:
        return Problem(path, _first(error))


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    text = first["msg"].removeprefix("Value error, ")
    return f"{where}: {text[0].lower()}{text[1:]}" if where else text


def _failure(path: Path) -> Failure | Problem:
    content = _read(path)
    if isinstance(content, Problem):
        return content
    text = {key: str(content.get(key, "unknown")) for key in ("error", "traceback")}
    return Failure(path, **text, overrides=tuple(map(str, content.get("overrides", ()))))


def _read(path: Path) -> dict[str, Any] | Problem:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        return Problem(path, f"cannot be read: {error.strerror}")
    except (ValueError, RecursionError) as error:
        return Problem(path, f"damaged: {str(error).splitlines()[0]}")
    if not isinstance(content, dict):
        return Problem(path, "damaged: no mapping")
    if content.get("schema") != SCHEMA:
        return Problem(path, f"schema {content.get('schema')!r}; this version reads {SCHEMA}")
    return content
