"""How far a conversion is."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


@contextmanager
def progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows recordings converted so far, on a terminal as a bar, elsewhere as lines of the log."""
    if not sys.stderr.isatty():
        start = time.perf_counter()
        log.info("converting %d recordings of %s", total, name)
        yield lambda _: None
        log.info("converted %d recordings of %s in %.1f s", total, name, time.perf_counter() - start)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("converting {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=total)
        yield lambda number: bar.advance(task, number)
