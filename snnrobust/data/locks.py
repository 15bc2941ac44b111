"""A lock on a folder, for processes that would make the same thing at the same time."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path, what: str) -> Iterator[bool]:
    """Holds a folder, made if absent, while no other process does; false where the file system has no locks.

    The lock is on the folder itself and ends with the process, however that ends.

    Args:
        folder: may be renamed or removed by the process that holds it.
        what: the others do meanwhile, up to the name of the folder, for the log.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            held = _locked(descriptor, folder, what)
            # The one that had the lock may have renamed the folder: then this is the lock of another place.
            if folder.exists() and os.path.samestat(os.fstat(descriptor), folder.stat()):
                yield held
                return
        finally:
            os.close(descriptor)


def _locked(descriptor: int, folder: Path, what: str) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("another process %s %s: waiting for it", what, folder)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        log.info("%s cannot be locked: %s", folder, error)
        return False
    return True
