"""Files that are whole or absent: written under a temporary name, flushed, then renamed."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replaces `path` by `content`; on any error the old file is still there and no temporary one is left.

    Raises:
        OSError: if the folder cannot be written or the disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        _write(path, data)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write_checked(path: Path, content: bytes) -> None:
    """Writes as `write_atomically` does, and reads it again.

    Raises:
        OSError: if it cannot be written, or something else comes back.
    """
    write_atomically(path, content)
    if path.read_bytes() != content:
        raise OSError(errno.EIO, "reads back as something else than was written", str(path))


def _write(path: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def remove_unfinished(path: Path) -> None:
    """Removes what processes have left that were killed while they wrote `path`; nobody may be writing it now."""
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON that any reader accepts: NaN and infinities, which JSON lacks, become null."""
    write_atomically(path, json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value
