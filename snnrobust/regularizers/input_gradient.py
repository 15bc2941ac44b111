"""How long the gradient to the input is, sample by sample: by a finite difference, or differentiated twice.

The gradient is that of the sum over the batch. With batch norm in training mode a sample is normalised with its
neighbours, and its gradient contains what it does to them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from snnrobust.regularizers.base import Pass, Regularizer
from snnrobust.spiking.classifier import Classifier

Objective = Callable[[Tensor], Tensor]
"""Logits `[B, K]` to one value per sample, `[B]`."""
Norm = Literal[1, 2]
"""`l_1` or `l_2`."""


class InputGradient(Regularizer):
    """A function of the norms of the input gradient. Subclasses list the settings that stand here.

    `finite_difference`: a second pass, a step further in the direction in which the objective climbs fastest: by the
    sign of the gradient for `l_1` (Goodfellow et al. 2015), along the unit gradient for `l_2` (Finlay and Oberman
    2019), nowhere where the gradient is 0. The slope between the two passes stands for the norm; its own gradient flows
    through both, none through the direction. It is what the network really does over that distance. The step is not
    clipped to the range of the inputs.

    `exact`: the norm itself, differentiated twice (Drucker and LeCun 1992). Spikes have no derivative: the gradient is
    that of the surrogate, and its own derivative that of the surrogate's shape, which for the triangle is a constant of
    either sign and for the rectangle and the straight-through estimator 0.
    """

    method: Literal["finite_difference", "exact"]
    """How the norms are found."""
    step: float
    """h of the finite difference, in units of the input: of every entry for `l_1`, the `l_2` length for `l_2`."""
    statistics: Literal["update", "keep"]
    """Running statistics of batch norm in the second pass of a finite difference; of no effect if exact."""

    needs_input_gradient = True

    @property
    def needs_layers(self) -> bool:
        return self.method == "exact"

    @abstractmethod
    def __call__(self, model: Classifier, at: Pass) -> Tensor: ...

    def norms(self, model: Classifier, at: Pass, objective: Objective, norm: Norm) -> Tensor:
        """`[B]`: norms of the gradient of the summed objective; a finite difference may be negative."""
        if self.method == "exact":
            return exact(at, objective, norm)
        if self.statistics == "keep":
            with kept_statistics(model):
                return slopes(model, at, objective, norm, self.step)
        return slopes(model, at, objective, norm, self.step)


def exact(at: Pass, objective: Objective, norm: Norm) -> Tensor:
    """`[B]`: norms of the input gradient, with a graph of their own; the pass must be of plain operations."""
    gradient = torch.autograd.grad(objective(at.logits).sum(), at.x, create_graph=True)[0]
    lengths: Tensor = torch.linalg.vector_norm(gradient.flatten(1), norm, dim=1)
    return lengths


def slopes(model: Classifier, at: Pass, objective: Objective, norm: Norm, step: float) -> Tensor:
    """`[B]`: `(v(x + h d) - v(x)) / h` for the steepest direction `d` of unit size, detached."""
    here = objective(at.logits)
    gradient = torch.autograd.grad(here.sum(), at.x, retain_graph=True)[0]
    there = objective(model(at.x.detach() + step * steepest(gradient, norm)))
    return (there - here) / step


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """The direction whose product with the gradient `[B, ...]` is its norm: its sign, or the gradient at length 1.

    Samples without a gradient have the direction 0. Scaled first: squares of small gradients are 0 in float32.
    """
    if norm == 1:
        return gradient.sign()
    flat = gradient.flatten(1)
    largest = flat.abs().amax(1, keepdim=True)
    scaled = flat / torch.where(largest > 0, largest, 1.0)
    return F.normalize(scaled, dim=1).view_as(gradient)


@contextmanager
def kept_statistics(model: object) -> Iterator[None]:
    """Batch norm goes on normalising with the batch in training mode, and its running statistics stay as they are."""
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm)] if isinstance(model, nn.Module) else []
    before = [layer.track_running_stats for layer in layers]
    try:
        for layer in layers:
            layer.track_running_stats = False
        yield
    finally:
        for layer, tracked in zip(layers, before, strict=True):
            layer.track_running_stats = tracked


def objective_of(name: Literal["cross_entropy", "probability"], y: Tensor) -> Objective:
    """Cross-entropy, or the probability of the true class, sample by sample."""
    if name == "cross_entropy":
        return lambda logits: F.cross_entropy(logits, y, reduction="none")
    return lambda logits: logits.softmax(1).gather(1, y[:, None]).squeeze(1)
