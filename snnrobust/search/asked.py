"""What a search is asked for: its settings and its space, read from the words of the command and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from snnrobust.config import Composed, compose, compose_plain
from snnrobust.job import Job
from snnrobust.launch import is_of_launcher
from snnrobust.overrides import parse, place
from snnrobust.saved import refuse_imported
from snnrobust.schema import ConfigError, check_node
from snnrobust.search.objectives import refuse_objectives, refuse_unmeasured
from snnrobust.search.settings import Search
from snnrobust.search.space import Space, space

FOLDER = "searches"
"""Below that of the runs."""


@dataclass(frozen=True)
class Asked:
    """A search that is in order.

    Args:
        settings: how to search.
        space: over what.
        folder: of its records.
        launcher: where its runs take place, a checked node.
    """

    settings: Search
    space: Space
    folder: Path
    launcher: Mapping[str, Any]

    def jobs(self, values: Mapping[str, Any]) -> tuple[Job, ...]:
        """The runs of a trial.

        Raises:
            ConfigError: where values do not go together.
        """
        composed = [(words, _composed(words)) for words in _commands(self.settings, self.space, values)]
        group = f"search-{self.settings.name}"
        return tuple(Job(one.config, one.choices, _kept(words), "train", None, group) for words, one in composed)


def asked(words: Sequence[str]) -> Asked:
    """Reads the words of a command.

    Every choice and both ends of every interval are composed and checked once.

    Raises:
        ConfigError: in one line per mistake.
    """
    own = [str(o.input_line) for o in parse(words) if place(o).partition(".")[0] == "search"]
    settings = _settings(own)
    searched = space([word for word in words if word not in own])
    if settings.over_seeds is not None and any(place(o) == "seed" for o in parse(searched.fixed)):
        raise ConfigError("seed: given beside search.over_seeds; allowed: one of the two")
    if settings.sampler == "grid":
        searched.combination(0)
    composed = [_composed(words) for corner in searched.corners() for words in _commands(settings, searched, corner)]
    for one in composed:
        refuse_imported(one.config)
        refuse_unmeasured(settings.objectives, one.config)
    folder = Path(composed[0].config["runs"]) / FOLDER / settings.name
    return Asked(settings, searched, folder, composed[0].launcher or {})


def _commands(settings: Search, searched: Space, values: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The command line of every run of a trial."""
    words = searched.words(values)
    seeds = settings.over_seeds
    return [words] if seeds is None else [(*words, f"seed={seed}") for seed in seeds]


def _kept(words: Sequence[str]) -> tuple[str, ...]:
    """Those that belong to a run, not to the command that has it done."""
    return tuple(word for word in words if not word.startswith("force=") and not is_of_launcher(word))


def _settings(own: Sequence[str]) -> Search:
    node = compose_plain("search", own)["search"]
    if mistakes := list(check_node("search", node)):
        raise ConfigError("\n".join(mistakes))
    given = {key: value for key, value in node.items() if not key.startswith("_")}
    settings: Search = TypeAdapter(Search).validate_python(given)
    refuse_objectives(settings.objectives)
    seeds = settings.over_seeds
    if seeds is not None and (not seeds or len(set(seeds)) < len(seeds)):
        raise ConfigError(f"search.over_seeds: got {list(seeds)}; allowed: one or more, each once")
    if not settings.name.replace("-", "_").replace("_", "a").isalnum():
        raise ConfigError(f"search.name: got {settings.name!r}; allowed: letters, digits, _ and -")
    return settings


@cache
def _composed(words: tuple[str, ...]) -> Composed:
    """A trial is composed when it is proposed, and not again when its results are told."""
    return compose("config", words)
