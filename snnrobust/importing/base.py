"""What a format of published weights has to say for itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

State = Mapping[str, Tensor]
Given = Mapping[str, str]
"""Values of overrides by their keys."""
Parts = Sequence[tuple[str, str]]
"""Names of modules or tensors there and here; of several that fit a name, the first counts."""


@dataclass(frozen=True)
class Recognised:
    """What weights tell of their network.

    Args:
        models: choices of the group `model` that they may be; their user decides between several.
        settings: overrides that follow from names and shapes.
        parts: names of the modules there and here.
    """

    models: tuple[str, ...]
    settings: tuple[str, ...]
    parts: Parts


class Format(ABC):
    """How the code of one paper names the weights it saves, and what it leaves to its command line."""

    name: ClassVar[str]
    """On the command line."""
    about: ClassVar[str]
    """Networks and paper, in one line."""

    @abstractmethod
    def recognise(self, state: State, size: int) -> Recognised:
        """What the weights are.

        Args:
            state: as it was saved.
            size: height of the inputs of the dataset.

        Raises:
            ValueError: in one line, if they are none of the networks of this format.
            ConfigError: in one line, if the inputs have to be of another size.
        """

    @abstractmethod
    def defaults(self, state: State, given: Given, file: str) -> Sequence[str]:
        """Overrides for what weights do not tell, with the values of the paper.

        Args:
            state: as it was saved.
            given: what the user has said, and the choices of `model` and `dataset` in any case.
            file: its name, in which some authors say more.
        """

    def asks(self, state: State, given: Given) -> Mapping[str, Sequence[str]]:
        """Keys that neither the weights nor the paper decide, and what the user may say."""
        return {}


def classes_of(state: State) -> int:
    """K: the rows of the last matrix.

    Raises:
        ValueError: if there is none.
    """
    return int(_sized(state, 2)[-1].shape[0])


def channels_of(state: State) -> int:
    """Channels of the input: those that the first convolution sees.

    Raises:
        ValueError: if there is none.
    """
    return int(_sized(state, 4)[0].shape[1])


def _sized(state: State, dimensions: int) -> list[Tensor]:
    found = [tensor for tensor in state.values() if tensor.dim() == dimensions]
    if not found:
        raise ValueError(f"no tensor with {dimensions} dimensions; allowed: weights of a convolutional network")
    return found


def count(state: State, pattern: str, first: int = 0, step: int = 1) -> int:
    """How many of `pattern.format(first)`, `pattern.format(first + step)`, ... are there, without a gap."""
    number = 0
    while pattern.format(first + step * number) in state:
        number += 1
    return number


def width(state: State, name: str) -> int:
    """Output channels of a convolution, or rows of a matrix.

    Raises:
        ValueError: if it is absent, or neither.
    """
    if name not in state:
        raise ValueError(f"{name} is missing")
    if state[name].dim() not in (2, 4) or not state[name].numel():
        raise ValueError(f"{name} is {[*state[name].shape]}; allowed: weights of a convolution or a linear layer")
    return int(state[name].shape[0])


def under(parts: Parts, there: str, here: str) -> Parts:
    """The names of one block, with what stands before them."""
    return [(f"{there}.{a}", f"{here}.{b}") for a, b in parts]


def listed(values: Sequence[object]) -> str:
    """A list as overrides write it."""
    return f"[{','.join(map(str, values))}]"
