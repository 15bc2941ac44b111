"""A training step: with SR, the passes that it consists of, without SR, with its exact form, in the published style."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.networks import STEPS, Case, analog
from benchmarks.pairs import Timing
from benchmarks.published import published, sample_by_sample
from snnrobust.models.convnet import ConvNet
from snnrobust.regularizers.base import Pass
from snnrobust.regularizers.gradient_sparsity import GradientSparsity
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.neuron import IF
from snnrobust.spiking.recording import recorded
from snnrobust.spiking.surrogate import triangle

WEIGHT = 0.01
SR = GradientSparsity(weight=WEIGHT)
EXACT = GradientSparsity(weight=WEIGHT, method="exact")
NEURON = partial(IF, surrogate=triangle())
CASES = (
    Case("ConvNet of the digits (16, 32 channels), 1x8x8", partial(ConvNet, (1, 8, 8), 10, NEURON), (1, 8, 8), 64),
    Case(
        "ConvNet (32, 64 channels), 1x28x28",
        partial(ConvNet, (1, 28, 28), 10, NEURON, channels=(32, 64)),
        (1, 28, 28),
        64,
    ),
)


def verdict(timings: list[Timing]) -> str:
    """What the step of SR costs, in the order of `training_steps`."""
    _, bare, plain, exact, theirs, relu = (1 / t.ratio for t in timings)
    return (
        f"A step with SR takes {bare:.2f} of the sum of its passes (two forwards, one backward to the input, one "
        f"through both; wanted: at most 1.15), {plain:.1f} steps of cross-entropy alone, and {relu:.2f} of the same "
        f"step with ReLU for neurons; it is {1 / theirs:.1f} times as fast as the published style (wanted: at least "
        f"2.2), and {1 / exact:.1f} times as fast as the exact form."
    )


def training_steps(case: Case) -> Mapping[str, Callable[[], object]]:
    """Forward, loss and backward of one step each; the weights stay as they are."""
    model, (x, y) = case.model().train(), case.data()
    theirs, relu = published(model).train(), analog(model, STEPS).train()
    return {
        "SR": lambda: _ours(model, x, y),
        "the bare passes of SR": lambda: _bare(model, x),
        "cross-entropy alone": lambda: _plain(model, x, y),
        "SR, exact": lambda: _exact(model, x, y),
        "SR, published style": lambda: _theirs(theirs, x, y),
        f"SR, ReLU for neurons, {STEPS} times the batch": lambda: _ours(relu, x, y),
    }


def _plain(model: nn.Module, x: Tensor, y: Tensor) -> None:
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()


def _ours(model: SpikingClassifier, x: Tensor, y: Tensor) -> None:
    model.zero_grad()
    here = x.detach().requires_grad_()
    logits = model(here)
    term = SR(model, Pass(x, here, y, torch.arange(len(y)), logits))
    (F.cross_entropy(logits, y) + WEIGHT * term).backward()


def _exact(model: SpikingClassifier, x: Tensor, y: Tensor) -> None:
    model.zero_grad()
    here = x.detach().requires_grad_()
    with recorded(model) as layers:
        logits = model(here)
    term = EXACT(model, Pass(x, here, y, torch.arange(len(y)), logits, tuple(layers)))
    (F.cross_entropy(logits, y) + WEIGHT * term).backward()


def _theirs(model: nn.Module, x: Tensor, y: Tensor) -> None:
    model.zero_grad()
    here = x.detach().requires_grad_()
    logits = model(here)
    (F.cross_entropy(logits, y) + WEIGHT * sample_by_sample(model, here, y, logits, SR.step)).backward()


def _bare(model: nn.Module, x: Tensor) -> None:
    """Two forwards, one backward to the input, one backward through both."""
    model.zero_grad()
    here = x.detach().requires_grad_()
    first = model(here)
    direction = torch.autograd.grad(first.sum(), here, retain_graph=True)[0]
    (first.sum() + model(x + SR.step * direction).sum()).backward()
