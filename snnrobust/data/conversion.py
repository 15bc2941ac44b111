"""Recordings are converted to frames once, into a cache that is opened memory-mapped.

`<parent>/<key>/frames.npy` is an array `[N, T, 2, H, W]` of uint8; the key is a hash of the settings that the frames
depend on and of every recording's name, size and time of change: whatever changes, old frames are not served.
While it is made, the folder is called `<key>.unfinished`; `done.jsonl` in it lists the chunks that are finished, each
with its SHA-256, so that an interrupted conversion continues where it was, even after a kill. One process at a time
works in a folder; others wait for it. The finished folder's `settings.json` holds the settings and the digests. Reading
gigabytes at every start would be slow: the digests are compared only where the file's size or time of change is
another one than when it was written (after a copy, or a damage).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snnrobust.data.cache import MANIFEST, key, writing
from snnrobust.data.chunks import Chunk, Process, ProcessError, Target, convert, stored
from snnrobust.data.dataset import DataError
from snnrobust.data.frames import Framing
from snnrobust.data.locks import locked
from snnrobust.data.progress import progress
from snnrobust.data.recordings import RecordingError, Take
from snnrobust.files import write_json

Frames = NDArray[np.uint8]

# Part of the key: to be raised with every change of the readers or of the framing that changes frames.
FORMAT = 2
CHUNK = 16
"""Recordings that are converted between two entries in the list of what is finished."""
SHARE = 8
"""Chunks that a further process must have to do to be worth its start."""
FRAMES, DONE = "frames.npy", "done.jsonl"
SETTING = "dataset.cache"

log = logging.getLogger(__name__)


def split_digest(takes: Sequence[Take], root: Path) -> str:
    """SHA-256 of recordings in order: names, sizes, labels and times; the same wherever the folder `root` lies.

    Raises:
        DataError: if a file is not there.
    """
    digest = hashlib.sha256()
    for take in takes:
        try:
            size = take.path.stat().st_size
        except OSError as error:
            raise DataError(f"cannot read {take.path}: {error.strerror}") from error
        entry = (take.path.relative_to(root).as_posix(), size, take.label, take.start_us, take.stop_us)
        digest.update(f"{json.dumps(entry)}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Conversion:
    """Frames of some recordings.

    Args:
        name: of the data, for the progress bar.
        root: folder of the recordings, which has no part in the key.
        takes: the recordings in order.
        framing: how they become frames.
        parent: folder of the cache; made if absent.
        workers: number of processes; None for one per processor. They are started where there is enough to do.
    """

    name: str
    root: Path
    takes: Sequence[Take]
    framing: Framing
    parent: Path
    workers: int | None = None

    def __call__(self) -> Frames:
        """The frames `[N, T, 2, H, W]`, memory-mapped; writing to them leaves the file as it is.

        Raises:
            DataError: if a recording cannot be used, or the cache cannot be written. What is finished is kept.
        """
        settings = self._settings()
        log.info("%s: %d recordings, split %s", self.name, len(self.takes), settings["split"][:16])
        folder = self.parent / key(settings)
        frames = _opened(folder, settings)
        if frames is None:
            with writing(self.parent, SETTING):
                self._make(folder, settings)
                frames = _opened(folder, settings)
        if frames is None:
            raise DataError(f"{folder} was changed while it was made: run again")
        return frames

    @cached_property
    def split(self) -> str:
        """See `split_digest`."""
        return split_digest(self.takes, self.root)

    def _settings(self) -> dict[str, Any]:
        """All that the frames depend on; the recordings as a digest."""
        digest = hashlib.sha256()
        for path in dict.fromkeys(take.path for take in self.takes):
            try:
                fact = path.stat()
            except OSError as error:
                raise DataError(f"cannot read {path}: {error.strerror}") from error
            digest.update(f"{fact.st_size} {fact.st_mtime_ns}\n".encode())
        return {
            "format": FORMAT,
            "framing": json.loads(json.dumps(asdict(self.framing))),
            "recordings": len(self.takes),
            "split": self.split,
            "files": digest.hexdigest(),
        }

    def _make(self, folder: Path, settings: Mapping[str, Any]) -> None:
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        # Where there are no locks, two processes write the same frames to the same places.
        with locked(unfinished, "converts the same recordings in"):
            if _opened(folder, settings) is not None:
                # Another process has made it while this one waited.
                shutil.rmtree(unfinished)
                return
            target = self._target(unfinished / FRAMES)
            digests = _finished(unfinished / DONE, target, len(self.takes))
            try:
                self._convert(target, unfinished / DONE, digests)
            except ProcessError as error:
                raise DataError(str(error)) from error
            except RecordingError as error:
                # Once the recording is another one, so is the key: what is finished would never be used.
                shutil.rmtree(unfinished)
                raise DataError(str(error)) from error
            _synchronised(target.file)
            manifest = {"settings": settings, "sha256": [digests[first] for first in sorted(digests)]}
            write_json(unfinished / MANIFEST, manifest | {"stamp": _stamp(target.file)})
            # A damaged one may be in its place.
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.rename(folder)

    def _target(self, file: Path) -> Target:
        """The file with its header, in its full length."""
        shape = (len(self.takes), *self.framing.shape)
        offset = _header_size(shape)
        size = offset + int(np.prod(shape))
        if not file.exists() or file.stat().st_size != size:
            free = shutil.disk_usage(file.parent).free
            if free < size:
                raise DataError(
                    f"cannot write the cache {self.parent}: {_amount(size)} are needed, {_amount(free)} are free "
                    f"({SETTING})"
                )
            with file.open("wb") as content:
                np.lib.format.write_array_header_1_0(content, _header(shape))
                content.truncate(size)
        return Target(file, offset, self.framing)

    def _convert(self, target: Target, done: Path, digests: dict[int, str]) -> None:
        """Converts what is not among the `digests` yet, and adds to them."""
        chunks = [Chunk(i, self.takes[i : i + CHUNK]) for i in range(0, len(self.takes), CHUNK)]
        missing = [chunk for chunk in chunks if chunk.first not in digests]
        workers = min(self.workers or _processors(), len(missing) // SHARE)
        with (
            done.open("a") as finished,
            progress(self.name, len(self.takes)) as advance,
            closing(_converted(target, missing, workers)) as results,
        ):
            advance(sum(len(chunk.takes) for chunk in chunks if chunk.first in digests))
            for chunk, digest in results:
                digests[chunk.first] = digest
                finished.write(json.dumps([chunk.first, digest]) + "\n")
                finished.flush()
                advance(len(chunk.takes))


def _converted(target: Target, chunks: Sequence[Chunk], workers: int) -> Generator[tuple[Chunk, str]]:
    """Chunks with their digests, in the order in which they are finished."""
    if workers <= 1:
        yield from ((chunk, convert(target, chunk)) for chunk in chunks)
        return
    with ExitStack() as stack:
        free: SimpleQueue[Process] = SimpleQueue()
        for _ in range(workers):
            free.put(stack.enter_context(Process(target)))

        def work(chunk: Chunk) -> tuple[Chunk, str]:
            process = free.get()
            try:
                return chunk, process.convert(chunk)
            finally:
                free.put(process)

        pool = stack.enter_context(ThreadPoolExecutor(workers))
        stack.callback(pool.shutdown, cancel_futures=True)
        for future in as_completed([pool.submit(work, chunk) for chunk in chunks]):
            yield future.result()


def _processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _opened(folder: Path, settings: Mapping[str, Any]) -> Frames | None:
    """The frames in a finished folder; None if it is absent or damaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        # Copy-on-write, because torch wants writable memory; the file stays as it is.
        frames: Frames = np.load(folder / FRAMES, mmap_mode="c")
        if manifest["settings"] == settings and _untouched(folder, manifest, frames):
            return frames
        reason = "the files are not those that were written"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # of a damaged header NumPy raises what its parser and tokenizer raise
        reason = " ".join(str(error).split())
    log.warning("the cache %s cannot be used and is made anew: %s", folder, reason)
    return None


