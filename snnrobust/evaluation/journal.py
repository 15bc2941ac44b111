"""The findings of an evaluation in a file, a line each, that outlives the process: one that is killed is taken up."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, final

from snnrobust.evaluation.findings import Finding, read
from snnrobust.evaluation.ledger import Record

FORMAT = 2

log = logging.getLogger(__name__)


@final
class Journal(Record):
    """Appends every finding to a file as soon as it is there; nothing in it can run code when it is read.

    The first line says what the findings depend on. A file that says something else is begun anew, and whatever
    follows a line that is not whole, or whose checksum does not fit, is dropped: it is computed again.

    Args:
        path: of the file.
        header: what must be equal for findings to be of use, as JSON knows it.

    Raises:
        OSError: if the file cannot be read or written; the finished lines stay as they are.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self._path = path
        first = _line({"format": FORMAT, **header})
        self._kept, length = _read(path, first)
        self._file = path.open("ab", buffering=0)
        self._file.truncate(length)
        if not length:
            self._append(first)
        elif self._kept:
            log.info("%s: %d finished batches are on record", path, len(self._kept))

    def recall(self, phase: str, number: int) -> Finding | None:
        return self._kept.get((phase, number))

    def keep(self, phase: str, number: int, finding: Finding) -> None:
        self._append(_line({"phase": phase, "batch": number, **finding.content()}))

    def close(self) -> None:
        """Keeps the file for a later process."""
        self._file.close()

    def remove(self) -> None:
        """Once the outcomes are on record elsewhere."""
        self.close()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, line: bytes) -> None:
        """Writes a line past all buffers. Of one that did not fit a part may stay, which is dropped when it is read."""
        try:
            rest = memoryview(line)
            while rest:  # a disk that is almost full takes a part first
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            reason = f"{error.strerror}; the finished batches in it are kept"
            raise OSError(error.errno, reason, str(self._path)) from error


def _line(content: Mapping[str, Any]) -> bytes:
    return _json({**content, "sum": zlib.crc32(_json(content))}) + b"\n"


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _entry(line: bytes) -> dict[str, Any]:
    """What `_line` made a line of: read and written again, it gives the same one.

    Raises:
        ValueError: if it is another line.
    """
    entry: dict[str, Any] = json.loads(line)
    if not isinstance(entry, dict) or entry.pop("sum", None) is None or _line(entry) != line:
        raise ValueError("its checksum does not fit")
    return entry


def _read(path: Path, first: bytes) -> tuple[dict[tuple[str, int], Finding], int]:
    """The findings of a file that begins with `first`, and the length of its good part in bytes."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}, 0
    if not content.startswith(first):
        log.warning("%s: finished batches of another evaluation, or of other weights, data or code; begun anew", path)
        return {}, 0
    kept: dict[tuple[str, int], Finding] = {}
    length = len(first)
    for line in _lines(content[length:]):
        try:
            entry = _entry(line)
            kept[str(entry["phase"]), int(entry["batch"])] = read(entry)
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s: a damaged line (%s); what follows it is computed again", path, error)
            break
        length += len(line)
    return kept, length


def _lines(content: bytes) -> Iterator[bytes]:
    """Those that end; the last one of a process that was killed may not."""
    for line in content.split(b"\n")[:-1]:
        yield line + b"\n"
