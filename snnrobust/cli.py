"""The command `snnrobust` and its verbs."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from snnrobust import __version__
from snnrobust.schema import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from snnrobust.config import Composed
    from snnrobust.job import Job

USAGE = """\
usage: snnrobust VERB ...

  train [-m] [group=choice ...] [key=value ...]         train, attack, measure; -m sweeps over comma-separated values
  evaluate checkpoint=RUN [-m] [key=value ...]          attack a saved model again, with other attacks or settings
  report DIR ... [--out DIR] [--title TEXT]             tables, figures and one HTML page from any number of runs
  describe [model=...] [dataset=...]                    layers, shapes, parameters

  train --help     groups and their choices
  --cfg job        print the composed config and stop
  --version
"""

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit status: 0 done, 1 failed, 2 wrong usage or config, 130 interrupted."""
    verb, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    verbs: dict[str, Callable[[list[str]], int]] = {
        "train": train,
        "evaluate": evaluate,
        "report": report,
        "describe": describe,
    }
    if verb in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if verb == "--version":
        print(f"snnrobust {__version__}")
        return 0
    if verb not in verbs:
        return _fail(f"unknown verb {verb!r}; allowed: {', '.join(verbs)}", status=2)
    try:
        return verbs[verb](rest)
    except ConfigError as error:
        return _fail(str(error), status=2)
    except KeyboardInterrupt:
        return _fail("interrupted; finished runs are kept, the same command goes on with the others", INTERRUPTED)
    except OSError as error:
        return _fail(f"{error.filename or 'file system'}: {error.strerror or error}", status=1)


def _fail(text: str, status: int) -> int:
    for line in text.splitlines():
        print(f"snnrobust: {line}", file=sys.stderr)
    return status


# --- train and evaluate


def train(arguments: list[str]) -> int:
    """One run, or with `-m` a sweep."""
    return _launch("config", "train", arguments)


def evaluate(arguments: list[str]) -> int:
    """Attacks saved models again. The overrides of each model's own run are replayed first; later ones win."""
    if _asks_for_help(arguments):
        return _hydra("evaluate", "evaluate", arguments)
    from snnrobust.config import expand, replayed

    flags, overrides = _split(arguments)
    given = [o for o in overrides if o.startswith("checkpoint=")]
    if len(given) != 1:
        raise ConfigError("checkpoint: missing; evaluate needs checkpoint=RUN (a run directory, or its checkpoint.pt)")
    others = [o for o in overrides if o not in given]
    status = 0
    for (checkpoint,) in expand(given) if "," in given[0] or "(" in given[0] else [given]:
        path = _checkpoint(checkpoint.removeprefix("checkpoint=").strip("'\""))
        _refuse_training_keys(others)
        earlier = _read_yaml(path.parent / "overrides.yaml")
        status = max(
            status, _launch("evaluate", "evaluate", [*flags, *replayed(earlier, [*others, f"checkpoint='{path}'"])])
        )
    return status


def _checkpoint(given: str) -> Path:
    from snnrobust.job import CHECKPOINT

    path = Path(given)
    path = path / CHECKPOINT if path.is_dir() else path
    if not path.is_file():
        raise ConfigError(f"checkpoint: got {given}; allowed: a run directory with {CHECKPOINT}, or that file")
    return path


def _refuse_training_keys(overrides: list[str]) -> None:
    from snnrobust.config import touched
    from snnrobust.identity import TRAINING_KEYS

    for override in touched(overrides, TRAINING_KEYS, free=("dataset.root", "dataset.download")):
        raise ConfigError(f"{override}: evaluate cannot change what the model was trained with; use train")


def _launch(root: str, verb: Literal["train", "evaluate"], arguments: list[str]) -> int:
    """Checks every job of the command, then lets Hydra run them; the exit status counts failed runs."""
    if _asks_for_help(arguments):
        return _hydra(root, verb, arguments)
    from snnrobust.check import check
    from snnrobust.config import compose, expand, trusted
    from snnrobust.job import failure_of

    flags, overrides = _split(arguments)
    sweeping = "-m" in flags or "--multirun" in flags
    commands = expand(overrides) if sweeping else [overrides]
    composed = [compose(root, command) for command in commands]
    if any(flag.startswith(("--cfg", "-c", "--info", "-i")) for flag in flags):
        return _hydra(root, verb, [*flags, *overrides])
    jobs = [_job(verb, c, tuple(command)) for c, command in zip(composed, commands, strict=True)]
    for job, command in zip(jobs, commands, strict=True):
        check(job.config, trusted(command))
    status = _hydra(root, verb, [*flags, *overrides])
    if status:
        return status
    # What a launcher reports depends on the launcher; what lies in the folders does not.
    failures = [failure for failure in map(failure_of, jobs) if failure]
    if sweeping:
        print(f"{len(jobs)} runs: {len(jobs) - len(failures)} done, {len(failures)} failed")
        if any(list(job.folder.glob("wandb/offline-run-*")) for job in jobs):
            print(f"tracked offline; upload with: wandb sync $(find {jobs[0].home.parent} -name 'offline-run-*')")
    for failure in failures:
        _fail(failure, status=1)
    return 1 if failures else 0


