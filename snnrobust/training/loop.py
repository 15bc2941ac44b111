"""The one training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snnrobust.attacks.guard import untouched
from snnrobust.data.augmentation import NONE, Augmentation
from snnrobust.data.dataset import Batch, Split
from snnrobust.randomness import generator
from snnrobust.regularizers.base import Pass, Regularizer
from snnrobust.schema import ConfigError
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.recording import recorded
from snnrobust.training.connectivity.base import Connectivity, Free
from snnrobust.training.course import REMEDY, Course, Diverged, Trained
from snnrobust.training.defences.base import Defence, Moment
from snnrobust.training.precision import rounded
from snnrobust.training.scores import Epoch, Scores, Totals
from snnrobust.training.settings import TrainingSettings
from snnrobust.training.validation import robust_accuracy

Advance = Callable[[float, float], None]
"""Called after each batch with loss and accuracy of the epoch so far."""
Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""Opened with the name of the phase and its number of batches."""


def silent(name: str, steps: int) -> AbstractContextManager[Advance]:
    """A `Progress` that shows nothing."""
    return nullcontext(lambda _loss, _accuracy: None)


@dataclass(frozen=True)
class Trainer:
    """Minimises the loss of the defence plus `weight * R` over the training split, augmented."""

    settings: TrainingSettings
    regularizer: Regularizer
    defence: Defence
    seed: int
    augmentation: Augmentation = NONE
    connectivity: Connectivity = field(default_factory=Free)

    def __call__(
        self,
        model: SpikingClassifier,
        train: Split,
        validation: Split,
        on_epoch: Callable[[Epoch], None],
        progress: Progress = silent,
    ) -> Trained:
        """Trains `model` in place and returns the selected epoch with its weights.

        Raises:
            Diverged: if the loss, the gradient or the weights become NaN or infinite.
            ConfigError: if batch norm sees a single value per channel.
        """
        batches = sum(1 for _ in self._order(len(train), epoch=1))
        course = Course(model, self.settings, batches, self.connectivity.wire(model, self.seed))
        with progress("train", self.settings.epochs * batches) as advance:
            for number in range(1, self.settings.epochs + 1):
                lr = course.lr
                scores = self._train_epoch(course, train, number, batches, advance)
                epoch = Epoch(number, lr, scores, self.score(course.result, validation))
                _refuse_divergence(model, epoch)
                epoch = replace(epoch, robust_accuracy=self._robust_accuracy(course.result, validation))
                on_epoch(epoch)
                course.keep(epoch)
                if course.over:
                    break
        assert course.trained is not None
        return course.trained

    def score(self, model: SpikingClassifier, data: Split) -> Scores:
        """Cross-entropy and the regularizer on `data` in eval mode, on clean inputs; the model is left as it was."""
        totals = Totals()
        with untouched(model):
            for batch in data.batches(self.settings.batch_size):
                at = self._look(model, batch, 0, batch.x)
                _, parts = self._regularized(model, F.cross_entropy(at.logits, batch.y), at, self.regularizer.weight)
                totals.add(parts, len(batch.x))
        return totals.scores()

    def _robust_accuracy(self, model: SpikingClassifier, data: Split) -> float | None:
        its = self.settings.validation
        if its.attack is None:
            return None
        return robust_accuracy(model, its.attack, data, its.samples, self.settings.batch_size)

    def _train_epoch(self, course: Course, data: Split, number: int, batches: int, advance: Advance) -> Scores:
        course.model.train()
        totals = Totals()
        for position, group in enumerate(self._groups(len(data), number)):
            together = sum(map(len, group))
            for place, index in enumerate(group):
                done = position * self.settings.accumulate + place
                batch = self._augmented(data, index, number)
                loss, parts = self._objective(course.model, batch, Moment(number, number - 1 + done / batches))
                (loss * (len(index) / together)).backward()
                totals.add(parts, len(index))
                if place == len(group) - 1:
                    course.step(self.defence)
                running = totals.scores()
                advance(running.loss, running.accuracy)
        return totals.scores()

    def _objective(self, model: SpikingClassifier, batch: Batch, moment: Moment) -> tuple[Tensor, Tensor]:
        """Of one batch in training mode, with its graph, and its parts as of `_regularized`."""
        look = partial(self._look, model, batch, moment.epoch)
        with rounded(model, self.settings.precision), _one_line(self.settings.batch_size, len(batch.y)):
            loss, at = self.defence.step(model, batch, look, moment)
            return self._regularized(model, loss, at, self.regularizer.weight_at(moment.elapsed))

    def _look(self, model: SpikingClassifier, batch: Batch, epoch: int, x: Tensor) -> Pass:
        """A pass of `x`, made of the samples of `batch`, as the regularizer needs it."""
        regularized = self.regularizer.weight > 0
        x = x.detach().requires_grad_(regularized and self.regularizer.needs_input_gradient)
        if not (regularized and self.regularizer.needs_layers):
            return Pass(batch.x, x, batch.y, batch.index, model(x), epoch=epoch)
        with recorded(model) as layers:
            logits = model(x)
        return Pass(batch.x, x, batch.y, batch.index, logits, tuple(layers), epoch)

    def _regularized(self, model: SpikingClassifier, loss: Tensor, at: Pass, weight: float) -> tuple[Tensor, Tensor]:
        """The loss with its graph, and `[4]` detached: loss, cross-entropy, regularizer, accuracy."""
        term = torch.zeros_like(loss)
        if weight > 0:
            term = self.regularizer(model, at)
            loss = loss + weight * term
        ce = F.cross_entropy(at.logits.detach(), at.y)
        accuracy = (at.logits.argmax(1) == at.y).to(ce.dtype).mean()
        return loss, torch.stack([loss, ce, term, accuracy]).detach()

    def _augmented(self, data: Split, index: Tensor, epoch: int) -> Batch:
        batch = data.batch(index)
        return replace(batch, x=self.augmentation(batch.x, index, "augmentation", self.seed, epoch))

    def _groups(self, samples: int, epoch: int) -> Iterator[list[Tensor]]:
        """Index sets of the batches of an epoch, those of one step of the optimizer together."""
        order = self._order(samples, epoch)
        while group := [*islice(order, self.settings.accumulate)]:
            yield group

    def _order(self, samples: int, epoch: int) -> Iterator[Tensor]:
        """Index sets of the batches of an epoch."""
        order = torch.randperm(samples, generator=generator("order", self.seed, epoch))
        for index in order.split(self.settings.batch_size):
            if len(index) > 1 or self.settings.batch_size == 1 or samples == 1:
                yield index


@contextmanager
def _one_line(batch_size: int, samples: int) -> Iterator[None]:
    """Says of which setting it is that batch norm has nothing to take a variance of."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            f"training.batch_size: got {batch_size}, and batch norm sees one value per channel in a batch of "
            f"{samples}; allowed: at least 2, and as many training samples"
        ) from error


def _refuse_divergence(model: nn.Module, epoch: Epoch) -> None:
    """NaN weights need a look of their own: a NaN membrane never fires, and the loss of a dead network is finite."""
    for what, value in (("training", epoch.train.loss), ("validation", epoch.validation.loss)):
        if not math.isfinite(value):
            raise Diverged(f"{what} loss is {value} in epoch {epoch.epoch}: {REMEDY}")
    if not all(bool(t.isfinite().all()) for t in model.state_dict().values() if t.is_floating_point()):
        raise Diverged(f"weights are not finite after epoch {epoch.epoch}: {REMEDY}")
