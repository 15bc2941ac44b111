"""The command `snnrobust` and its verbs."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from snnrobust import __version__
from snnrobust.placement import placement
from snnrobust.schema import ConfigError
from snnrobust.usage import CONVERT_USAGE, EXPORT_USAGE, IMPORT_USAGE, PLAN_USAGE, SEARCH_USAGE, SYNC_USAGE, USAGE

INTERRUPTED, BROKEN_PIPE = 130, 141
RUN_CHECKPOINT = "checkpoint=RUN (a run directory, or the file in it)"
FOREIGN_CHECKPOINT = "checkpoint=FILE (the state dict of the model, or null if it loads its weights itself)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit status: 0 done, 1 failed, 2 wrong usage or config, 130 interrupted."""
    try:
        place = placement()
    except ConfigError as error:
        return _fail(str(error), status=2)
    if place is None:
        return _main(arguments)
    from snnrobust.together import together

    return together(place, lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    verb, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    verbs: dict[str, Callable[[list[str]], int]] = {
        "train": train,
        "evaluate": evaluate,
        "convert": convert,
        "plan": plan,
        "search": search,
        "import": import_,
        "export": export,
        "report": report,
        "sync": sync,
        "describe": describe,
    }
    if verb in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if verb == "--version":
        print(f"snnrobust {__version__}")
        return 0
    if verb not in verbs:
        hint = f"; did you mean snnrobust train {verb}?" if "=" in verb else ""
        return _fail(f"unknown verb {verb!r}; allowed: {', '.join(verbs)}{hint}", status=2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows no ± shows a question mark
            stream.reconfigure(errors="replace")
    try:
        return verbs[verb](rest)
    except ConfigError as error:
        return _fail(str(error), status=2)
    except KeyboardInterrupt:
        return _fail("interrupted; finished runs are kept, the same command goes on with the others", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        return _fail(f"{error.filename or 'file system'}: {error.strerror or error}", status=1)


def _fail(text: str, status: int) -> int:
    for line in text.splitlines():
        print(f"snnrobust: {line}", file=sys.stderr)
    return status


def _asks_for_help(arguments: Sequence[str]) -> bool:
    return any(a in ("-h", "--help") for a in arguments)


# --- train and evaluate


def train(arguments: list[str]) -> int:
    """One run, or with `-m` a sweep."""
    from snnrobust.launch import launch

    return launch("config", "train", arguments)


def evaluate(arguments: list[str]) -> int:
    """Attacks saved models again, or models made elsewhere: those whose class the command names."""
    if _asks_for_help(arguments):
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
    """The overrides of each model's own run are replayed first; later ones win. What it began with may be gone."""
    from snnrobust.launch import launch
    from snnrobust.overrides import expand, quoted, referring, replayed
    from snnrobust.saved import checkpoint_of, read_yaml, source_beside

    others = [o for o in overrides if o not in given]
    _refuse_training_keys(others)
    status = 0
    for (checkpoint,) in expand(given) if "," in given[0] or "(" in given[0] else [given]:
        path = checkpoint_of("checkpoint", checkpoint.removeprefix("checkpoint=").strip("'\""))
        earlier = read_yaml("checkpoint", path.parent / "overrides.yaml")
        source = source_beside(path)
        earlier = earlier if source is None else replayed(earlier, [referring("start.source", source)])
        command = [*flags, *others, f"checkpoint={quoted(str(path))}"]
        status = max(status, launch("evaluate", "evaluate", command, replay=earlier))
        if status and placement() is not None:
            break  # the processes that were to compute along have gone with the run that failed
    return status


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


# --- plan


def plan(arguments: list[str]) -> int:
    """The runs of `snnrobust train` with the same words, and how far each is; runs nothing."""
    if _asks_for_help(arguments):
        print(PLAN_USAGE, end="")
        return 0
    from snnrobust.launch import read
    from snnrobust.planning import show

    show(read("config", "train", arguments).tasks)
    return 0


# --- convert


def convert(arguments: list[str]) -> int:
    """From an ANN to a spiking network, each stage a run."""
    if _asks_for_help(arguments):
        print(CONVERT_USAGE, end="")
        return 0
    from snnrobust.convert import convert as run

    return run(arguments)


# --- search


def search(arguments: list[str]) -> int:
    """Looks for settings with several objectives on validation data."""
    from importlib.util import find_spec

    if _asks_for_help(arguments) or not arguments:
        print(SEARCH_USAGE, end="")
        return 0
    if find_spec("optuna") is None:
        raise ConfigError("search: Optuna is not installed; allowed: pip install 'snnrobust[search]'")
    from snnrobust.search.search import search as run

    return run(arguments)


# --- import


def import_(arguments: list[str]) -> int:
    """Makes a run directory of weights that the code of a paper saved."""
    from snnrobust.importing.importer import FORMATS, import_weights
    from snnrobust.launch import split

    if _asks_for_help(arguments) or not arguments:
        print(IMPORT_USAGE.format(formats="\n".join(f"  {name:22} {made.about}" for name, made in FORMATS.items())))
        return 0
    flags, given = split(arguments)
    if flags:
        raise ConfigError(f"{flags[0]}: import runs nothing, and knows no flag but --help")
    if len(given) < 2 or ("=" in given[1] and not Path(given[1]).exists()):
        raise ConfigError("import: FILE is missing; allowed: snnrobust import FORMAT FILE [key=value ...]")
    done = import_weights(given[0], Path(given[1]), given[2:])
    earlier = " (imported earlier)" if done.found else ""
    print(f"{done.model} for {done.dataset}, {done.parameters:,} parameters{earlier}")
    if done.caution:
        print(done.caution)
    print(f"attack it with: snnrobust evaluate checkpoint={done.home}")
    return 0


# --- export


def export(arguments: list[str]) -> int:
    """Writes the network of a run in one of the formats that other programs read."""
    if _asks_for_help(arguments) or not arguments:
        print(EXPORT_USAGE, end="")
        return 0
    run, settings = arguments[0], dict(given.partition("=")[::2] for given in arguments[1:])
    for key in settings.keys() - {"format", "out"}:
        raise ConfigError(f"export: got {key}; allowed: snnrobust export RUN [format=FORMAT] [out=FILE]")
    from snnrobust.exporting.export import export as write
    from snnrobust.training.checkpoint import CheckpointError

    out = Path(settings["out"]) if "out" in settings else None
    try:
        done = write(run, settings.get("format", "sparse"), out)
    except CheckpointError as error:
        return _fail(str(error).replace("; force=true trains again", ""), status=1)
    share = f" ({done.present / done.synapses:.1%})" if done.synapses else ""
    print(f"{done.present:,} of {done.synapses:,} weights are not zero{share}")
    print(f"{done.size:,} bytes, {done.size / done.dense:.2f} of all weights as safetensors ({done.dense:,} bytes)")
    print(f"read back, the same: {done.path}")
    return 0


# --- sync


def sync(arguments: list[str]) -> int:
    """Uploads what was tracked offline."""
    if _asks_for_help(arguments):
        print(SYNC_USAGE, end="")
        return 0
    from snnrobust.syncing import read
    from snnrobust.syncing import sync as upload

    return upload(*read(arguments))


# --- describe


def describe(arguments: list[str]) -> int:
    """Layers, parameters, operations and memory of the classifier that a config gives; reads no data."""
    if _asks_for_help(arguments):
        print(USAGE, end="")
        return 0
    from snnrobust.config import build, compose
    from snnrobust.saved import refuse_imported

    composed = compose("config", arguments)
    refuse_imported(composed.config)
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
