"""What a defence is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from snnrobust.data.dataset import Batch
from snnrobust.regularizers.base import Pass
from snnrobust.spiking.classifier import SpikingClassifier

Look = Callable[[Tensor], Pass]
"""Puts inputs through the model in training mode, as the regularizer needs it."""


@dataclass(frozen=True)
class Moment:
    """Where a training stands before a step.

    Args:
        epoch: number of the epoch, from 1.
        elapsed: epochs that are over, with the part of this one.
    """

    epoch: int
    elapsed: float


class Defence(ABC):
    """How the loss of a training step is made of a batch. Subclasses are frozen dataclasses."""

    @abstractmethod
    def step(self, model: SpikingClassifier, batch: Batch, look: Look, moment: Moment) -> tuple[Tensor, Pass]:
        """The loss, a scalar with its graph, and the pass that the regularizer is added to.

        Args:
            model: in training mode, and left so.
            batch: augmented samples.
            look: called once, for the pass that is returned; further passes are forwards of `model`.
            moment: for what changes in the course of a training, and for draws, which differ from epoch to epoch.
        """

    def after_step(self, model: SpikingClassifier) -> None:
        """Called whenever the optimizer has changed the weights, without a graph."""
        return
