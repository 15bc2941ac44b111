"""From the words of a command to its runs: all are composed and checked before the first one begins.

One of the files that import Hydra; `tests/test_layers.py` lists them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from snnrobust.check import check
from snnrobust.config import VERSION_BASE, Composed, compose, instantiate, prepare
from snnrobust.console import Terminal, counted, results_line, results_table, results_title, stdout
from snnrobust.identity import OPTIONAL_KEYS, PLACES, TRAINING_KEYS, digest
from snnrobust.job import Job, RunFailed
from snnrobust.launchers.base import RECORDED, Launcher, Task
from snnrobust.launchers.local import Local
from snnrobust.overrides import expand, replayed, trusted
from snnrobust.perform import perform
from snnrobust.placement import placement
from snnrobust.saved import config_beside, refuse_imported
from snnrobust.schema import ConfigError
from snnrobust.sweepfiles import WORD, named, words_of
from snnrobust.sweeping import say, sweep
from snnrobust.syncing import is_sent
from snnrobust.yamls import folder

if TYPE_CHECKING:
    from omegaconf import DictConfig

Verb = Literal["train", "evaluate"]
MANY = {"-m", "--multirun"}
FLAGS = {*MANY, "--cfg", "-c", "--resolve", "--package", "-p", "--info", "-i", "--help", "-h"}
VALUED = ("--cfg", "-c", "--package", "-p", "--info", "-i")
SHOWING = {"--cfg", "-c", "--info", "-i", "--help", "-h"}
"""Flags with which Hydra prints something and runs nothing."""


@dataclass(frozen=True)
class Command:
    """What a command asks for.

    Args:
        tasks: its runs, by name and in order.
        launcher: has them done.
        many: whether it is a sweep, of however many runs. One run with a launcher is done like a sweep of one.
    """

    tasks: Sequence[Task]
    launcher: Launcher
    many: bool


def launch(root: str, verb: Verb, arguments: list[str], replay: Sequence[str] = ()) -> int:
    """Runs `conf/<root>.yaml` with the arguments of a command, as one run or as a sweep.

    Args:
        root: `config`, `evaluate` or `foreign`.
        verb: of the command.
        arguments: flags and overrides that the user typed.
        replay: overrides that came with a run and go before the user's; what they name as target is not trusted.

    Returns:
        0 if every run has its results; 1 if one has not, after a line for each; Hydra's own status if it only shows.

    Raises:
        ConfigError: before the first run begins, if the config of any run is wrong.
    """
    flags, typed = split(arguments)
    if {"--help", "-h"} & set(flags):
        return _shown(verb, root, arguments)
    command = read(root, verb, arguments, replay)
    if SHOWING & set(flags):
        return _shown(verb, root, [*flags, *replayed(replay, spelt_out(typed))])
    if not command.many and isinstance(command.launcher, Local):
        return _run(command.tasks[0].job)
    if placement() is not None:
        word = "-m" if command.many else "launcher"
        raise ConfigError(f"{word}: these processes do one run together; allowed: one run, or a sweep without torchrun")
    return run_sweep(command)


def read(root: str, verb: Verb, arguments: list[str], replay: Sequence[str] = ()) -> Command:
    """What a command asks for, all of it composed and checked; see `launch`.

    Raises:
        ConfigError: if the config of any run is wrong.
    """
    flags, typed = split(arguments)
    document = named(typed)
    typed = spelt_out(typed)
    many = bool(MANY & set(flags)) or document is not None
    if many and SHOWING & set(flags):
        shown = ", ".join(sorted(SHOWING & set(flags)))
        raise ConfigError(f"{shown}: shows one config; allowed: without -m and sweeps")
    overrides = replayed(replay, typed)
    places = trusted(typed)
    words = [tuple(job) for job in expand(overrides)] if many else [tuple(overrides)]
    group = (document or f"sweep-{digest(sorted(typed))}") if many else None
    tasks: list[Task] = []
    launchers: list[Mapping[str, Any]] = []
    for name, own in zip(names(words), words, strict=True):
        composed = compose(root, own, places)
        launchers.append(composed.launcher or {})
        job = _job(verb, composed, own, group)
        if job.checkpoint is not None:  # parts of its config came from the run's folder; `compose` has not seen them
            check(job.config, places)
        elif "weights" not in job.config:
            refuse_imported(job.config)
        tasks.append(Task(name, job))
    if any(other != launchers[0] for other in launchers):
        raise ConfigError("launcher: got several; allowed: one for all runs of a sweep")
    return Command(tasks, instantiate("launcher", launchers[0]), many)


def combined(commands: Sequence[Command]) -> Command:
    """Several commands, each about runs of its own, as one sweep."""
    tasks = [(task.job.home.name, task) for command in commands for task in command.tasks]
    many = [
        replace(task, name=f"[{i}/{len(tasks)}] {home} {task.name.partition('] ')[2]}".rstrip())
        for i, (home, task) in enumerate(tasks, 1)
    ]
    return Command(many, commands[0].launcher, True)


def launcher_of(words: Sequence[str]) -> tuple[Launcher, list[str]]:
    """The launcher that some words of a command choose, and the other words.

    Raises:
        ConfigError: if there is no such launcher, or it is not in order.
    """
    own = [word for word in words if is_of_launcher(word)]
    node = compose("config", own).launcher
    assert node is not None
    return instantiate("launcher", node), [word for word in words if word not in own]


def is_of_launcher(word: str) -> bool:
    return word.lstrip("+~").partition("=")[0].partition(".")[0] == "launcher"


def spelt_out(words: Sequence[str]) -> list[str]:
    """Words, with those of a document that they name (`sweepfiles`) before them; what was typed wins.

    Raises:
        ConfigError: if there is no such document, or it is not in order.
    """
    name = named(words)
    if name is None:
        return list(words)
    return replayed(words_of(name), [word for word in words if not WORD.fullmatch(word)])


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags with their values, and overrides, in any order.

    Raises:
        ConfigError: for a flag that does not exist.
    """
    flags: list[str] = []
    overrides: list[str] = []
    for i, argument in enumerate(arguments):
        name = argument.partition("=")[0]
        if argument.startswith("-") and name not in FLAGS:
            raise ConfigError(f"{argument}: unknown flag; values are given without dashes, as {name.lstrip('-')}=VALUE")
        is_flag = argument.startswith("-") or (i > 0 and arguments[i - 1] in VALUED)
        (flags if is_flag else overrides).append(argument)
    return flags, overrides


