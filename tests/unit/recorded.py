"""Event recordings made at random, and files of them in every format: written from the formats' descriptions."""

import struct
from pathlib import Path

import numpy as np
from scipy.io import savemat

from snnrobust.data.saccades import EVENT, Recording


def random_events(seed: int, number: int, width: int = 34, height: int = 34, until_us: int = 300_000) -> Recording:
    """Events in order of time, many of them at equal times where there are more than microseconds."""
    rng = np.random.default_rng(seed)
    events = np.zeros(number, dtype=EVENT)
    events["x"], events["y"] = rng.integers(width, size=number), rng.integers(height, size=number)
    events["t"], events["p"] = np.sort(rng.integers(until_us, size=number)), rng.integers(2, size=number)
    return events


def bits40(events: Recording) -> bytes:
    """`.bin`; times below 2^23 us."""
    return b"".join(
        bytes((x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255)) for x, y, t, p in events.tolist() if t < 1 << 23
    )


def aedat2(events: Recording) -> bytes:
    """`.aedat` of a DVS128, which counts columns from the right and rows from below; its lowest bit means "off"."""
    header = b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n"
    words = [(127 - x << 8 | 127 - y << 1 | 1 - p, t) for x, y, t, p in events.tolist()]
    return header + b"".join(struct.pack(">II", *word) for word in words)


def aedat3(events: Recording, packet: int = 100, others: bool = True) -> bytes:
    """`.aedat` 3.1; with `others`, a packet of special events between any two, as cameras send them."""
    content = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"
    for first in range(0, len(events), packet):
        part = events[first : first + packet].tolist()
        if others:
            content += struct.pack("<HHIIIIII", 0, 0, 8, 4, 0, 1, 1, 1) + struct.pack("<II", 3, 0)
        content += struct.pack("<HHIIIIII", 1, 0, 8, 4, 0, len(part), len(part), len(part))
        content += b"".join(struct.pack("<II", x << 17 | y << 2 | p << 1 | 1, t) for x, y, t, p in part)
    return content


def dat(events: Recording) -> bytes:
    """`.dat` of Prophesee."""
    header = b"% Data file containing CD events.\n% Version 2\n" + bytes((0, 8))
    return header + b"".join(struct.pack("<II", t, x | y << 14 | p << 28) for x, y, t, p in events.tolist())


def evt3(events: Recording) -> bytes:
    """`.raw` of EVT 3, without vectors; the higher bits of the time at least once in each of their periods."""
    content, last = b"% evt 3.0\n% end\n", 0
    for x, y, t, p in events.tolist():
        for high in range(min(last + 1, t >> 12), (t >> 12) + 1):
            content += struct.pack("<H", 8 << 12 | high & 0xFFF)
        last = t >> 12
        content += struct.pack("<HHH", 6 << 12 | t & 0xFFF, y, 2 << 12 | p << 11 | x)
    return content


def asl(path: Path, events: Recording) -> None:
    """`.mat` of ASL-DVS: rows from below."""
    columns = {"ts": events["t"], "x": events["x"], "y": 179 - events["y"], "pol": events["p"]}
    savemat(path, {name: column.astype(np.int64)[:, None] for name, column in columns.items()})


def tonic_gesture(path: Path, events: Recording) -> None:
    """`.npy` as tonic distributes DVS128 Gesture: x, y, polarity, milliseconds."""
    np.save(path, np.stack([events["x"], events["y"], events["p"], events["t"] // 1000], axis=1))
