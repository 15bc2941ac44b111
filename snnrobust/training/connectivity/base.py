"""What a connectivity is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn


class Wiring:
    """The connections of one network in training; this one leaves all of them alone."""

    def before_step(self) -> None:
        """Called with the gradients of a step in place, before they are clipped and followed."""

    def after_step(self, lr: float) -> None:
        """Called without a graph when the optimizer has changed the weights.

        Args:
            lr: learning rate of that step, of the first group of parameters.
        """


class Connectivity(ABC):
    """Which connections there are while a network trains. Subclasses are frozen dataclasses."""

    @abstractmethod
    def wire(self, model: nn.Module, seed: int) -> Wiring:
        """Takes a network as it is before its training.

        Args:
            model: with the weights that it begins with, on the device on which it trains.
            seed: of what is drawn.

        Raises:
            ValueError: in one line, if the network cannot be wired like that.
        """


class Free(Connectivity):
    """Every weight trains."""

    def wire(self, model: nn.Module, seed: int) -> Wiring:
        return Wiring()
