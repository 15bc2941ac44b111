"""Percentiles of layers with more entries than `torch.quantile` takes: exact, without sorting all of them."""

from __future__ import annotations

import math

from torch import Tensor

STRIDE = 997
"""Of the entries from which the percentile is estimated; prime, so that they come from all rows and channels."""


def percentile(values: Tensor, percent: float, copies: int = 1) -> Tensor:
    """The k-th smallest of all entries with `k = 1 + round(percent / 100 (n - 1))`, as robust conversion counts them.

    An entry, not a mean of two of them; `round` takes halves to the even number (Özdenizci and Legenstein 2024, arXiv
    2311.09266, and its code).

    Args:
        values: at least one entry, of any shape, not NaN.
        percent: in (0, 100]; 100 is the maximum.
        copies: how often every entry counts: n is `copies` times the number of values.

    Returns:
        A scalar.
    """
    rank = 1 + round(percent / 100 * (values.numel() * copies - 1))
    return smallest(values, -(-rank // copies))


def smallest(values: Tensor, k: int) -> Tensor:
    """The k-th smallest of all entries, k from 1.

    A bound from below, estimated from a few of the entries, leaves out most of those that are smaller. If it was too
    high, nothing is left out: the result is exact in any case.
    """
    flat = _flat(values)
    above = len(flat) - k + 1
    kept = flat[flat >= _bound(flat, k / len(flat))]
    if len(kept) < above:
        kept = flat
    return kept.kthvalue(len(kept) - above + 1).values


def _bound(flat: Tensor, share: float) -> Tensor:
    """With the given share of the entries below it, or somewhat less; four standard errors of the rank are allowed."""
    few = flat[::STRIDE]
    error = math.sqrt(len(few) * share * (1 - share))
    return few.kthvalue(max(1, math.floor(len(few) * share - 4 * error))).values


def _flat(values: Tensor) -> Tensor:
    """All entries in the order of memory, which is the cheapest, and the order does not matter here."""
    strides = values.stride()
    return values.permute(sorted(range(values.dim()), key=lambda d: -strides[d])).flatten()