def _untouched(folder: Path, manifest: dict[str, Any], frames: Frames) -> bool:
    """Whether the file is the one that was written; a good copy is remembered as such."""
    file = folder / FRAMES
    stamp = _stamp(file)
    if manifest["stamp"] == stamp:
        return True
    parts = [frames[i : i + CHUNK] for i in range(0, len(frames), CHUNK)]
    if [hashlib.sha256(part.tobytes()).hexdigest() for part in parts] != manifest["sha256"]:
        return False
    if os.access(folder, os.W_OK):
        write_json(folder / MANIFEST, manifest | {"stamp": stamp})
    return True


def _stamp(file: Path) -> list[int]:
    fact = file.stat()
    return [fact.st_size, fact.st_mtime_ns]


def _finished(done: Path, target: Target, number: int) -> dict[int, str]:
    """The digests of the chunks that an interrupted conversion has finished, by their first recording."""
    digests = {}
    for line in done.read_text().splitlines() if done.exists() else ():
        try:
            first, digest = json.loads(line)
        except ValueError:
            # The line that was being written.
            continue
        if first % CHUNK == 0 and first < number and stored(target, first, min(CHUNK, number - first)) == digest:
            digests[first] = digest
    return digests


def _header(shape: tuple[int, ...]) -> dict[str, Any]:
    return {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}


def _header_size(shape: tuple[int, ...]) -> int:
    content = BytesIO()
    np.lib.format.write_array_header_1_0(content, _header(shape))
    return content.tell()


def _amount(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _synchronised(file: Path) -> None:
    with file.open("rb") as content:
        os.fsync(content.fileno())
