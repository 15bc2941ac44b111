"""One run and its directory: trains what is not trained yet, evaluates what is not evaluated yet, records both."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import yaml

from snnrobust import distributed
from snnrobust.claims import Busy, Claim, patiently
from snnrobust.data.dataset import DataError, Splits, refuse_other_files
from snnrobust.evaluation.grounds import grounds
from snnrobust.evaluation.journal import Journal
from snnrobust.evaluation.ledger import Ledger
from snnrobust.evaluation.progress import Progress
from snnrobust.evaluation.report import Report
from snnrobust.experiment import Experiment
from snnrobust.files import write_atomically, write_json
from snnrobust.foreign import Foreign
from snnrobust.foreign_experiment import ForeignExperiment
from snnrobust.forgetting import refuse_while_evaluated
from snnrobust.job import (
    CONFIG,
    EVALUATION_LOCK,
    FAILURE,
    GRADIENTS,
    HISTORY,
    JOURNAL,
    OUTCOMES,
    RESULTS,
    TRAINING_LOCK,
    Job,
    RunFailed,
    failure_content,
    results_of,
)
from snnrobust.record import gradients, outcomes, plain, results_content, summary
from snnrobust.schema import ConfigError
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.tracking import Description, NoTracker, Tracked, Tracker, asked_by_agent, retell
from snnrobust.training import loop
from snnrobust.training.checkpoint import CheckpointError
from snnrobust.training.course import Diverged
from snnrobust.training.memory import OutOfMemory
from snnrobust.weights import weights

FOR_USERS = (ConfigError, DataError, CheckpointError, Diverged, OutOfMemory, distributed.Lost)
"""Errors whose message says all: their type adds nothing."""

log = logging.getLogger(__name__)


class Display(Protocol):
    """What the user sees while a run goes on."""

    @property
    def training(self) -> loop.Progress: ...

    @property
    def evaluation(self) -> Progress: ...

    def tracked_offline(self, folder: str) -> None: ...


Build = Callable[[Mapping[str, Any]], tuple[Experiment | ForeignExperiment, Tracker]]


def run(job: Job, build: Build, display: Display, wait: bool = True) -> dict[str, Any]:
    """Does what is missing of a job and returns the content of its `results.json`.

    Args:
        job: what to do.
        build: makes the objects that a config describes.
        display: where progress is shown.
        wait: for other processes that are at work on it.

    Raises:
        Busy: if there is one, and `wait` is False.
        RunFailed: after any error, which is then in `failure.json` and `run.log`.
        OSError: if the run directory cannot be made.
    """
    return patiently(lambda: _claimed_and_run(job, build, display), wait)


def along(job: Job, build: Build) -> None:
    """What the other processes of a run do meanwhile: the same computations. They write, show and track nothing.

    Raises:
        Lost: if the first process cannot go on.
    """
    experiment, _ = build(job.config)
    model = _classifier(experiment)
    splits = experiment.load()
    weights(experiment, model, splits, job, NoTracker().start(_description(job, job.home)), loop.silent)
    _grounds(experiment, job, model, splits)
    experiment.evaluate(model, splits)
    distributed.gathered(None)


def _claimed_and_run(job: Job, build: Build, display: Display) -> dict[str, Any]:
    """Claims the run directory until its weights are there, and the folder of the evaluation until that is done.

    So two processes may evaluate the same weights at the same time, each in a folder of its own.
    """
    try:
        with Claim(job.home / TRAINING_LOCK) as home:
            if job.trains:
                refuse_while_evaluated(job.home)
            folder = job.folder
            with Claim(folder / EVALUATION_LOCK):
                # Another process may have made them meanwhile.
                found = None if job.config["force"] else results_of(job)
                if found is None:
                    return _run(job, folder, build, display, home.release)
                if asked_by_agent():
                    _tell(job, folder, build, display, found)
                return found
    except Busy:
        distributed.from_first(lambda: None)  # those that are to compute along learn that it takes longer
        raise


def _run(
    job: Job, folder: Path, build: Build, display: Display, weights_are_there: Callable[[], None]
) -> dict[str, Any]:
    (folder / FAILURE).unlink(missing_ok=True)
    write_atomically(folder / CONFIG, yaml.safe_dump(plain(job.config), sort_keys=False))
    write_atomically(folder / "overrides.yaml", yaml.safe_dump(list(job.overrides)))
    if not job.trains:
        weights_are_there()
    with _logged(folder / "run.log"), _recorded(job, folder):
        if job.config["force"]:
            (folder / JOURNAL).unlink(missing_ok=True)
        distributed.from_first(lambda: job)
        experiment, tracker = build(job.config)
        start = time.perf_counter()
        model = _classifier(experiment)
        splits = experiment.load()
        seconds = {"data": time.perf_counter() - start}
        with _tracked(tracker, job, folder, display) as tracked:
            checkpoint, spent = weights(experiment, model, splits, job, tracked.run, display.training)
            weights_are_there()
            seconds |= spent
            # Other files under the same name may hold training samples in their test part.
            trained = checkpoint.provenance.get("split_digests", {})
            refuse_other_files(trained, splits.digests, "the weights were trained with", "train with force=true")
            with Journal(folder / JOURNAL, _grounds(experiment, job, model, splits)) as journal:
                ledger = Ledger(journal)
                report = experiment.evaluate(model, splits, display.evaluation, ledger)
                distributed.gathered(None)  # the run has failed if another process fails up to here
                results = results_content(experiment, job, checkpoint, splits, report, seconds) | _taken_up(ledger)
                _write(folder, report, results)
                journal.remove()
            tracked.summary = summary(results)
        return results


def _tell(job: Job, folder: Path, build: Build, display: Display, results: Mapping[str, Any]) -> None:
    """Tells the tracker of a run that is on record: a W&B agent waits for its measures under an identity of its own."""
    _, tracker = build(job.config)
    with _tracked(tracker, job, folder, display) as tracked:
        if job.kind == "train":
            retell(job.home / HISTORY, tracked.run)
        tracked.summary = summary(results)


def _grounds(
    experiment: Experiment | ForeignExperiment, job: Job, model: SpikingClassifier | Foreign, splits: Splits
) -> dict[str, Any]:
    """Those of the evaluation, once it is known that all processes of this run have them in common.

    Raises:
        ConfigError: if they have not.
    """
    own = grounds(job.evaluation, model, splits.digests, experiment.device)
    for number, theirs in enumerate(distributed.gathered(own)):
        if other := [key for key in own if own[key] != theirs[key]]:
            raise ConfigError(
                f"process {number} has other {', '.join(other)} than process {distributed.rank()}; allowed: the same "
                "in all processes of a run"
            )
    return own


def _taken_up(ledger: Ledger) -> dict[str, Any]:
    """How much of an evaluation was on record, if anything was."""
    taken = {"batches_on_record": ledger.replayed, "batches": ledger.batches}
    return {"resumed_evaluation": taken} if ledger.replayed else {}


def _classifier(experiment: Experiment | ForeignExperiment) -> SpikingClassifier | Foreign:
    try:
        model = experiment.classifier()
        experiment.refuse_misfits(model)
        return model
    except ValueError as error:  # a model that does not fit its data, weights, estimators of attacks, or optimizer
        raise ConfigError(str(error)) from error


def _write(folder: Path, report: Report, results: Mapping[str, Any]) -> None:
    """The records, `results.json` last: where it is, everything is."""
    write_atomically(folder / OUTCOMES, outcomes(report))
    if report.examples is not None:
        write_atomically(folder / GRADIENTS, gradients(report.examples))
    write_json(folder / RESULTS, results)
    (folder / FAILURE).unlink(missing_ok=True)
    log.info("results: %s", json.dumps(results["metrics"]))


def _description(job: Job, folder: Path) -> Description:
    kinds = ("dataset", "model", "regularizer", "defence", "suite")
    return Description(
        identity=f"{job.training}-{job.evaluation}",
        name=f"{job.training}/{job.evaluation}",
        group=job.group,
        job_type=job.kind,
        tags=tuple(dict.fromkeys(job.choices[k] for k in kinds if job.choices.get(k, "none") != "none")),
        config=plain(job.config) | {"choices": dict(job.choices)},
        folder=folder,
    )


class _Tracked:
    """A tracked run and the summary it will end with."""

    def __init__(self, run: Tracked) -> None:
        self.run = run
        self.summary: dict[str, Any] | None = None


@contextmanager
def _tracked(tracker: Tracker, job: Job, folder: Path, display: Display) -> Iterator[_Tracked]:
    """Closes the tracked run whatever happens; without a summary it counts as failed."""
    tracked = _Tracked(tracker.start(_description(job, folder)))
    try:
        yield tracked
    finally:
        offline = tracked.run.finish(tracked.summary or {}, failed=tracked.summary is None)
        if offline:
            display.tracked_offline(offline)


class _RunLog(logging.FileHandler):
    """On a full disk a line of the log is lost; the run's own files say why, and standard error stays readable."""

    def handleError(self, record: logging.LogRecord) -> None:
        return


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Writes what the package logs to `path` while the body runs."""
    handler = _RunLog(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    package = logging.getLogger("snnrobust")
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        handler.close()


@contextmanager
def _recorded(job: Job, folder: Path) -> Iterator[None]:
    """Turns any error into a record and a `RunFailed`."""
    try:
        yield
    except Exception as error:
        kind = "" if isinstance(error, FOR_USERS) else f"{type(error).__name__}: "
        line = " ".join(f"{kind}{error}".split())
        log.exception("run failed")
        more = {"kind": error.kind, "batch_size": error.batch_size} if isinstance(error, OutOfMemory) else {}
        content = failure_content(job, line, traceback.format_exc(), **more)
        try:
            write_json(folder / FAILURE, content)
        except OSError as second:
            raise RunFailed(f"{folder}: {line} (not recorded: {second})") from error
        raise RunFailed(f"{folder}: {line}") from error
