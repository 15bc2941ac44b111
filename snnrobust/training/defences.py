"""How the inputs of a training step are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from snnrobust.spiking.classifier import Classifier


class Defence(Protocol):
    """Returns the inputs that a training step learns from, for a batch with positions `index` in the split."""

    def __call__(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class NoDefence:
    """Training on the clean inputs."""

    def __call__(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        return x
