"""Event recordings: read from a file, whatever its format, and checked before anything is made of them.

A recording is an array of events (x, y, t in microseconds, p true for "on"), in the order of time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from snnrobust.data.formats import aedat, aedat4, arrays, bits40, matlab, prophesee
from snnrobust.data.saccades import Recording

READERS: dict[str, Callable[[Path], Recording]] = {
    ".aedat": aedat.read,
    ".aedat4": aedat4.read,
    ".bin": bits40.read,
    ".bs2": bits40.read,
    ".dat": prophesee.read_dat,
    ".mat": matlab.read,
    ".npy": arrays.read,
    ".raw": prophesee.read_raw,
}
"""By the ending of a file's name."""


class RecordingError(Exception):
    """A recording that cannot be used: one line with the file, what is wrong and what is expected."""


@dataclass(frozen=True)
class Sensor:
    """The plane of pixels of a camera: 0 <= y < `height`, 0 <= x < `width`."""

    height: int
    width: int


@dataclass(frozen=True)
class Take:
    """A recording and its class: a file, or the part of it from `start_us` to before `stop_us`."""

    path: Path
    label: int
    start_us: int | None = None
    stop_us: int | None = None


def read(take: Take, sensor: Sensor) -> Recording:
    """The events of a take, at least one.

    Raises:
        RecordingError: if the file cannot be read or is damaged, has no event, an event outside of the sensor, or one
            that is earlier than the one before it (events of equal times are in order).
    """
    try:
        if take.start_us is None or take.stop_us is None:
            events = _read(take.path)
        else:
            whole = _last_read(take.path, take.path.stat().st_mtime_ns)
            events = whole[(whole["t"] >= take.start_us) & (whole["t"] < take.stop_us)]
        _check(events, sensor)
    except OSError as error:
        raise RecordingError(f"cannot read {take.path}: {error.strerror or error}") from error
    except ValueError as error:
        part = "" if take.start_us is None else f" from {take.start_us} to {take.stop_us} us"
        raise RecordingError(f"{take.path}{part} {error}") from error
    return events


def _read(path: Path) -> Recording:
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise ValueError(f"has the ending {suffix or 'of no format'}: expected {', '.join(sorted(READERS))}")
    return READERS[suffix](path)


@lru_cache(maxsize=1)
def _last_read(path: Path, changed: int) -> Recording:
    """The parts of a long recording are read one after the other."""
    return _read(path)


def _check(events: Recording, sensor: Sensor) -> None:
    if not len(events):
        raise ValueError("holds no event")
    for name, limit in (("x", sensor.width), ("y", sensor.height)):
        low, high = int(events[name].min()), int(events[name].max())
        if low < 0 or high >= limit:
            found = low if low < 0 else high
            raise ValueError(
                f"has an event at {name} = {found}: expected 0 to {limit - 1} "
                f"on a sensor of {sensor.height} rows and {sensor.width} columns"
            )
    t = events["t"]
    backwards = t[1:] < t[:-1]
    if backwards.any():
        at = int(backwards.argmax()) + 1
        raise ValueError(f"goes back in time at event {at}: {t[at]} us after {t[at - 1]} us")
