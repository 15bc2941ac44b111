"""Backpropagation through time with a surrogate derivative (STBP): the model's own, or any other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from snnrobust.estimators.base import LayerEstimator, Rule, Trace
from snnrobust.spiking import surrogate as shapes
from snnrobust.spiking.classifier import Classifier
from snnrobust.spiking.neuron import TRAINED_RULE, Neuron


@dataclass(frozen=True)
class _ThroughTime(Rule):
    surrogate: shapes.Surrogate

    pooled = True

    def backward(self, grad: Tensor, trace: Trace) -> Tensor:
        return trace.through_time(grad, self.surrogate)


@dataclass(frozen=True)
class Trained(LayerEstimator):
    """The gradient that the model trains with; the only one for models without neurons of this package."""

    def rule(self) -> Rule:
        return TRAINED_RULE

    @contextmanager
    def applied(self, model: Classifier) -> Iterator[Classifier]:
        if isinstance(model, nn.Module) and any(isinstance(module, Neuron) for module in model.modules()):
            with super().applied(model) as view:
                yield view
        else:
            yield model


TRAINED = Trained()
"""The default of every attack."""


@dataclass(frozen=True)
class Surrogate(LayerEstimator):
    """Backpropagation through time, `ds/du` replaced by a surrogate derivative; the reset as the neuron has it.

    Args:
        surrogate: the derivative, of any shape and width.
    """

    surrogate: shapes.Surrogate

    def rule(self) -> Rule:
        return _ThroughTime(self.surrogate)
