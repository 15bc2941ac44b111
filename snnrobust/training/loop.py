"""The one training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snnrobust import distributed
from snnrobust.attacks.guard import untouched
from snnrobust.data.augmentation import NONE, Augmentation
from snnrobust.data.dataset import Batch, Split
from snnrobust.randomness import generator, isolated
from snnrobust.regularizers.base import Pass, Regularizer
from snnrobust.schema import ConfigError
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.recording import recorded
from snnrobust.training.connectivity.base import Connectivity, Free
from snnrobust.training.course import REMEDY, Course, Diverged, Trained
from snnrobust.training.defences.base import Defence, Moment
from snnrobust.training.keeping import FORGETFUL, Keeper
from snnrobust.training.memory import SMALLER, spoken_of
from snnrobust.training.parallel import agree, alike, buffers_of, own, part, shares, total
from snnrobust.training.precision import rounded
from snnrobust.training.scores import Epoch, Scores, Totals
from snnrobust.training.settings import TrainingSettings
from snnrobust.training.validation import robust_samples

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
        keeper: Keeper = FORGETFUL,
    ) -> Trained:
        """Trains `model` in place and returns the selected epoch with its weights.

        Takes a training up where `keeper` has one, and keeps its state there after every epoch. The global random
        streams of an epoch are a function of seed and epoch, so that it does not matter which process trains it; those
        of the caller are left as they were.

        Raises:
            Diverged: if the loss, the gradient or the weights become NaN or infinite.
            OutOfMemory: if memory does not suffice.
            ConfigError: if batch norm sees a single value per channel.
            CheckpointError: if what was kept is of another architecture.
            OSError: if the state cannot be kept.
        """
        batches = sum(1 for _ in self._order(len(train), epoch=1))
        agree(model)
        course = Course(model, self.settings, batches, self.connectivity.wire(model, self.seed))
        found = keeper.load()
        if found is not None:
            course.restore(found, str(keeper))
        with progress("train", (self.settings.epochs - course.epochs) * batches) as advance:
            while not course.over:
                streams = isolated("training", self.seed, course.epochs + 1, distributed.rank())
                with streams, spoken_of("training.batch_size", self.settings.batch_size, SMALLER):
                    epoch = self._epoch(course, train, validation, batches, advance)
                on_epoch(epoch)
                course.keep(epoch)
                keeper.save(course.state())
        assert course.trained is not None
        return course.trained

    def _epoch(self, course: Course, train: Split, validation: Split, batches: int, advance: Advance) -> Epoch:
        number, lr, room = course.epochs + 1, course.lr, course.room
        scores = self._train_epoch(course, train, number, batches, advance)
        totals = room.fitting(lambda: self._totals(course.result, validation, room.micro_batch))
        epoch = Epoch(number, lr, scores, totals.everywhere())
        _refuse_divergence(course.model, epoch)
        return replace(epoch, robust_accuracy=self._robust_accuracy(course, validation))

    def score(self, model: SpikingClassifier, data: Split) -> Scores:
        """Cross-entropy and the regularizer on `data` in eval mode, on clean inputs; the model is left as it was."""
        return self._totals(model, data, self.settings.batch_size).everywhere()

    def _totals(self, model: SpikingClassifier, data: Split, batch_size: int) -> Totals:
        """The same, of this process's share."""
        totals = Totals(data.values.device)
        with untouched(model):
            for index in own(torch.arange(len(data)).split(batch_size)):
                batch = data.batch(index)
                at = self._look(model, batch, 0, batch.x)
                _, parts = self._regularized(model, F.cross_entropy(at.logits, batch.y), at, self.regularizer.weight)
                totals.add(parts, len(batch.x))
        return totals

    def _robust_accuracy(self, course: Course, data: Split) -> float | None:
        its, room = self.settings.validation, course.room
        if its.attack is None:
            return None
        attack, samples = its.attack, its.samples
        right = room.fitting(lambda: robust_samples(course.result, attack, data, samples, room.micro_batch))
        return total(right, data.values.device) / min(samples, len(data))

    def _train_epoch(self, course: Course, data: Split, number: int, batches: int, advance: Advance) -> Scores:
        course.model.train()
        totals = Totals(data.values.device)
        done = 0
        for group in self._groups(len(data), number):
            moments = [Moment(number, number - 1 + (done + place) / batches) for place in range(len(group))]
            before = buffers_of(course.model)
            learned = course.room.fitting(partial(self._learn, course, data, group, moments))
            course.share(before, shares(len(group[0]), course.room.least))
            with alike("step", self.seed, number, done):
                course.step(self.defence)
            for batch in learned:
                for parts, samples in batch:
                    totals.add(parts, samples)
                running = totals.scores()
                advance(running.loss, running.accuracy)
            done += len(group)
        return totals.everywhere()

    def _learn(
        self, course: Course, data: Split, group: Sequence[Tensor], moments: Sequence[Moment]
    ) -> list[list[tuple[Tensor, int]]]:
        """Gradients of the mean loss over the batches of a group, added to those that the parameters hold.

        Returns:
            By batch and pass, the parts as of `_regularized` and the number of samples; of this process alone.
        """
        together, room = sum(map(len, group)), course.room
        learned: list[list[tuple[Tensor, int]]] = []
        for index, moment in zip(group, moments, strict=True):
            learned.append([])
            for piece in room.pieces(part(index, room.least)):
                loss, parts = self._objective(course.model, self._augmented(data, piece, moment.epoch), moment)
                (loss * (len(piece) / together)).backward()
                learned[-1].append((parts, len(piece)))
        return learned

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
