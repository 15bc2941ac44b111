"""Where a training leaves its state after every epoch, and finds it again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any


class Keeper(ABC):
    """Keeps the state of one training: tensors and plain containers, which can be read without running code."""

    @abstractmethod
    def load(self) -> Mapping[str, Any] | None:
        """What was saved last, by this process or an earlier one; None if there is nothing."""

    @abstractmethod
    def save(self, state: Mapping[str, Any]) -> None:
        """Replaces what was saved before; `epochs` in it is the number of those that are over.

        Raises:
            OSError: if it cannot be written; what was saved before is then still there.
        """

    @abstractmethod
    def __str__(self) -> str:
        """Where it is, for messages."""


class Forgetful(Keeper):
    """Keeps nothing: every training begins anew."""

    def load(self) -> None:
        return None

    def save(self, state: Mapping[str, Any]) -> None:
        return

    def __str__(self) -> str:
        return "nowhere"


FORGETFUL = Forgetful()
