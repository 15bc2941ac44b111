"""One run and its directory: trains what is not trained yet, evaluates what is not evaluated yet, records both."""

from __future__ import annotations

import fcntl
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import yaml

from snnrobust import compressed
from snnrobust.data.dataset import DataError, Splits, refuse_other_files
from snnrobust.evaluation import evaluator
from snnrobust.evaluation.report import Report
from snnrobust.experiment import Experiment, ForeignExperiment
from snnrobust.files import write_atomically, write_json
from snnrobust.foreign import Foreign
from snnrobust.job import (
    CHECKPOINT,
    CONFIG,
    FAILURE,
    GRADIENTS,
    HISTORY,
    OUTCOMES,
    RESULTS,
    SCHEMA,
    SPARSE_WEIGHTS,
    Job,
    RunFailed,
    results_of,
)
from snnrobust.record import curves, gradients, kept_metrics, outcomes, plain, provenance, results_content, summary
from snnrobust.saved import refuse_imported
from snnrobust.schema import ConfigError
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.synapses import sparsity, synapses
from snnrobust.tracking import Description, Tracked, Tracker
from snnrobust.training import loop
from snnrobust.training.checkpoint import Checkpoint, CheckpointError
from snnrobust.training.course import Diverged
from snnrobust.training.scores import Epoch
from snnrobust.training.untrained import Untrained

FOR_USERS = (ConfigError, DataError, CheckpointError, Diverged)
"""Errors whose message says all: their type adds nothing."""

log = logging.getLogger(__name__)


class Display(Protocol):
    """What the user sees while a run goes on."""

    @property
    def training(self) -> loop.Progress: ...

    @property
    def evaluation(self) -> evaluator.Progress: ...

    def tracked_offline(self, folder: str) -> None: ...


Build = Callable[[Mapping[str, Any]], tuple[Experiment | ForeignExperiment, Tracker]]


def run(job: Job, build: Build, display: Display) -> dict[str, Any]:
    """Does what is missing of a job and returns the content of its `results.json`.

    Args:
        job: what to do.
        build: makes the objects that a config describes.
        display: where progress is shown.

    Raises:
        RunFailed: after any error, which is then in `failure.json` and `run.log`.
        OSError: if the run directory cannot be made.
    """
    with _claimed(job.home):
        # Another process may have made them while this one waited.
        found = None if job.config["force"] else results_of(job)
        return _run(job, build, display) if found is None else found


def _run(job: Job, build: Build, display: Display) -> dict[str, Any]:
    folder = job.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILURE).unlink(missing_ok=True)
    write_atomically(folder / CONFIG, yaml.safe_dump(plain(job.config), sort_keys=False))
    write_atomically(folder / "overrides.yaml", yaml.safe_dump(list(job.overrides)))
    with _logged(folder / "run.log"), _recorded(job, folder):
        experiment, tracker = build(job.config)
        start = time.perf_counter()
        model = _classifier(experiment)
        splits = experiment.load()
        seconds = {"data": time.perf_counter() - start}
        with _tracked(tracker, job, folder, display) as tracked:
            checkpoint, spent = _weights(experiment, model, splits, job, tracked, display)
            seconds |= spent
            # Other files under the same name may hold training samples in their test part.
            trained = checkpoint.provenance.get("split_digests", {})
            refuse_other_files(trained, splits.digests, "the weights were trained with", "train with force=true")
            report = experiment.evaluate(model, splits, display.evaluation)
            results = results_content(experiment, job, checkpoint, splits, report, seconds)
            _write(folder, report, results)
            tracked.summary = summary(results)
        return results


def _classifier(experiment: Experiment | ForeignExperiment) -> SpikingClassifier | Foreign:
    try:
        model = experiment.classifier()
        experiment.refuse_misfits(model)
        return model
    except ValueError as error:  # a model that does not fit its data, weights, estimators of attacks, or optimizer
        raise ConfigError(str(error)) from error


def _weights(
    experiment: Experiment | ForeignExperiment, model: SpikingClassifier | Foreign, splits: Splits, job: Job,
    tracked: _Tracked, display: Display,
) -> tuple[Checkpoint, dict[str, float]]:  # fmt: skip
    """The checkpoint whose weights are in `model`, and the seconds that it took to train it now."""
    if isinstance(experiment, ForeignExperiment):
        assert isinstance(model, Foreign)
        return _tried(experiment, model, splits, job), {}
    assert isinstance(model, SpikingClassifier)
    return _trained(experiment, model, splits, job, tracked, display)


