"""A command that several processes carry out together: the first one does what it says, the others compute along."""

from __future__ import annotations

import sys
from collections.abc import Callable

from snnrobust import distributed
from snnrobust.job import Job
from snnrobust.placement import Placement

INTERRUPTED = 130
"""Exit status of what the user has ended."""


def together(place: Placement, command: Callable[[], int]) -> int:
    """The exit status of this process.

    What is claimed, refused, written, shown and tracked is the matter of the first process. The others wait for the
    runs that it begins and compute their part of each. If one of them fails, all end.

    Args:
        place: of this process.
        command: what the first one carries out.
    """
    try:
        with distributed.joined(place):
            if place.rank > 0:
                return _follow()
            status = command()
            if status == 0:
                distributed.from_first(lambda: status)
            return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        kind = "" if isinstance(error, distributed.Lost) else f"{type(error).__name__}: "
        line = " ".join(f"{kind}{error}".split())
        print(f"snnrobust: process {place.rank} of {place.size}: {line}", file=sys.stderr)
        return 1


def _follow() -> int:
    """Does what the first process begins, until it says with which status to end."""
    while True:
        try:
            order: Job | int | None = distributed.from_first(lambda: None)
            if isinstance(order, Job):
                _along(order)
            elif order is not None:
                return order
        except distributed.Lost:  # of which the first process speaks, or whoever started the processes
            return 1


def _along(job: Job) -> None:
    from snnrobust.building import build, build_foreign
    from snnrobust.run import along

    along(job, build_foreign if "weights" in job.config else build)
