"""The weights of a run: trained where there are none yet, otherwise those that are on record."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from snnrobust import compressed, distributed
from snnrobust.data.dataset import Splits
from snnrobust.experiment import Experiment
from snnrobust.foreign import Foreign
from snnrobust.foreign_experiment import ForeignExperiment
from snnrobust.forgetting import forget
from snnrobust.job import CHECKPOINT, HISTORY, SPARSE_WEIGHTS, STATE, Job
from snnrobust.record import curves, kept_metrics, provenance
from snnrobust.saved import refuse_imported
from snnrobust.schema import ConfigError
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.synapses import sparsity, synapses
from snnrobust.tracking import Tracked, retell
from snnrobust.training import loop
from snnrobust.training.checkpoint import Checkpoint, CheckpointError
from snnrobust.training.course import Trained
from snnrobust.training.history import History
from snnrobust.training.scores import Epoch
from snnrobust.training.underway import Underway
from snnrobust.training.untrained import Untrained

log = logging.getLogger(__name__)


def weights(
    experiment: Experiment | ForeignExperiment, model: SpikingClassifier | Foreign, splits: Splits, job: Job,
    tracked: Tracked, progress: loop.Progress,
) -> tuple[Checkpoint, dict[str, float]]:  # fmt: skip
    """The checkpoint whose weights are in `model`, and the seconds that it took to train it now."""
    if isinstance(experiment, ForeignExperiment):
        assert isinstance(model, Foreign)
        return _tried(experiment, model, splits, job), {}
    assert isinstance(model, SpikingClassifier)
    return _trained(experiment, model, splits, job, tracked, progress)


def _tried(experiment: ForeignExperiment, model: Foreign, splits: Splits, job: Job) -> Checkpoint:
    """What is known of weights that were made elsewhere, once the model has shown that it is a classifier."""
    try:
        cautions = experiment.cautions(model, splits)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    for caution in cautions:
        distributed.warn(caution)
    origin = {"model": job.config["model"]["_target_"], "weights": job.config["weights"], "cautions": cautions}
    return Checkpoint(job.training, 0, {}, {}, origin, {})


def _trained(
    experiment: Experiment,
    model: SpikingClassifier,
    splits: Splits,
    job: Job,
    tracked: Tracked,
    progress: loop.Progress,
) -> tuple[Checkpoint, dict[str, float]]:
    """The checkpoint, from a training if there is none yet, with its weights in `model`; and the seconds it took."""
    path = job.checkpoint or job.home / CHECKPOINT
    first = distributed.rank() == 0
    if distributed.from_first(lambda: job.trains):
        refuse_imported(job.config)
        distributed.from_first(lambda: forget(job))  # before any of them looks
        checkpoint = _train(experiment, model, splits, job, tracked, progress)
        if first:
            checkpoint.save(path)
        spent = checkpoint.seconds
    else:
        checkpoint = distributed.from_first(lambda: Checkpoint.load(path))
        if checkpoint.signature != job.training:
            other = checkpoint.signature
            raise CheckpointError(f"{path}: weights of training {other}, but the config beside it is of {job.training}")
        spent = {}
        log.info("using %s, trained in %.1f s here", path, checkpoint.seconds.get("train", 0))
        if job.kind == "train":
            retell(job.home / HISTORY, tracked)
    if job.kind == "train" and first:
        (job.home / STATE).unlink(missing_ok=True)
    checkpoint.restore(model, path)
    sparse = path.with_name(SPARSE_WEIGHTS)
    if job.kind == "train" and first and not sparse.exists():  # nor is it there if the run was killed in between
        _store_sparse(model, sparse)
    return checkpoint, spent


def _store_sparse(model: SpikingClassifier, path: Path) -> None:
    """Writes the weights without absent connections, if there are any; what is written is read again and compared."""
    weights = synapses(model)
    if sparsity(weights) > 0:
        size = compressed.write(path, model.state_dict(), [f"{name}.weight" for name in weights])
        log.info("%s: %d bytes, as read back", path, size)


def _train(
    experiment: Experiment,
    model: SpikingClassifier,
    splits: Splits,
    job: Job,
    tracked: Tracked,
    progress: loop.Progress,
) -> Checkpoint:
    """Trains from where an earlier process was killed, otherwise from the beginning."""
    underway = Underway(job.home / STATE, job.training, splits.digests)
    history = History(job.home / HISTORY, underway.content.rows)
    for values in history.rows:  # a tracked run is of one process, and whole
        tracked.log(values)

    def on_epoch(epoch: Epoch) -> None:
        values = curves(epoch)
        history.add(values)
        tracked.log(values)
        log.info("epoch %d: loss %.4f, validation loss %.4f", epoch.epoch, epoch.train.loss, epoch.validation.loss)

    begun = _begun(experiment, model, splits, underway, on_epoch, progress)
    origin = provenance(experiment, job) | ({"start": begun} if begun else {})
    origin |= {"split_digests": dict(splits.digests)} if splits.digests else {}
    if isinstance(experiment.training, Untrained):
        state = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        return Checkpoint(job.training, 0, {}, {"train": underway.seconds}, origin, state)
    trained = experiment.train(model, splits, on_epoch, progress, underway.keeper("training"))
    log.info("epochs trained: %d; the best on validation data: %d", trained.epochs, trained.best.epoch)
    return Checkpoint(
        job.training,
        trained.best.epoch,
        kept_metrics(trained.best),
        {"train": underway.seconds},
        origin | {"epochs": trained.epochs} | _micro_batch(trained) | underway.provenance(),
        dict(trained.state),
    )


def _micro_batch(trained: Trained) -> dict[str, int]:
    """How many samples a pass had, where memory made them fewer than a batch has."""
    return {} if trained.micro_batch is None else {"micro_batch": trained.micro_batch}


def _begun(
    experiment: Experiment,
    model: SpikingClassifier,
    splits: Splits,
    underway: Underway,
    on_epoch: Callable[[Epoch], None],
    progress: loop.Progress,
) -> Mapping[str, Any]:
    """What the start says of what it gave `model`, unless an earlier process has come as far as that."""
    if underway.content.begun is not None:
        underway.begins_with(model)
        return underway.content.begun
    try:
        begun = experiment.begin(model, splits, on_epoch, progress, underway.keeper("start"))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return underway.begin(begun, model) if begun else {}
