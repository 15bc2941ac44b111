"""The weights of a run: trained where there are none yet, otherwise those that are on record."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

from snnrobust import compressed
from snnrobust.data.dataset import Splits
from snnrobust.experiment import Experiment, ForeignExperiment
from snnrobust.foreign import Foreign
from snnrobust.job import CHECKPOINT, GRADIENTS, HISTORY, OUTCOMES, RESULTS, SPARSE_WEIGHTS, Job
from snnrobust.record import curves, kept_metrics, provenance
from snnrobust.saved import refuse_imported
from snnrobust.schema import ConfigError
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.synapses import sparsity, synapses
from snnrobust.tracking import Tracked
from snnrobust.training import loop
from snnrobust.training.checkpoint import Checkpoint, CheckpointError
from snnrobust.training.scores import Epoch
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
        log.warning(caution)
        print(f"warning: {caution}", file=sys.stderr)
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
    if job.kind == "train" and (job.config["force"] or not path.exists()):
        refuse_imported(job.config)
        _forget(job.home)
        checkpoint = _train(experiment, model, splits, job, tracked, progress)
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


def _train(
    experiment: Experiment,
    model: SpikingClassifier,
    splits: Splits,
    job: Job,
    tracked: Tracked,
    progress: loop.Progress,
) -> Checkpoint:
    history = job.home / HISTORY
    history.write_text("")

    def on_epoch(epoch: Epoch) -> None:
        values = curves(epoch)
        with history.open("a") as file:
            file.write(json.dumps(values) + "\n")
        tracked.log(values)
        log.info("epoch %d: loss %.4f, validation loss %.4f", epoch.epoch, epoch.train.loss, epoch.validation.loss)

    start = time.perf_counter()
    try:
        begun = experiment.begin(model, splits, on_epoch, progress)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    origin = provenance(experiment, job) | ({"start": dict(begun)} if begun else {})
    origin |= {"split_digests": dict(splits.digests)} if splits.digests else {}
    if isinstance(experiment.training, Untrained):
        state = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        return Checkpoint(job.training, 0, {}, {"train": time.perf_counter() - start}, origin, state)
    trained = experiment.train(model, splits, on_epoch, progress)
    log.info("epochs trained: %d; the best on validation data: %d", trained.epochs, trained.best.epoch)
    return Checkpoint(
        job.training,
        trained.best.epoch,
        kept_metrics(trained.best),
        {"train": time.perf_counter() - start},
        origin | {"epochs": trained.epochs},
        dict(trained.state),
    )
