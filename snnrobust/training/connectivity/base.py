"""What a connectivity is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from snnrobust.spiking.synapses import synapses


class Wiring:
    """The connections of one network in training; this one leaves all of them alone."""

    def before_step(self) -> None:
        """Called with the gradients of a step in place, before they are clipped and followed."""

    def after_step(self, optimizer: Optimizer) -> None:
        """Called without a graph when the weights have changed, by the optimizer and by the defence.

        Args:
            optimizer: with its state; its groups still have the learning rate of that step.
        """

    def state(self) -> dict[str, Any]:
        """What it knows beside the weights, as tensors and plain containers."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave; the weights are those of that time already."""


class Connectivity(ABC):
    """Which connections there are while a network trains. Subclasses are frozen dataclasses."""

    @abstractmethod
    def wire(self, model: nn.Module, seed: int) -> Wiring:
        """Takes a network as it is before its training.

        Args:
            model: with the weights that it begins with, on the device on which it trains.
            seed: of what is drawn.
        """


class Free(Connectivity):
    """Every weight trains."""

    def wire(self, model: nn.Module, seed: int) -> Wiring:
        return Wiring()


def trained_synapses(model: nn.Module) -> list[Tensor]:
    """The weights of convolutions and linear layers that train, each once, even if layers share it."""
    return [*{id(weight): weight for weight in synapses(model).values() if weight.requires_grad}.values()]


def silence(weight: Tensor, absent: Tensor) -> None:
    """Sets the gradient of absent connections to zero, so that neither clipping nor an optimizer hears of them.

    Args:
        weight: whose gradient it is, if it has one.
        absent: bool, of its shape.
    """
    if weight.grad is not None:
        weight.grad.masked_fill_(absent, 0)
