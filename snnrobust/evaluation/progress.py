"""How an evaluation tells how far it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Advance = Callable[[int, float], None]
"""Called after each batch with the number of samples done and the accuracy so far."""
Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""Opened for each phase with its name and number of samples."""


def silent(name: str, samples: int) -> AbstractContextManager[Advance]:
    """A `Progress` that shows nothing."""
    return nullcontext(lambda _samples, _accuracy: None)