def _hydra(root: str, verb: str, arguments: list[str]) -> int:
    """Runs the jobs of a command under `hydra.main`, in this process or wherever its launcher puts them."""
    import hydra
    from hydra.errors import HydraException

    from snnrobust.config import VERSION_BASE, folder, prepare

    errors: list[OSError] = []

    def task(config: DictConfig) -> None:
        try:
            _task(config)
        except OSError as error:  # Hydra would print its own line first
            errors.append(error)

    prepare()
    # Hydra otherwise prints its own account of an error and exits.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = [f"snnrobust {verb}", *arguments]
    try:
        hydra.main(config_path=str(folder().resolve()), config_name=root, version_base=VERSION_BASE)(task)()
    except SystemExit as stop:
        return int(stop.code or 0)
    except HydraException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    if errors:
        raise errors[0]
    return 0


def _task(config: DictConfig) -> None:
    """One job under Hydra. A failed run is on record and must not take the rest of a sweep with it."""
    from hydra.core.hydra_config import HydraConfig

    from snnrobust.check import check
    from snnrobust.config import resolved, trusted
    from snnrobust.job import RunFailed

    settings = HydraConfig.get()
    sweeping = str(settings.mode).endswith("MULTIRUN")
    overrides = tuple(str(o) for o in settings.overrides.task)
    composed = resolved(config, settings.runtime.choices)
    verb: Literal["train", "evaluate"] = "evaluate" if "checkpoint" in composed.config else "train"
    job = _job(verb, composed, overrides, Path(settings.sweep.dir).name if sweeping else None)
    check(job.config, trusted(overrides))
    try:
        _run(job, sweeping)
    except RunFailed as error:
        if sweeping:
            print(f"failed: {error}", file=sys.stderr)


def _job(
    verb: Literal["train", "evaluate"], composed: Composed, overrides: tuple[str, ...], group: str | None = None
) -> Job:
    """The job of a composed config. The weights of a checkpoint keep the config that they were trained with."""
    from snnrobust.identity import TRAINING_KEYS
    from snnrobust.job import Job

    config = dict(composed.config)
    checkpoint = config.pop("checkpoint", None)
    if checkpoint is not None:
        saved = _read_yaml(Path(checkpoint).parent / "config.yaml")
        if not isinstance(saved, dict) or not saved.keys() >= set(TRAINING_KEYS):
            raise ConfigError(f"checkpoint: {Path(checkpoint).parent / 'config.yaml'} is not the config of a run")
        here = {k: v for k, v in config["dataset"].items() if k in ("root", "download")}
        config |= {key: saved[key] for key in TRAINING_KEYS}
        config["dataset"] = {**saved["dataset"], **here}
    kept = tuple(o for o in overrides if not o.startswith(("checkpoint=", "force=")))
    return Job(config, composed.choices, kept, verb, Path(checkpoint) if checkpoint else None, group)


def _run(job: Job, sweeping: bool) -> None:
    """One job: shows the results that are there, or makes them."""
    from snnrobust.console import Terminal, results_line, results_table, results_title, stdout
    from snnrobust.job import results_of

    results = None if job.config["force"] else results_of(job)
    if results is None:
        from snnrobust.config import build
        from snnrobust.run import run

        results = run(job, build, Terminal(brief=sweeping))
    if sweeping:
        print(results_line(results), flush=True)
        return
    stdout().print(results_title(results), soft_wrap=True)
    stdout().print(results_table(results))
    print(f"results: {job.folder}/results.json")


def _read_yaml(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"checkpoint: {path} must lie beside it ({type(error).__name__})") from error


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags with their values, and overrides."""
    flags = [a for i, a in enumerate(arguments) if a.startswith("-") or (i > 0 and arguments[i - 1] in _VALUED)]
    return flags, [a for a in arguments if a not in flags]


_VALUED = ("--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--config-name", "-cn", "--info", "-i")


def _asks_for_help(arguments: Sequence[str]) -> bool:
    return any(a in ("-h", "--help", "--hydra-help") for a in arguments)


# --- describe


def describe(arguments: list[str]) -> int:
    """Layers, shapes and parameters of the classifier that a config gives; reads no data."""
    if _asks_for_help(arguments):
        return _hydra("config", "describe", arguments)
    from snnrobust.config import build, compose

    composed = compose("config", arguments)
    experiment, _ = build(composed.config)
    from snnrobust.console import stdout
    from snnrobust.describe import layers_table

    try:
        table = layers_table(experiment)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    stdout().print(table)
    return 0


# --- report


def report(arguments: list[str]) -> int:
    """Tables, figures and one page from any number of runs."""
    import argparse

    from snnrobust.console import stdout
    from snnrobust.reporting.records import RecordError
    from snnrobust.reporting.report import write_report

    parser = argparse.ArgumentParser(prog="snnrobust report", description=report.__doc__)
    parser.add_argument("runs", nargs="+", metavar="DIR", type=Path, help="run directories, or folders that hold them")
    parser.add_argument("--out", type=Path, default=Path("report"), metavar="DIR", help="where to write (report)")
    parser.add_argument("--title", default="Robustness of spiking networks", help="of the page")
    try:
        given = parser.parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        written = write_report(given.runs, given.out, title=given.title)
    except RecordError as error:
        return _fail(str(error), status=1)
    console = stdout()
    console.print(written.summary.to_terminal(console.width))
    for note in written.summary.notes:
        print(f"  {note}")
    print(f"report: {written.page}")
    return 0


warnings.filterwarnings("ignore", category=SyntaxWarning, module="torchattacks|spikingjelly|tonic")