def names(commands: Sequence[tuple[str, ...]]) -> list[str]:
    """`[3/12] seed=2 weight=0.01`: the number of a run, and what it does not share with the others."""
    shared = set.intersection(*(set(command) for command in commands))
    own = [" ".join(_short(o) for o in command if o not in shared) for command in commands]
    return [f"[{i}/{len(commands)}] {words}".rstrip() for i, words in enumerate(own, 1)]


def _short(override: str) -> str:
    """`threat.eps=0.05` reads `eps=0.05`."""
    key, _, value = override.partition("=")
    return f"{key.rpartition('.')[2]}={value}"


def run_sweep(command: Command) -> int:
    """All runs, a line each, then a count and what failed."""
    failures = sweep(command.tasks, command.launcher)
    done = len(command.tasks) - len(failures)
    print(f"{counted(len(command.tasks))}: {done} done, {len(failures)} failed")
    home = command.tasks[0].job.home.parent
    tracked = (file for task in command.tasks for file in task.job.folder.glob("wandb/offline-run-*/run-*.wandb"))
    if not all(map(is_sent, tracked)):
        print(f"tracked offline; upload with: snnrobust sync {home}")
    for failure in failures.values():
        say(f"snnrobust: {failure}")
    return 1 if failures else 0


def _run(job: Job) -> int:
    try:
        run_job(job, None)
    except RunFailed as error:
        say(f"snnrobust: {error}")
        return 1
    return 0


def _shown(verb: Verb, root: str, arguments: Sequence[str]) -> int:
    """What Hydra prints of itself and of the config."""
    import hydra
    from hydra.errors import HydraException

    prepare()
    # Hydra otherwise prints its own account of an error and exits.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = [f"snnrobust {verb}", *arguments]
    try:
        hydra.main(config_path=str(folder().resolve()), config_name=root, version_base=VERSION_BASE)(_nothing)()
    except SystemExit as stop:
        return int(stop.code or 0)
    except HydraException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    return 0


def _nothing(config: DictConfig) -> None:
    """Hydra wants something to run."""


def _job(verb: Verb, composed: Composed, overrides: Sequence[str], group: str | None = None) -> Job:
    """The job of a composed config. The weights of a checkpoint keep the config that they were trained with."""
    config = dict(composed.config)
    checkpoint = config.pop("checkpoint", None)
    if "weights" in config:
        return _foreign(config, composed.choices, overrides, group)
    if checkpoint is not None:
        saved = config_beside("checkpoint", Path(checkpoint))
        here = {k: v for k, v in config["dataset"].items() if k in PLACES}
        config |= {key: saved.get(key) for key in (*TRAINING_KEYS, *OPTIONAL_KEYS)}
        config["dataset"] = {**saved["dataset"], **here}
    kept = tuple(o for o in overrides if not o.startswith(("checkpoint=", "force=")) and not is_of_launcher(o))
    return Job(config, composed.choices, kept, verb, Path(checkpoint) if checkpoint else None, group)


def _foreign(config: dict[str, Any], choices: Mapping[str, str], overrides: Sequence[str], group: str | None) -> Job:
    """The evaluation of a model made elsewhere, which the choice of a model is named after."""
    if config["weights"]["sha256"] is None:
        config["force"] = True  # what the model loads by itself may be other weights today: no signature tells
    name = str(config["model"]["_target_"]).rpartition(".")[2]
    kept = tuple(o for o in overrides if not o.startswith("force=") and not is_of_launcher(o))
    return Job(config, {**choices, "model": name}, kept, "evaluate", None, group)


def run_job(job: Job, name: str | None) -> None:
    """One run, in this process: shows the results that are there, or makes them; as a line if it is one of many.

    Raises:
        RunFailed: after any error in the run.
        OSError: if the run directory cannot be made.
    """
    results, found = perform(job, Terminal(brief=name is not None))
    if name is not None:
        print(results_line(name, results) + RECORDED * found, flush=True)
        return
    stdout().print(results_title(results), soft_wrap=True)
    stdout().print(results_table(results))
    print(f"results: {job.folder}/results.json{RECORDED * found}")
