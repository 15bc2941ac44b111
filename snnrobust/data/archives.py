"""Archives of datasets: checked against what their source states, and unpacked without leaving their folder."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO
from uuid import uuid4

from snnrobust.data.dataset import DataError
from snnrobust.data.locks import locked

DAMAGE = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, NotImplementedError)
"""What the standard library raises for an archive that is cut off or altered (with OSError for gzip and bzip2)."""

UNPACKING = ".unpacking."


def verify(path: Path, md5: str | None, size: int | None, source: str) -> None:
    """Compares a file with what its publisher states; None for what is not stated.

    Args:
        md5: 32 hexadecimal digits.
        size: in bytes.
        source: where the file comes from, for the message.

    Raises:
        DataError: if the file is absent, cannot be read or is another one; it says what was expected and found.
    """
    try:
        actual = path.stat().st_size
        if size is not None and actual != size:
            raise DataError(f"{path} has {actual} bytes: expected {size}; delete it and get it anew from {source}")
        digest = _md5(path) if md5 is not None else None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; it comes from {source}") from error
    if digest != md5:
        raise DataError(f"{path} has the MD5 {digest}: expected {md5}; delete it and get it anew from {source}")


def unpack(archive: Path, into: Path, holds: str) -> None:
    """Puts what is in a zip or tar file into the folder `into`, which is made if absent.

    The members are unpacked beside their place and renamed, so that nothing half unpacked has a final name. Files
    and folders at the top of the archive must not be there yet. Rights and owners in the archive are ignored.
    One process at a time unpacks into a folder, and removes what others that were killed have left.

    Args:
        holds: name of a file or folder at the top of the archive; where it is there, once the others are done, they
            have unpacked the archive, and nothing is left to do.

    Raises:
        DataError: if the archive is damaged, holds anything but files and folders within it (absolute names, `..`,
            links, devices), would replace something, or the folder cannot be written.
    """
    try:
        with locked(into, "unpacks an archive into") as alone:
            if alone:  # else those who left something may be alive, and each has a place of its own
                for left in into.glob(f"{UNPACKING}*"):
                    shutil.rmtree(left, ignore_errors=True)
            if not (into / holds).exists():
                _unpack(archive, into, holds)
    except DAMAGE as error:
        raise DataError(f"{archive} is damaged: {_line(error)}; delete it and get it anew") from error
    except OSError as error:
        raise DataError(f"cannot unpack {archive} into {into}: {error.strerror or _line(error)}") from error


def _unpack(archive: Path, into: Path, holds: str) -> None:
    beside = into / f"{UNPACKING}{uuid4().hex}"
    beside.mkdir()
    try:
        for name, content in _members(archive):
            _put(archive, beside, name, content)
        _move(archive, beside, into, holds)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _md5(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Name and content of every member; the content of a folder is None."""
    if zipfile.is_zipfile(archive):
        yield from _zipped(archive)
    else:
        yield from _tarred(archive)


def _zipped(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            mode = member.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataError(f"{archive} is refused: {member.filename} is neither a file nor a folder")
            if member.flag_bits & 1:
                raise DataError(f"{archive} is refused: {member.filename} is encrypted")
            if member.is_dir():
                yield member.filename, None
            else:
                with file.open(member) as content:
                    yield member.filename, content


def _tarred(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with tarfile.open(archive, "r:*") as file:
        for member in file:
            if member.isdir():
                yield member.name, None
            elif member.isreg():
                yield member.name, file.extractfile(member)
            else:
                raise DataError(f"{archive} is refused: {member.name} is neither a file nor a folder")


def _put(archive: Path, folder: Path, name: str, content: IO[bytes] | None) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise DataError(f"{archive} is refused: {name!r} would leave its folder")
    target = folder.joinpath(*path.parts)
    if content is None:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as copy:
        shutil.copyfileobj(content, copy, 1 << 20)


def _move(archive: Path, beside: Path, into: Path, holds: str) -> None:
    # Last what tells others that the rest is there.
    members = sorted(beside.iterdir(), key=lambda member: (member.name == holds, member.name))
    there = [member.name for member in members if (into / member.name).exists()]
    if there:
        raise DataError(f"cannot unpack {archive}: {into / there[0]} is there already")
    for member in members:
        member.rename(into / member.name)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
