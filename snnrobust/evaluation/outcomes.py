"""Outcomes per sample and attack, and the worst cases that they determine."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

CLEAN = "clean"
BROKEN, ROBUST, NOT_ATTACKED = 0, 1, -1
"""Outcomes: misclassified; correct; left alone, since another attack of the same worst case had broken it already."""


def worst_case(outcomes: Mapping[str, Tensor], *names: str) -> Tensor:
    """`[N]` bool: correct on the clean input and under every one of the named attacks.

    Args:
        outcomes: `[N]` int8 by name, with `clean` among them.
        names: attacks (`pgd`), or one estimator of an attack (`pgd/rate`).

    Raises:
        ValueError: if a sample was not attacked by one of them and broken by none, so that the answer is not known.
    """
    table = torch.stack([outcomes[name] for name in (CLEAN, *names)])
    broken = (table == BROKEN).any(0)
    unknown = (table == NOT_ATTACKED).any(0) & ~broken
    if bool(unknown.any()):
        missing = [name for name in names if bool((outcomes[name][unknown] == NOT_ATTACKED).any())]
        raise ValueError(
            f"{int(unknown.sum())} samples were left alone by {', '.join(missing)}, since others had broken them; "
            "add those to the worst case, or evaluate with evaluation.exhaustive=true"
        )
    return ~broken


def share(bits: Tensor) -> float:
    """A count over N."""
    return int(bits.sum()) / len(bits)
