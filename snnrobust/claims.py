"""Exclusive claims on folders: a lock that the kernel takes back when its process ends, however that ends. Light."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TypeVar

POLL = 0.2
"""Seconds between two looks at a claim that somebody else holds."""
UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}

Result = TypeVar("Result")


class Busy(Exception):
    """Another process holds the claim: who, and since when."""


class Claim:
    """Holds a lock file for this process until it is released, at the latest at the end of its `with` block.

    The file stays, since removing it would let two processes hold two files of one name. On a file system that several
    machines share, the lock is as good as that file system's (NFS 4, GPFS, and Lustre mounted with `flock` have it).

    Args:
        path: of the lock file; its folder is made.

    Raises:
        Busy: if another process holds it.
        OSError: if the folder cannot be made, or its file system knows no locks.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "another process"
            self._file.close()
            if isinstance(error, BlockingIOError):
                raise Busy(owner) from None
            if error.errno in UNSUPPORTED:
                raise OSError(
                    error.errno, "a file system without locks; allowed: runs=FOLDER on another", str(path)
                ) from error
            raise
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}, since {_now()}\n")
        self._file.flush()

    def fileno(self) -> int:
        """Handed to a child process (`pass_fds`), it keeps the claim until that has ended too."""
        return self._file.fileno()

    def release(self) -> None:
        """Lets others have it; again is no error."""
        self._file.close()

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def holder(path: Path) -> str | None:
    """Who holds a lock file, and since when; None if nobody does."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return path.read_text().strip() or "another process"
    except OSError:
        return None
    return None


def patiently(attempt: Callable[[], Result], wait: bool) -> Result:
    """Calls until nobody is in the way any more.

    Raises:
        Busy: if somebody is, and `wait` is False.
    """
    while True:
        try:
            return attempt()
        except Busy:
            if not wait:
                raise
            time.sleep(POLL)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
