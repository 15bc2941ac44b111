"""Runs the stages of conversions, one after the other; what is on record is shown, not run again."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from snnrobust.job import RunFailed, results_of
from snnrobust.launch import run_job, split
from snnrobust.overrides import expand
from snnrobust.schema import ConfigError
from snnrobust.stages import Planned, plan

MANY = {"-m", "--multirun"}
SHOWING = ["--cfg", "job"]


def convert(arguments: Sequence[str]) -> int:
    """One conversion, or with `-m` one for every combination of values.

    Returns:
        0 if every result is there; 1 if a stage failed, after a line for each conversion that it ended.

    Raises:
        ConfigError: before the first run, if any stage of any conversion is not in order.
    """
    flags, words = split(arguments)
    showing = [flag for flag in flags if flag not in MANY]
    if showing not in ([], SHOWING):
        raise ConfigError(f"{' '.join(showing)}: allowed: -m, and --cfg job, which shows the stages and runs nothing")
    commands = expand(words) if MANY & set(flags) else [list(words)]
    plans = [plan(command) for command in commands]
    if showing:
        for stages in plans:
            _show(stages)
        return 0
    shared = set.intersection(*(set(command) for command in commands))
    failures: list[str] = []
    for number, (command, stages) in enumerate(zip(commands, plans, strict=True), 1):
        if len(commands) > 1:
            print(f"[{number}/{len(commands)}] {' '.join(word for word in command if word not in shared)}")
        failures += _run(stages, brief=len(commands) > 1)
    for failure in failures:
        print(f"snnrobust: {failure}", file=sys.stderr)
    if len(commands) > 1:
        print(f"{len(commands)} conversions: {len(commands) - len(failures)} done, {len(failures)} failed")
    return 1 if failures else 0


def _run(stages: Sequence[Planned], brief: bool) -> list[str]:
    """The stages of one conversion, up to the first that fails; of one conversion of many, the result is a line too."""
    result = stages[-1]
    for stage in stages:
        name = stage.name if brief or stage is not result else None
        try:
            run_job(stage.job, name)
        except RunFailed as error:
            return [f"{stage.name}: {error}"]
        except OSError as error:
            return [f"{stage.name}: {error.filename or stage.job.home}: {error.strerror or error}"]
    return []


def _show(stages: Sequence[Planned]) -> None:
    """Each stage as a command of its own, and whether it is on record."""
    for stage in stages:
        done = "done" if results_of(stage.job) else "to do"
        print(f"# {stage.name}: {stage.job.home}, {done}")
        print(shlex.join(["snnrobust", "train", *stage.job.overrides]))
