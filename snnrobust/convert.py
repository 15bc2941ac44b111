"""Runs the stages of conversions; what is on record is shown, not run again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from snnrobust.job import RunFailed, results_of
from snnrobust.launch import MANY, launcher_of, names, run_job, split
from snnrobust.launchers.base import Launcher, Task
from snnrobust.launchers.local import Local
from snnrobust.overrides import expand
from snnrobust.placement import placement
from snnrobust.schema import ConfigError
from snnrobust.stages import Planned, plan
from snnrobust.sweeping import say, sweep

SHOWING = ["--cfg", "job"]


@dataclass(frozen=True)
class Conversion:
    """One of many.

    Args:
        name: on the terminal.
        stages: in order; the last one is the result.
    """

    name: str
    stages: Sequence[Planned]


def convert(arguments: Sequence[str]) -> int:
    """One conversion, or with `-m` one for every combination of values.

    Returns:
        0 if every result is there; 1 if a stage failed, after a line for each conversion that it ended.

    Raises:
        ConfigError: before the first run, if any stage of any conversion is not in order.
    """
    flags, given = split(arguments)
    launcher, words = launcher_of(given)
    showing = [flag for flag in flags if flag not in MANY]
    if showing not in ([], SHOWING):
        raise ConfigError(f"{' '.join(showing)}: allowed: -m, and --cfg job, which shows the stages and runs nothing")
    commands = [tuple(own) for own in (expand(words) if MANY & set(flags) else [words])]
    conversions = [Conversion(name, plan(own)) for name, own in zip(names(commands), commands, strict=True)]
    if showing:
        for conversion in conversions:
            _show(conversion.stages)
        return 0
    if not MANY & set(flags) and isinstance(launcher, Local):
        return _run(conversions[0].stages)
    if placement() is not None:
        raise ConfigError("convert: these processes do one run together; allowed: without -m, launcher or torchrun")
    failures = convert_all(conversions, launcher)
    print(f"{len(commands)} conversions: {len(commands) - len(failures)} done, {len(failures)} failed")
    for failure in failures:
        say(f"snnrobust: {failure}")
    return 1 if failures else 0


def convert_all(conversions: Sequence[Conversion], launcher: Launcher) -> list[str]:
    """All conversions side by side, stage by stage, and one line for each that a stage ended.

    A stage that several have in common is one run, which is made once.

    Raises:
        ConfigError: in one line, if there is nothing to launch with.
    """
    ended: dict[int, str] = {}
    for position in range(max(len(conversion.stages) for conversion in conversions)):
        going: dict[Path, list[int]] = {}
        for number, conversion in enumerate(conversions):
            if number not in ended and position < len(conversion.stages):
                going.setdefault(conversion.stages[position].job.folder, []).append(number)
        tasks: list[Task] = []
        for numbers in going.values():
            first = conversions[numbers[0]]
            stage = first.stages[position]
            tasks.append(Task(f"{first.name}, {stage.name}", stage.job))
        failed = sweep(tasks, launcher)
        for place, numbers in enumerate(going.values()):
            if place in failed:
                name = conversions[numbers[0]].stages[position].name
                ended |= dict.fromkeys(numbers, f"{name}: {failed[place]}")
    return [ended[number] for number in sorted(ended)]


def _run(stages: Sequence[Planned]) -> int:
    """One conversion in this process, up to the first stage that fails; of its result all measures are shown."""
    for stage in stages:
        try:
            run_job(stage.job, None if stage is stages[-1] else stage.name)
        except RunFailed as error:
            say(f"snnrobust: {stage.name}: {error}")
            return 1
        except OSError as error:
            say(f"snnrobust: {stage.name}: {error.filename or stage.job.home}: {error.strerror or error}")
            return 1
    return 0


def _show(stages: Sequence[Planned]) -> None:
    """Each stage as a command of its own, and whether it is on record."""
    for stage in stages:
        done = "done" if results_of(stage.job) else "to do"
        print(f"# {stage.name}: {stage.job.home}, {done}")
        print(shlex.join(["snnrobust", "train", *stage.job.overrides]))
