"""Recordings become frames chunk by chunk, in this process or in others.

`python -m snnrobust.data.chunks` is such a process: it reads a `Target` and then a `Chunk` per line from its input, and
answers each with a line. It knows no torch and ends with its input, hence with its parent, however that ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from snnrobust.data.frames import Framing
from snnrobust.data.recordings import RecordingError, Sensor, Take, read


@dataclass(frozen=True)
class Target:
    """The file that frames are written to, from byte `offset` on, in the order of the recordings."""

    file: Path
    offset: int
    framing: Framing

    @property
    def size(self) -> int:
        """Bytes per recording."""
        return int(np.prod(self.framing.shape))


@dataclass(frozen=True)
class Chunk:
    """Recordings that lie together, the first of them at position `first`."""

    first: int
    takes: Sequence[Take]


def convert(target: Target, chunk: Chunk) -> str:
    """Writes the frames of a chunk in their place and returns their SHA-256.

    Raises:
        RecordingError: see `recordings.read`; also where frames of equal numbers of events would have none.
        OSError: if the file cannot be written.
    """
    content = b"".join(_framed(target.framing, take).tobytes() for take in chunk.takes)
    with target.file.open("r+b", buffering=0) as file:
        file.seek(target.offset + chunk.first * target.size)
        left = memoryview(content)
        while left:
            left = left[file.write(left) :]
    return hashlib.sha256(content).hexdigest()


def stored(target: Target, first: int, number: int) -> str:
    """The SHA-256 of what lies at the place of a chunk of `number` recordings."""
    with target.file.open("rb") as file:
        file.seek(target.offset + first * target.size)
        return hashlib.sha256(file.read(number * target.size)).hexdigest()


def _framed(framing: Framing, take: Take) -> NDArray[np.uint8]:
    events = read(take, framing.sensor)
    if framing.slices == "count" and len(events) < framing.steps:
        raise RecordingError(
            f"{take.path} holds {len(events)} events: expected at least {framing.steps}, one per frame, "
            "for dataset.slices=count"
        )
    return framing(events)


class ProcessError(Exception):
    """A process that converts ended before its time."""


class Process:
    """A process that converts chunks: a context that starts and ends it."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def __enter__(self) -> Process:
        command = [sys.executable, "-m", "snnrobust.data.chunks"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._put({"file": str(self.target.file), "offset": self.target.offset, "framing": asdict(self.target.framing)})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        if kind is not None:
            self._process.kill()
        self._process.wait()

    def convert(self, chunk: Chunk) -> str:
        """As `convert`, in the process."""
        takes = [(str(take.path), take.label, take.start_us, take.stop_us) for take in chunk.takes]
        self._put({"first": chunk.first, "takes": takes})
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ProcessError(
                f"a process that converted recordings ended with code {self._process.wait()}: run again to continue, "
                "with dataset.workers=1 if memory is short"
            )
        answer = json.loads(line)
        if "recording" in answer:
            raise RecordingError(answer["recording"])
        if "system" in answer:
            raise OSError(*answer["system"])
        return str(answer["sha256"])

    def _put(self, content: object) -> None:
        assert self._process.stdin is not None
        # A process that has ended gives no answer, which is where that is reported.
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(content) + "\n")
            self._process.stdin.flush()


def main() -> None:
    """What the process does."""
    # Ctrl-C goes to all processes of a terminal: this one ends with its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever libraries print goes elsewhere than the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    target = _target(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        given = json.loads(line)
        chunk = Chunk(given["first"], [Take(Path(path), *rest) for path, *rest in given["takes"]])
        try:
            answer: dict[str, object] = {"sha256": convert(target, chunk)}
        except RecordingError as error:
            answer = {"recording": str(error)}
        except OSError as error:
            answer = {"system": [error.errno, error.strerror or str(error)]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _target(given: dict[str, object]) -> Target:
    framing = given["framing"]
    assert isinstance(framing, dict)
    size = tuple(framing["size"]) if framing["size"] else None
    framing = Framing(**(framing | {"sensor": Sensor(**framing["sensor"]), "size": size}))
    return Target(Path(str(given["file"])), int(str(given["offset"])), framing)


if __name__ == "__main__":
    main()
