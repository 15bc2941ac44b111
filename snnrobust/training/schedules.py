"""Schedules of the learning rate."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from snnrobust.settings import Fraction, NonNegative, Positive


class Running(Protocol):
    """A schedule at work on an optimizer; its state can be saved."""

    def step(self) -> None:
        """Called after every step of the optimizer."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class Schedule(ABC):
    """How the learning rate of every parameter group goes on from that of the optimizer."""

    @abstractmethod
    def start(self, optimizer: Optimizer, epochs: int, per_epoch: int) -> Running:
        """The schedule of one training.

        Args:
            optimizer: its learning rates are changed.
            epochs: of the training.
            per_epoch: steps of the optimizer in each.
        """


class _Factor(Schedule):
    """A factor of the initial learning rate that depends on the epochs that are over, with a linear warm-up."""

    warmup: float

    @abstractmethod
    def after(self, elapsed: float, epochs: int) -> float:
        """For `elapsed` epochs, with the part of the one that is going on, once the warm-up is over."""

    def factor(self, elapsed: float, epochs: int) -> float:
        """`elapsed / warmup` during the warm-up."""
        return self.after(elapsed, epochs) if elapsed >= self.warmup else elapsed / self.warmup

    def start(self, optimizer: Optimizer, epochs: int, per_epoch: int) -> Running:
        return LambdaLR(optimizer, lambda step: self.factor(step / per_epoch, epochs))

    def _done(self, elapsed: float, epochs: int) -> float:
        """Share of the time after the warm-up."""
        return min((elapsed - self.warmup) / max(epochs - self.warmup, 1e-9), 1.0)


@dataclass(frozen=True)
class Cosine(_Factor):
    """A linear rise over the warm-up, then half a cosine down to the final share (Loshchilov and Hutter 2017).

    Args:
        final: the last learning rate as a share of the first.
        warmup: epochs.
    """

    final: Fraction = 0.01
    warmup: NonNegative = 0.0

    def after(self, elapsed: float, epochs: int) -> float:
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * self._done(elapsed, epochs)))


@dataclass(frozen=True)
class Linear(_Factor):
    """A linear rise over the warm-up, then a straight line down to the final share.

    Args:
        final: the last learning rate as a share of the first.
        warmup: epochs.
    """

    final: Fraction = 0.0
    warmup: NonNegative = 0.0

    def after(self, elapsed: float, epochs: int) -> float:
        return 1 - (1 - self.final) * self._done(elapsed, epochs)


@dataclass(frozen=True)
class Constant(_Factor):
    """A linear rise over the warm-up, then the learning rate of the optimizer.

    Args:
        warmup: epochs.
    """

    warmup: NonNegative = 0.0

    def after(self, elapsed: float, epochs: int) -> float:
        return 1.0


@dataclass(frozen=True)
class Steps(_Factor):
    """A linear rise over the warm-up; each milestone that is reached multiplies the learning rate once more.

    Args:
        milestones: epochs that are over by then.
        by: what it multiplies by.
        warmup: epochs.
    """

    milestones: tuple[Positive, ...] = (100.0, 150.0)
    by: Fraction = 0.1
    warmup: NonNegative = 0.0

    def after(self, elapsed: float, epochs: int) -> float:
        return float(self.by ** sum(elapsed >= milestone for milestone in self.milestones))


@dataclass(frozen=True)
class PerEpoch(Schedule):
    """Any scheduler of torch that goes by epochs.

    Args:
        scheduler: called with the optimizer; stepped after every epoch, without a measure.
    """

    scheduler: Callable[[Optimizer], LRScheduler]

    def start(self, optimizer: Optimizer, epochs: int, per_epoch: int) -> Running:
        return _EveryEpoch(self.scheduler(optimizer), per_epoch)


class _EveryEpoch:
    """Hands on the last step of every epoch alone."""

    def __init__(self, scheduler: LRScheduler, per_epoch: int) -> None:
        self.scheduler = scheduler
        self.per_epoch = per_epoch
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps % self.per_epoch == 0:
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps = state_dict["steps"]
        self.scheduler.load_state_dict(state_dict["scheduler"])
