"""When adaptive attacks look back: the checkpoints of APGD, at which SA-PGD halves its step as well."""

from __future__ import annotations


def checkpoints(steps: int) -> tuple[int, ...]:
    """Numbers of steps, increasing and at most `steps`, after which a search reconsiders its step size.

    The first period is 0.22 of all steps; each further one is shorter by 0.03 of them, down to 0.06 (Croce and Hein
    2020, section 3.2). Rounded down to whole steps, at least one each, as in the authors' code: 22, 41, 57, 70, 80, 87,
    93 and 99 of 100.
    """
    period, shorter, shortest = (max(steps * share // 100, 1) for share in (22, 3, 6))
    found, at = [], period
    while at <= steps:
        found.append(at)
        period = max(period - shorter, shortest)
        at += period
    return tuple(found)
