"""What a gradient estimator is: another backward pass for the same forward pass, applied for a while."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snnrobust.spiking.classifier import Classifier
from snnrobust.spiking.dynamics import Membrane
from snnrobust.spiking.neuron import Neuron, Rule, Trace
from snnrobust.threat import Bounds


class Estimator(ABC):
    """How a spiking network is differentiated. Subclasses are frozen dataclasses."""

    @abstractmethod
    def applied(self, model: Classifier) -> AbstractContextManager[Classifier]:
        """A classifier with the logits of `model`, bit for bit, and the gradient of this estimator.

        `model` itself may carry the change while the context is open; it is as it was afterwards, also on error.
        Memory that an estimator keeps from one gradient to the next begins empty with each context, and belongs to
        positions in the batch: within a context, batches consist of the same samples in the same order.

        Raises:
            ValueError: if the model has no part that the estimator applies to.
        """

    def members(self) -> Mapping[str, Estimator]:
        """The estimators that this one stands for, by name: itself, unless it is an ensemble."""
        return {}


class LayerEstimator(Estimator):
    """An estimator that is a rule for every spiking layer."""

    @abstractmethod
    def rule(self) -> Rule:
        """The rule of one layer; called once per layer and context, so that it may keep memory."""

    @contextmanager
    def applied(self, model: Classifier) -> Iterator[Classifier]:
        neurons = neurons_of(model, type(self).__name__)
        rules = [self.rule() for _ in neurons]
        if any(rule.needs_membrane for rule in rules):
            membranes_of(neurons, type(self).__name__)
        before = [neuron.rule for neuron in neurons]
        try:
            for neuron, rule in zip(neurons, rules, strict=True):
                neuron.rule = rule
            yield model
        finally:
            for neuron, earlier in zip(neurons, before, strict=True):
                neuron.rule = earlier


def neurons_of(model: Classifier, wanted_by: str) -> list[Neuron]:
    """The spiking layers of a model.

    Raises:
        ValueError: if it has none.
    """
    modules = model.modules() if isinstance(model, nn.Module) else ()
    neurons = [module for module in modules if isinstance(module, Neuron)]
    if not neurons:
        raise ValueError(
            f"estimator: {wanted_by} replaces the derivative of snnrobust's own neurons, and {type(model).__name__} "
            "has none; allowed: trained (the model's own gradient)"
        )
    return neurons


def membranes_of(neurons: Iterable[Neuron], wanted_by: str) -> list[Membrane]:
    """The membranes of spiking layers, as their parameters stand.

    Raises:
        ValueError: if one has none.
    """
    found = []
    for neuron in neurons:
        with torch.no_grad():
            dynamics = neuron.dynamics
        if not isinstance(dynamics, Membrane):
            raise ValueError(
                f"estimator: {wanted_by} is defined for membranes that charge and are reset, which "
                f"{type(neuron).__name__} does not have; allowed: trained, surrogates of any shape, pdsg, assg"
            )
        found.append(dynamics)
    return found


@dataclass(frozen=True)
class View:
    """A classifier with the interface of another one and a call of its own."""

    model: Classifier
    call: Callable[[Tensor], Tensor]

    @property
    def bounds(self) -> Bounds:
        return self.model.bounds

    @property
    def stochastic(self) -> bool:
        return self.model.stochastic

    def __call__(self, x: Tensor) -> Tensor:
        return self.call(x)


REPEATING: ContextVar[bool] = ContextVar("repeating", default=False)
"""True during the second and further gradients at the same point (EOT): memory is then not updated."""


@contextmanager
def repeating(number: int) -> Iterator[None]:
    """Marks the gradient number `number` (from 0) at one point."""
    token = REPEATING.set(number > 0)
    try:
        yield
    finally:
        REPEATING.reset(token)


__all__ = ["REPEATING", "Estimator", "LayerEstimator", "Neuron", "Rule", "Trace", "View", "neurons_of", "repeating"]
