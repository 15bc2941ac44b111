"""Modules that draw at random."""

from __future__ import annotations

from torch import nn


class Drawing(nn.Module):
    """A module of a network that may draw, from the streams of `randomness.fresh`.

    What holds it asks whether it draws in eval mode, which makes a classifier stochastic.
    """

    @property
    def stochastic(self) -> bool:
        """True if it draws in eval mode."""
        return False
