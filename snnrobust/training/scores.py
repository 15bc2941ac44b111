"""What an epoch brought."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snnrobust import distributed


@dataclass(frozen=True)
class Scores:
    """Means over samples.

    Args:
        loss: of the defence, plus the weighted regularizer. On validation data: cross-entropy on clean samples, plus
            the regularizer with its full weight.
        cross_entropy: of the pass that the regularizer is added to.
        regularizer: the term, without its weight; 0 while the weight is 0.
        accuracy: of the same pass.
    """

    loss: float
    cross_entropy: float
    regularizer: float
    accuracy: float


@dataclass(frozen=True)
class Epoch:
    """What one epoch brought; `epoch` counts from 1.

    Args:
        epoch: its number.
        lr: learning rate at its beginning, of the first group of parameters.
        train: in training mode, on what the defence made of the samples.
        validation: in eval mode, on clean samples.
        robust_accuracy: under the attack of the validation; None if there is none.
    """

    epoch: int
    lr: float
    train: Scores
    validation: Scores
    robust_accuracy: float | None = None


class Totals:
    """Sums of the parts of the objective over samples, kept as one tensor, copied to the host once per look."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)
        self.samples = 0

    def add(self, parts: Tensor, samples: int) -> None:
        self.sums = self.sums + parts.double() * samples
        self.samples += samples

    def scores(self) -> Scores:
        """Of what this process has seen."""
        return Scores(*(self.sums / self.samples).tolist())

    def everywhere(self) -> Scores:
        """Of what all processes have seen, the same in all of them."""
        whole = torch.cat([self.sums, self.sums.new_tensor([self.samples])])
        distributed.add_up([whole])
        return Scores(*(whole[:-1] / whole[-1]).tolist())
