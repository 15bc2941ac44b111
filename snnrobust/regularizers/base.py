"""What a regularizer is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from snnrobust.spiking.classifier import Classifier
from snnrobust.spiking.recording import Layer


@dataclass(frozen=True)
class Pass:
    """The forward pass of a training step to which a regularizer is added.

    Args:
        clean: `[B, ...]`, the samples of the batch as they are (augmented).
        x: `[B, ...]`, what went through the model: the same, or what a defence made of it. Requires a gradient if the
            regularizer asks for one.
        y: `[B]`, true classes.
        index: `[B]`, positions of the samples in their split; draws are keyed by them.
        logits: `[B, K]`, with their graph.
        layers: the spiking layers in the order in which they ran, if the regularizer asks for them.
        epoch: number of the epoch, from 1; 0 where nothing is trained.
    """

    clean: Tensor
    x: Tensor
    y: Tensor
    index: Tensor
    logits: Tensor
    layers: Sequence[Layer] = ()
    epoch: int = 0


class Regularizer(ABC):
    """A non-negative term `R` of the training loss, `loss + weight * R`. With weight 0 it is not called at all.

    Subclasses are frozen dataclasses.
    """

    weight: float
    """Factor of the term in the loss."""
    warmup: float
    """Epochs over which the weight rises from 0; 0 for none."""

    @property
    def needs_input_gradient(self) -> bool:
        """True if the inputs of the pass must require a gradient."""
        return False

    @property
    def needs_layers(self) -> bool:
        """True if the pass must be recorded: of plain operations, that can be differentiated twice."""
        return False

    def weight_at(self, elapsed: float) -> float:
        """The weight after `elapsed` epochs (not rounded): linear up to `warmup`, then constant."""
        return self.weight * (1.0 if elapsed >= self.warmup else elapsed / self.warmup)

    @abstractmethod
    def __call__(self, model: Classifier, at: Pass) -> Tensor:
        """The term, a scalar with its graph; further forward passes of `model` are the regularizer's own."""
