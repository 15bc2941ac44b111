"""The mean of several estimators' gradients, as one gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snnrobust.estimators.base import Estimator, View
from snnrobust.estimators.replica import replica
from snnrobust.spiking.classifier import Classifier


@dataclass(frozen=True)
class Mixed(Estimator):
    """The input gradients of several estimators, averaged (HART's MIX attack: hart and triangle; Hao et al. 2024).

    A stochastic model draws once for each of them; the logits are those of the first.

    Args:
        estimators: by name.
        normalize: each gradient is first scaled to l_2 length 1, per sample; as published, it is not, so that the one
            of the largest scale counts most.

    Raises:
        ValueError: without estimators, or if one of them is an ensemble.
    """

    estimators: Mapping[str, Estimator]
    normalize: bool = False

    def __post_init__(self) -> None:
        nested = [name for name, estimator in self.estimators.items() if estimator.members()]
        if not self.estimators or nested:
            raise ValueError(f"estimators: got {nested or 'none'}; allowed: one or more estimators, no ensembles")

    def __hash__(self) -> int:
        return hash((frozenset(self.estimators.items()), self.normalize))

    @contextmanager
    def applied(self, model: Classifier) -> Iterator[Classifier]:
        with ExitStack() as stack:
            # Each on modules of its own, so that all are open, and keep their memory, as long as this is.
            views = [stack.enter_context(one.applied(replica(model, {}))) for one in self.estimators.values()]

            def call(x: Tensor) -> Tensor:
                logits: Tensor = _MeanGradient.apply(*(view(self._entry(x)) for view in views))
                return logits

            yield View(model, call)

    def _entry(self, x: Tensor) -> Tensor:
        if not self.normalize:
            return x
        entry: Tensor = _UnitGradient.apply(x, len(self.estimators))
        return entry


class _MeanGradient(torch.autograd.Function):
    """Forward the first of several equal tensors; backward an equal share to each."""

    @staticmethod
    def forward(ctx: Any, *logits: Tensor) -> Tensor:
        ctx.number = len(logits)
        return logits[0].clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        number: int = ctx.number
        return (grad / number,) * number


class _UnitGradient(torch.autograd.Function):
    """Identity; backward scales the gradient of each sample to l_2 length 1 / number, and leaves a zero one at zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, number: int) -> Tensor:
        ctx.number = number
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        rows = grad.flatten(1)
        tiny = torch.finfo(grad.dtype).tiny
        # By the largest entry first: squares of small gradients would vanish.
        rows = rows / rows.abs().amax(1, keepdim=True).clamp_min(tiny)
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        return (rows / (ctx.number * length.clamp_min(tiny))).view_as(grad), None
