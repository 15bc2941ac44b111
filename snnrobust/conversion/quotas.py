"""How many connections each layer keeps, so that all layers together keep exactly what is asked."""

from __future__ import annotations

from collections.abc import Sequence


def remaining(sparsity: float, sizes: Sequence[int], there: Sequence[int]) -> int:
    """The number of connections that stay, of all layers together: `round((1 - sparsity) N)` of the N weights.

    Args:
        sparsity: share of absent weights, in [0, 1); 0 takes nothing away, from a sparse network either.
        sizes: weights by layer, absent ones included.
        there: those that are not absent.

    Raises:
        ValueError: in one line, if there is nothing to prune, if layers would be left without a connection, or if more
            than asked are absent already.
    """
    total, present, layers = sum(sizes), sum(there), sum(count > 0 for count in there)
    if layers == 0:
        raise ValueError("start.source: has no connections to prune; allowed: runs with convolutions or linear layers")
    if sparsity == 0:
        return present
    kept = round((1 - sparsity) * total)
    if kept < layers:
        raise ValueError(
            f"start.sparsity: got {sparsity:g}, which leaves {kept} of {total} connections for {layers} layers; "
            "allowed: what leaves each of them one"
        )
    if kept > present:
        raise ValueError(
            f"start.sparsity: got {sparsity:g}; allowed: at least {1 - present / total:.6g}, the sparsity of the "
            "source, or 0 for the source as it is"
        )
    return kept


def apportioned(ideal: Sequence[float], sizes: Sequence[int], total: int) -> list[int]:
    """Whole numbers that add up to `total`, in proportion to `ideal` as far as there is room.

    Each lies between 1 and the size, or is 0 where the size is. What proportion leaves below a whole number goes to
    the largest remainders, the earlier one on a tie.

    Args:
        ideal: positive, by layer.
        sizes: the most that a layer can take.
        total: at least as many as there are sizes above 0, at most their sum.
    """
    assert sum(size > 0 for size in sizes) <= total <= sum(sizes)
    exact = _bounded(ideal, sizes, _factor(ideal, sizes, total))
    counts = [int(share) for share in exact]
    order = sorted(range(len(sizes)), key=lambda i: counts[i] - exact[i])
    while (left := total - sum(counts)) > 0:
        for i in [i for i in order if counts[i] < sizes[i]][:left]:
            counts[i] += 1
    return counts


def _factor(ideal: Sequence[float], sizes: Sequence[int], total: int) -> float:
    """What `ideal` is multiplied by: the largest number with a bounded sum of at most `total`, but for rounding."""
    low, high = 0.0, max((size / share for size, share in zip(sizes, ideal, strict=True)), default=0.0)
    for _ in range(100):  # halves an interval of doubles until nothing lies between its ends
        middle = (low + high) / 2
        low, high = (middle, high) if sum(_bounded(ideal, sizes, middle)) <= total else (low, middle)
    return low


def _bounded(ideal: Sequence[float], sizes: Sequence[int], factor: float) -> list[float]:
    return [min(max(factor * share, 1.0), float(size)) for share, size in zip(ideal, sizes, strict=True)]
