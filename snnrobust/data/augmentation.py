"""What training inputs go through before a network learns from them: random changes that keep the class.

An augmentation works on whole batches, on whatever device they are, in pixel space: the normalisation is inside the
model. Its draws are keyed by the sample's position in its split, so that a sample is changed in the same way whatever
the batch size is and whichever samples stand beside it. Validation and test are never augmented.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


class Augmentation(ABC):
    """A random change of inputs. Subclasses are frozen dataclasses; their fields are the settings of the yaml."""

    @abstractmethod
    def __call__(self, x: Tensor, index: Tensor, *stream: object) -> Tensor:
        """The changed inputs, a new tensor (or `x` itself where nothing changes) of the same shape and dtype.

        Args:
            x: images `[B, C, H, W]` or event frames `[B, T, C, H, W]` in [0, 1]; left as they are.
            index: positions of the samples in their split, `[B]` int64, on any device.
            stream: words that name the draws; sample b uses the stream `(*stream, index[b])`.

        Raises:
            ValueError: in one line that begins with a setting, if it does not fit the shape.
        """

    def refuse_misfit(self, shape: tuple[int, ...]) -> None:
        """Tries it on an input of zeros, for which no data have to be there.

        Args:
            shape: of one input, `(C, H, W)` or `(T, C, H, W)`.

        Raises:
            ValueError: in one line that begins with a setting, if it does not fit the shape.
        """
        self(torch.zeros(1, *shape), torch.zeros(1, dtype=torch.long), "trial")


@dataclass(frozen=True)
class NoAugmentation(Augmentation):
    """Inputs as they are."""

    def __call__(self, x: Tensor, index: Tensor, *stream: object) -> Tensor:
        return x


NONE = NoAugmentation()


@dataclass(frozen=True)
class Composed(Augmentation):
    """Several augmentations, one after the other.

    Args:
        operations: by name, in the order in which they are applied; each has a stream of its own.
    """

    operations: Mapping[str, Augmentation]

    def __call__(self, x: Tensor, index: Tensor, *stream: object) -> Tensor:
        for name, operation in self.operations.items():
            with named(name):
                x = operation(x, index, *stream, name)
        return x

    def refuse_misfit(self, shape: tuple[int, ...]) -> None:
        refuse_misfits(self.operations, shape)


def refuse_misfits(operations: Mapping[str, Augmentation], shape: tuple[int, ...]) -> None:
    """As `Augmentation.refuse_misfit`, for all of several."""
    for name, operation in operations.items():
        with named(name):
            operation.refuse_misfit(shape)


@contextmanager
def named(name: str) -> Iterator[None]:
    """A setting that one of several operations complains of is given with its path."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"operations.{name}.{error}") from error
