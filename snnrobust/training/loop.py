"""The one training loop."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snnrobust.attacks.guard import untouched
from snnrobust.data.augmentation import NONE, Augmentation
from snnrobust.data.dataset import Batch, Split
from snnrobust.randomness import generator
from snnrobust.regularizers.base import Regularizer
from snnrobust.schema import ConfigError
from snnrobust.settings import LeftOpenFraction, NonNegative, Positive, PositiveInt
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.training.defences import Defence


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how fast.

    Args:
        optimizer: Adam, or SGD with momentum 0.9.
        epochs: passes over the training split.
        lr: initial learning rate.
        final_lr: the last learning rate as a share of the first; in between it follows half a cosine, per step.
        batch_size: samples per step; a single sample left over at the end of an epoch is left out.
        weight_decay: l2 penalty of the optimizer.
    """

    optimizer: Literal["adam", "sgd"] = "adam"
    epochs: PositiveInt = 20
    lr: Positive = 0.005
    final_lr: LeftOpenFraction = 0.01
    batch_size: PositiveInt = 64
    weight_decay: NonNegative = 0.0


@dataclass(frozen=True)
class Scores:
    """Means over samples: the objective (cross-entropy plus weighted regularizer) and its parts, and accuracy."""

    loss: float
    cross_entropy: float
    regularizer: float
    accuracy: float


@dataclass(frozen=True)
class Epoch:
    """What one epoch brought; `epoch` counts from 1."""

    epoch: int
    lr: float
    train: Scores
    validation: Scores


@dataclass(frozen=True)
class Trained:
    """The epoch with the lowest validation objective (the earlier one on a tie), and its weights on the CPU."""

    best: Epoch
    state: dict[str, Tensor]


class Diverged(Exception):
    """Training met a loss that is not finite: one line that says when."""


Advance = Callable[[float, float], None]
"""Called after each step with loss and accuracy of the epoch so far."""
Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""Opened with the name of the phase and its number of steps."""


def silent(name: str, steps: int) -> AbstractContextManager[Advance]:
    """A `Progress` that shows nothing."""
    return nullcontext(lambda _loss, _accuracy: None)


@dataclass(frozen=True)
class Trainer:
    """Minimises `CE(model(x'), y) + weight * R` over the training split, augmented, with `x'` from the defence."""

    settings: TrainingSettings
    regularizer: Regularizer
    defence: Defence
    seed: int
    augmentation: Augmentation = NONE

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
            Diverged: if the loss or the weights become NaN or infinite.
            ConfigError: if batch norm sees a single value per channel.
        """
        steps = self.settings.epochs * sum(1 for _ in self._order(len(train), epoch=1))
        optimizer = self._optimizer(model)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._cosine(steps))
        trained: Trained | None = None
        with progress("train", steps) as advance:
            for number in range(1, self.settings.epochs + 1):
                lr = float(schedule.get_last_lr()[0])
                scores = self._train_epoch(model, train, number, optimizer, schedule, advance)
                epoch = Epoch(number, lr, scores, self.score(model, validation))
                _refuse_divergence(model, epoch)
                on_epoch(epoch)
                if trained is None or epoch.validation.loss < trained.best.validation.loss:
                    trained = Trained(epoch, _state(model))
        assert trained is not None
        return trained

    def score(self, model: SpikingClassifier, data: Split) -> Scores:
        """The objective on `data` in eval mode, on the clean inputs; the model is left as it was."""
        totals = _Totals()
        with untouched(model):
            for batch in data.batches(self.settings.batch_size):
                _, parts = self._objective(model, batch.x, batch.y)
                totals.add(parts, len(batch.x))
        return totals.scores()

    def _train_epoch(
        self,
        model: SpikingClassifier,
        data: Split,
        number: int,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        advance: Advance,
    ) -> Scores:
        model.train()
        totals = _Totals()
        for batch in self._shuffled(data, number):
            with _one_line(self.settings.batch_size, len(batch.y)):
                x = self.defence(model, batch.x, batch.y, batch.index)
                loss, parts = self._objective(model, x, batch.y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            totals.add(parts, len(x))
            running = totals.scores()
            advance(running.loss, running.accuracy)
        return totals.scores()

    def _objective(self, model: SpikingClassifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The loss with its graph, and `[4]` detached: loss, cross-entropy, regularizer, accuracy."""
        regularized = self.regularizer.weight > 0
        x = x.detach().requires_grad_(regularized and self.regularizer.needs_input_gradient)
        logits = model(x)
        ce = loss = F.cross_entropy(logits, y)
        term = torch.zeros_like(ce)
        if regularized:
            term = self.regularizer(model, x, y, logits)
            loss = ce + self.regularizer.weight * term
        accuracy = (logits.argmax(1) == y).to(ce.dtype).mean()
        return loss, torch.stack([loss, ce, term, accuracy]).detach()

    def _shuffled(self, data: Split, epoch: int) -> Iterator[Batch]:
        for index in self._order(len(data), epoch):
            batch = data.batch(index)
            yield replace(batch, x=self.augmentation(batch.x, index, "augmentation", self.seed, epoch))

    def _order(self, samples: int, epoch: int) -> Iterator[Tensor]:
        """Index sets of the steps of an epoch."""
        order = torch.randperm(samples, generator=generator("order", self.seed, epoch))
        for index in order.split(self.settings.batch_size):
            if len(index) > 1 or self.settings.batch_size == 1 or samples == 1:
                yield index

    def _optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        lr, decay = self.settings.lr, self.settings.weight_decay
        if self.settings.optimizer == "adam":
            return torch.optim.Adam(model.parameters(), lr, weight_decay=decay)
        return torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=decay)

    def _cosine(self, steps: int) -> Callable[[int], float]:
        final = self.settings.final_lr
        return lambda step: final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))


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
            raise Diverged(f"{what} loss is {value} in epoch {epoch.epoch}: try a smaller training.lr")
    if not all(bool(t.isfinite().all()) for t in model.state_dict().values() if t.is_floating_point()):
        raise Diverged(f"weights are not finite after epoch {epoch.epoch}: try a smaller training.lr")


class _Totals:
    """Sums of the parts of the objective over samples, kept as one tensor one copy to the host per look."""

    def __init__(self) -> None:
        self.sums: Tensor | float = 0.0
        self.samples = 0

    def add(self, parts: Tensor, samples: int) -> None:
        self.sums = self.sums + parts.double() * samples
        self.samples += samples

    def scores(self) -> Scores:
        assert isinstance(self.sums, Tensor)
        return Scores(*(self.sums / self.samples).tolist())


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: copy.deepcopy(tensor.detach().cpu()) for name, tensor in model.state_dict().items()}
