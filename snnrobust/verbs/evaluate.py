"""Attacks saved models again, or models made elsewhere: those whose class the command names."""

from __future__ import annotations

import os
import sys

from snnrobust.placement import placement
from snnrobust.schema import ConfigError
from snnrobust.usage import USAGE
from snnrobust.verbs import asks_for_help

RUN_CHECKPOINT = "checkpoint=RUN (a run directory, or the file in it)"
FOREIGN_CHECKPOINT = "checkpoint=FILE (the state dict of the model, or null if it loads its weights itself)"


def run(arguments: list[str]) -> int:
    if asks_for_help(arguments):
        print(f"{USAGE}\nThe overrides of the run are replayed, later ones win. Groups and choices: train --help")
        return 0
    from snnrobust.launch import split

    flags, overrides = split(arguments)
    given = [o for o in overrides if o.startswith("checkpoint=")]
    foreign = any(o.lstrip("+").startswith("model._target_=") for o in overrides)
    if len(given) != 1:
        found = "given twice" if given else "missing"
        allowed = FOREIGN_CHECKPOINT if foreign else RUN_CHECKPOINT
        raise ConfigError(f"checkpoint: {found}; allowed: one {allowed}")
    return _evaluate_foreign(arguments, overrides) if foreign else _evaluate_run(flags, overrides, given)


def _evaluate_run(flags: list[str], overrides: list[str], given: list[str]) -> int:
    """The overrides of each model's own run are replayed first; later ones win. Several models are one sweep."""
    from snnrobust.launch import combined, launch, read, run_sweep
    from snnrobust.overrides import expand

    others = [o for o in overrides if o not in given]
    _refuse_training_keys(others)
    checkpoints = [word for (word,) in expand(given)] if "," in given[0] or "(" in given[0] else given
    if len(checkpoints) == 1:
        return launch("evaluate", "evaluate", *_replayed(flags, others, checkpoints[0]))
    if placement() is not None:
        raise ConfigError("checkpoint: these processes do one run together; allowed: one, or several without torchrun")
    commands = [read("evaluate", "evaluate", *_replayed(flags, others, word)) for word in checkpoints]
    return run_sweep(combined(commands))


def _replayed(flags: list[str], others: list[str], word: str) -> tuple[list[str], list[str]]:
    """What is asked of one model, and the overrides of its run. What that began with may be gone."""
    from snnrobust.overrides import quoted, referring, replayed
    from snnrobust.saved import checkpoint_of, read_yaml, source_beside

    path = checkpoint_of("checkpoint", word.removeprefix("checkpoint=").strip("'\""))
    earlier = read_yaml("checkpoint", path.parent / "overrides.yaml")
    source = source_beside(path)
    earlier = earlier if source is None else replayed(earlier, [referring("start.source", source)])
    return [*flags, *others, f"checkpoint={quoted(str(path))}"], earlier


def _evaluate_foreign(arguments: list[str], overrides: list[str]) -> int:
    """The model's class is looked for in the current folder as well, as `python -m` does."""
    from snnrobust.identity import FOREIGN_KEYS, OPTIONAL_KEYS, TRAINING_KEYS
    from snnrobust.launch import launch
    from snnrobust.overrides import touched

    own = {*TRAINING_KEYS, *OPTIONAL_KEYS, "experiment"} - {*FOREIGN_KEYS, "seed"}
    for override in touched(overrides, [*own], free=("encoder.steps",)):
        raise ConfigError(f"{override}: of no meaning for a model that was made elsewhere")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return launch("foreign", "evaluate", arguments)


def _refuse_training_keys(overrides: list[str]) -> None:
    from snnrobust.identity import OPTIONAL_KEYS, PLACES, TRAINING_KEYS
    from snnrobust.overrides import touched

    places = tuple(f"dataset.{key}" for key in PLACES)
    for override in touched(overrides, (*TRAINING_KEYS, *OPTIONAL_KEYS, "experiment"), free=places):
        raise ConfigError(f"{override}: evaluate cannot change this, it is part of the run; use train")
