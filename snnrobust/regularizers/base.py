"""What a regularizer is."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from snnrobust.spiking.classifier import Classifier


class Regularizer(Protocol):
    """A non-negative term `R` of the training loss `CE + weight * R`. With weight 0 it is not called at all."""

    @property
    def weight(self) -> float: ...

    @property
    def needs_input_gradient(self) -> bool:
        """True if `x` must require a gradient when its logits are computed."""
        ...

    def __call__(self, model: Classifier, x: Tensor, y: Tensor, logits: Tensor) -> Tensor:
        """`logits` `[B, K]` are `model(x)` with their graph; returns a scalar."""
        ...