def _tried(experiment: ForeignExperiment, model: Foreign, splits: Splits, job: Job) -> Checkpoint:
    """What is known of weights that were made elsewhere, once the model has shown that it is a classifier."""
    try:
        cautions = experiment.cautions(model, splits)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    for caution in cautions:
        log.warning(caution)
        print(f"warning: {caution}", file=sys.stderr)
    origin = {"model": job.config["model"]["_target_"], "weights": job.config["weights"], "cautions": cautions}
    return Checkpoint(job.training, 0, {}, {}, origin, {})


def _trained(
    experiment: Experiment, model: SpikingClassifier, splits: Splits, job: Job, tracked: _Tracked, display: Display
) -> tuple[Checkpoint, dict[str, float]]:
    """The checkpoint, from a training if there is none yet, with its weights in `model`; and the seconds it took."""
    path = job.checkpoint or job.home / CHECKPOINT
    if job.kind == "train" and (job.config["force"] or not path.exists()):
        refuse_imported(job.config)
        _forget(job.home)
        checkpoint = _train(experiment, model, splits, job, tracked, display)
        checkpoint.save(path)
        spent = checkpoint.seconds
    else:
        checkpoint = Checkpoint.load(path)
        if checkpoint.signature != job.training:
            other = checkpoint.signature
            raise CheckpointError(f"{path}: weights of training {other}, but the config beside it is of {job.training}")
        spent = {}
        log.info("using %s, trained in %.1f s here", path, checkpoint.seconds.get("train", 0))
    checkpoint.restore(model, path)
    sparse = path.with_name(SPARSE_WEIGHTS)
    if job.kind == "train" and not sparse.exists():  # nor is it there if the run was killed in between
        _store_sparse(model, sparse)
    return checkpoint, spent


def _store_sparse(model: SpikingClassifier, path: Path) -> None:
    """Writes the weights without absent connections, if there are any; what is written is read again and compared."""
    weights = synapses(model)
    if sparsity(weights) > 0:
        size = compressed.write(path, model.state_dict(), [f"{name}.weight" for name in weights])
        log.info("%s: %d bytes, as read back", path, size)


def _forget(home: Path) -> None:
    """Removes what describes weights that are about to be replaced."""
    for name in (CHECKPOINT, SPARSE_WEIGHTS, RESULTS, OUTCOMES, GRADIENTS):
        for old in (home / name, *home.glob(f"*/{name}")):
            old.unlink(missing_ok=True)


def _write(folder: Path, report: Report, results: Mapping[str, Any]) -> None:
    """The records, `results.json` last: where it is, everything is."""
    write_atomically(folder / OUTCOMES, outcomes(report))
    if report.examples is not None:
        write_atomically(folder / GRADIENTS, gradients(report.examples))
    write_json(folder / RESULTS, results)
    (folder / FAILURE).unlink(missing_ok=True)
    log.info("results: %s", json.dumps(results["metrics"]))


def _train(
    experiment: Experiment, model: SpikingClassifier, splits: Splits, job: Job, tracked: _Tracked, display: Display
) -> Checkpoint:
    history = job.home / HISTORY
    history.write_text("")

    def on_epoch(epoch: Epoch) -> None:
        values = curves(epoch)
        with history.open("a") as file:
            file.write(json.dumps(values) + "\n")
        tracked.run.log(values)
        log.info("epoch %d: loss %.4f, validation loss %.4f", epoch.epoch, epoch.train.loss, epoch.validation.loss)

    start = time.perf_counter()
    try:
        begun = experiment.begin(model, splits, on_epoch, display.training)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    origin = provenance(experiment, job) | ({"start": dict(begun)} if begun else {})
    origin |= {"split_digests": dict(splits.digests)} if splits.digests else {}
    if isinstance(experiment.training, Untrained):
        state = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        return Checkpoint(job.training, 0, {}, {"train": time.perf_counter() - start}, origin, state)
    trained = experiment.train(model, splits, on_epoch, display.training)
    log.info("epochs trained: %d; the best on validation data: %d", trained.epochs, trained.best.epoch)
    return Checkpoint(
        job.training,
        trained.best.epoch,
        kept_metrics(trained.best),
        {"train": time.perf_counter() - start},
        origin | {"epochs": trained.epochs},
        dict(trained.state),
    )


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


@contextmanager
def _claimed(home: Path) -> Iterator[None]:
    """Holds a run directory for this process; others wait. The lock ends with its process, however that ends."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


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
        content = {
            "schema": SCHEMA,
            "error": line,
            "traceback": traceback.format_exc(),
            "overrides": list(job.overrides),
            "training_signature": job.training,
            "evaluation_signature": job.evaluation,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        try:
            write_json(folder / FAILURE, content)
        except OSError as second:
            raise RunFailed(f"{folder}: {line} (not recorded: {second})") from error
        raise RunFailed(f"{folder}: {line}") from error
