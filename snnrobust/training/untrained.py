"""No training: the weights stay as they begin."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Untrained:
    """Stands where the settings of a training stand, for weights that `start` brings."""
