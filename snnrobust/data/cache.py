"""Arrays that take a while to make are made once and stored: `<parent>/<key>/<name>.npy`, opened memory-mapped.

A folder appears under its name only when it is complete (it is written beside it and renamed). Its `settings.json`
holds the settings that made it and the SHA-256 of every file, so that a damaged folder is noticed and made anew.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from snnrobust.data.dataset import DataError

Arrays = dict[str, NDArray[Any]]

MANIFEST = "settings.json"

log = logging.getLogger(__name__)


def cached(
    parent: Path, settings: Mapping[str, object], build: Callable[[], Arrays], setting: str = "dataset.root"
) -> Arrays:
    """The arrays of `build()`, from the cache where they are in it.

    Args:
        parent: folder of this kind of arrays; made if absent.
        settings: everything that the arrays depend on, as plain JSON values.
        build: makes the arrays; its names become file names.
        setting: which says where `parent` is, for messages.

    Raises:
        DataError: if the folder cannot be written; nothing half-written stays behind.
    """
    folder = parent / key(settings)
    stored = _read(folder, settings)
    if stored is not None:
        return stored
    unfinished = _beside(folder)
    try:
        # Before the work, so that a folder that cannot be written is reported at once.
        with writing(parent, setting):
            unfinished.mkdir(parents=True)
        arrays = build()
        with writing(parent, setting):
            _write(unfinished, settings, arrays)
            _publish(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return arrays


def key(settings: Mapping[str, object]) -> str:
    """16 hexadecimal digits of the SHA-256 of the settings as canonical JSON."""
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _read(folder: Path, settings: Mapping[str, object]) -> Arrays | None:
    """The arrays in `folder`; None if it is absent or damaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest == {"settings": settings, "sha256": _digests(folder)}:
            # Copy-on-write, because torch wants writable memory; the files stay as they are.
            return {file.stem: np.load(file, mmap_mode="c") for file in folder.glob("*.npy")}
        reason = "the files are not those that were written"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = str(error)
    log.warning("the cache %s cannot be used and is made anew: %s", folder, reason)
    return None


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for file in folder.glob("*.npy"):
        with file.open("rb") as content:
            digests[file.name] = hashlib.file_digest(content, "sha256").hexdigest()
    return digests


def _write(folder: Path, settings: Mapping[str, object], arrays: Arrays) -> None:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    manifest = {"settings": settings, "sha256": _digests(folder)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _publish(unfinished: Path, folder: Path) -> None:
    """Gives the finished folder its name, in place of a damaged one."""
    old = _beside(folder)
    # Usually there is none.
    with suppress(FileNotFoundError):
        folder.rename(old)
    shutil.rmtree(old, ignore_errors=True)
    try:
        unfinished.rename(folder)
    except OSError as error:
        # Another process has put the same arrays there in the meantime: both are as good.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _beside(folder: Path) -> Path:
    """A new name on the same disk, which no other process chooses."""
    return folder.with_name(f".{folder.name}.{os.getpid()}.{uuid4().hex}")


@contextmanager
def writing(parent: Path, setting: str) -> Iterator[None]:
    """Turns an `OSError` of its body into a `DataError`: the cache cannot be written.

    Args:
        parent: folder of the cache.
        setting: which says where it is.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        expected = f"expected a folder that can be written, with enough space ({setting})"
        raise DataError(f"cannot write the cache {parent}: {reason}; {expected}") from error
