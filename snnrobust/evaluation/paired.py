"""Which of two attacks breaks more of the same samples, so that chance alone is no answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from snnrobust.evaluation.outcomes import BROKEN, NOT_ATTACKED, ROBUST

LEVEL = 0.01
"""Chance of a false alarm, of all claims that are judged together."""
MARGIN = 0.02
"""Share of the samples below which a difference does not matter, however certain it is."""


@dataclass(frozen=True)
class Claim:
    """That `weaker` breaks no more samples than `stronger`.

    Args:
        weaker: name.
        stronger: name.
        of_weaker: outcomes `[M]` on samples that are correct on the clean input.
        of_stronger: outcomes on the same samples.
    """

    weaker: str
    stronger: str
    of_weaker: Tensor
    of_stronger: Tensor

    @property
    def known(self) -> bool:
        """False if either left a sample alone, so that its outcome is not known, or there are no samples."""
        unknown = (self.of_weaker == NOT_ATTACKED) | (self.of_stronger == NOT_ATTACKED)
        return len(unknown) > 0 and not bool(unknown.any())

    @property
    def against(self) -> int:
        """Samples that the weaker breaks and the stronger does not."""
        return int(((self.of_weaker == BROKEN) & (self.of_stronger == ROBUST)).sum())

    @property
    def excess(self) -> float:
        """By how much the weaker breaks more, as a share of the samples; negative where it breaks fewer."""
        return (2 * self.against - self._discordant) / len(self.of_weaker)

    @property
    def p(self) -> float:
        """Exact one-sided McNemar test: P(X >= against) for X from Binomial(samples that the two differ on, 1/2)."""
        return tail(self.against, self._discordant)

    @property
    def _discordant(self) -> int:
        return int((self.of_weaker != self.of_stronger).sum())


def refuted(claims: Sequence[Claim]) -> list[Claim]:
    """Those of the claims, all known, that do not hold; the level is divided by their number (Bonferroni)."""
    return [claim for claim in claims if claim.excess >= MARGIN and claim.p < LEVEL / len(claims)]


def tail(successes: int, trials: int) -> float:
    """`P(X >= successes)` for X from Binomial(trials, 1/2)."""
    whole = math.lgamma(trials + 1) - trials * math.log(2)
    logs = (whole - math.lgamma(k + 1) - math.lgamma(trials - k + 1) for k in range(successes, trials + 1))
    return min(1.0, math.fsum(map(math.exp, logs)))
