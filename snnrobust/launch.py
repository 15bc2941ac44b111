"""Runs the jobs of a command: checks them all, hands them to Hydra, and counts what lies in the folders.

With `config.py`, `overrides.py` and `building.py` the only file that imports Hydra.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from snnrobust.check import check
from snnrobust.config import VERSION_BASE, Composed, compose, folder, prepare, resolved
from snnrobust.identity import OPTIONAL_KEYS, PLACES, TRAINING_KEYS
from snnrobust.job import Job, RunFailed, failure_of, results_of
from snnrobust.overrides import deferred, expand, replayed, trusted
from snnrobust.saved import config_beside, refuse_imported
from snnrobust.schema import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

Verb = Literal["train", "evaluate"]
Names = dict[tuple[str, ...], str]
"""How the jobs of a sweep are called on the terminal, by their overrides; empty for a single run."""


@dataclass(frozen=True)
class Session:
    """What the jobs of one command share.

    Args:
        names: of the jobs of a sweep; empty for a single run.
        places: where targets may come from.
        failures: what went wrong in this process, by the signature of the evaluation.
    """

    names: Names
    places: frozenset[str]
    failures: dict[str, str] = field(default_factory=dict)


FLAGS = {"-m", "--multirun", "--cfg", "-c", "--resolve", "--package", "-p", "--info", "-i", "--help", "-h"}
VALUED = ("--cfg", "-c", "--package", "-p", "--info", "-i")
SHOWING = {"--cfg", "-c", "--info", "-i", "--help", "-h"}
"""Flags with which Hydra prints something and runs nothing."""


def launch(root: str, verb: Verb, arguments: list[str], replay: Sequence[str] = ()) -> int:
    """Runs `conf/<root>.yaml` with the arguments of a command, as one run or as a sweep.

    Args:
        root: `config`, `evaluate` or `foreign`.
        verb: of the command.
        arguments: flags and overrides that the user typed.
        replay: overrides that came with a run and go before the user's; what they name as target is not trusted.

    Returns:
        0 if every job has its results; 1 if one has not, after a line for each; Hydra's own status if it stopped.

    Raises:
        ConfigError: before the first job runs, if the config of any job is wrong.
    """
    flags, typed = split(arguments)
    overrides = replayed(replay, typed)
    places = trusted(typed)
    sweeping = bool({"-m", "--multirun"} & set(flags))
    if {"--help", "-h"} & set(flags):
        return _hydra(verb, root, arguments, Session({}, places))
    if sweeping and SHOWING & set(flags):
        raise ConfigError(f"{', '.join(sorted(SHOWING & set(flags)))}: shows one config; allowed: without -m")
    if sweeping:
        overrides = deferred(overrides)
    commands = [tuple(job) for job in expand(overrides)] if sweeping else [tuple(overrides)]
    jobs = [_job(verb, compose(root, command, places), command) for command in commands]
    for job in jobs:
        if job.checkpoint is not None:  # parts of its config came from the run's folder; `compose` has not seen them
            check(job.config, places)
        elif "weights" not in job.config:
            refuse_imported(job.config)
    session = Session(_names(commands) if sweeping else {}, places)
    status = _hydra(verb, root, [*flags, *overrides], session)
    return status if status or SHOWING & set(flags) else _account(jobs, session)


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


def _names(commands: Sequence[tuple[str, ...]]) -> Names:
    """`[3/12] seed=2 weight=0.01`: the number of a job, and what it does not share with the others."""
    shared = set.intersection(*(set(command) for command in commands))
    own = {command: " ".join(_short(o) for o in command if o not in shared) for command in commands}
    return {command: f"[{i}/{len(commands)}] {own[command]}" for i, command in enumerate(commands, 1)}


def _short(override: str) -> str:
    """`threat.eps=0.05` reads `eps=0.05`."""
    key, _, value = override.partition("=")
    return f"{key.rpartition('.')[2]}={value}"


def _account(jobs: Sequence[Job], session: Session) -> int:
    """What a launcher reports depends on the launcher; what lies in the folders does not."""
    found = [session.failures.get(job.evaluation) or failure_of(job) for job in jobs]
    failures = [failure for failure in found if failure]
    if session.names:
        print(f"{len(jobs)} runs: {len(jobs) - len(failures)} done, {len(failures)} failed")
        if any(list(job.folder.glob("wandb/offline-run-*")) for job in jobs):
            print(f"tracked offline; upload with: wandb sync $(find {jobs[0].home.parent} -name 'offline-run-*')")
    for failure in failures:
        print(f"snnrobust: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _hydra(verb: Verb, root: str, arguments: list[str], session: Session) -> int:
    """Runs the jobs under `hydra.main`, in this process or wherever its launcher puts them."""
    import hydra
    from hydra.errors import HydraException

    prepare()
    # Hydra otherwise prints its own account of an error and exits.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = [f"snnrobust {verb}", *arguments]
    task = partial(_task, session=session)
    update_wrapper(task, _task)
    try:
        hydra.main(config_path=str(folder().resolve()), config_name=root, version_base=VERSION_BASE)(task)()
    except SystemExit as stop:
        return int(stop.code or 0)
    except HydraException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    return 0


def _task(config: DictConfig, session: Session) -> None:
    """One job under Hydra. A failed run must not take the rest of a sweep with it."""
    from hydra.core.hydra_config import HydraConfig

    settings = HydraConfig.get()
    overrides = tuple(str(o) for o in settings.overrides.task)
    composed = resolved(config, settings.runtime.choices)
    verb: Verb = "evaluate" if "checkpoint" in composed.config else "train"
    job = _job(verb, composed, overrides, Path(settings.sweep.dir).name if session.names else None)
    check(job.config, session.places)
    try:
        run_job(job, session.names.get(overrides, " ".join(overrides)) if session.names else None)
    except RunFailed as error:
        session.failures[job.evaluation] = str(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        session.failures[job.evaluation] = f"{error.filename or job.home}: {error.strerror or error}"
    if session.names and job.evaluation in session.failures:
        print(f"failed: {session.failures[job.evaluation]}", file=sys.stderr)


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
    kept = tuple(o for o in overrides if not o.startswith(("checkpoint=", "force=")))
    return Job(config, composed.choices, kept, verb, Path(checkpoint) if checkpoint else None, group)


def _foreign(config: dict[str, Any], choices: Mapping[str, str], overrides: Sequence[str], group: str | None) -> Job:
    """The evaluation of a model made elsewhere, which the choice of a model is named after."""
    if config["weights"]["sha256"] is None:
        config["force"] = True  # what the model loads by itself may be other weights today: no signature tells
    name = str(config["model"]["_target_"]).rpartition(".")[2]
    kept = tuple(o for o in overrides if not o.startswith("force="))
    return Job(config, {**choices, "model": name}, kept, "evaluate", None, group)


def run_job(job: Job, name: str | None) -> None:
    """One job: shows the results that are there, or makes them. `name` is that of one job of a sweep."""
    from snnrobust.console import Terminal, results_line, results_table, results_title, stdout

    results = None if job.config["force"] else results_of(job)
    found = "" if results is None else " (recorded earlier; force=true runs it again)"
    if results is not None:
        _refuse_other_files(job, results)
    if results is None:
        from snnrobust.building import build, build_foreign
        from snnrobust.run import run

        builder = build_foreign if "weights" in job.config else build
        results = run(job, builder, Terminal(brief=name is not None))
    if name is not None:
        print(results_line(name, results) + found, flush=True)
        return
    stdout().print(results_title(results), soft_wrap=True)
    stdout().print(results_table(results))
    print(f"results: {job.folder}/results.json{found}")


def _refuse_other_files(job: Job, results: Mapping[str, Any]) -> None:
    """Raises `RunFailed` where results are of other files than those that are there under the same name today."""
    if not results.get("split_digests"):
        return
    from snnrobust.building import refuse_other_files
    from snnrobust.data.dataset import DataError

    try:
        refuse_other_files(job.config, results)
    except DataError as error:
        raise RunFailed(f"{job.folder}: {error}") from error
