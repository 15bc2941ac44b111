"""Which of several points no other one beats."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[Sequence[float]], larger_is_better: Sequence[bool]) -> list[bool]:
    """For each point, whether none is at least as good in every objective and better in one. Equal points share it."""
    signs = [1 if larger else -1 for larger in larger_is_better]
    signed = [tuple(sign * value for sign, value in zip(signs, point, strict=True)) for point in points]
    best: list[tuple[float, ...]] = []
    for point in sorted(set(signed), reverse=True):  # whoever beats a point comes before it
        if not any(_covers(other, point) for other in best):
            best.append(point)
    chosen = set(best)
    return [point in chosen for point in signed]


def _covers(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True))
