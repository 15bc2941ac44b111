"""Recordings of Prophesee's sensors: `.dat` (N-Cars and others), and `.raw` of version EVT 2 or 3.

`.dat`: header lines that start with `%`, a byte each for the type and the size of events, then little-endian events of
two 32-bit words: microseconds; 14 bits x, 14 bits y, polarity. `.raw`: such a header, then words of the EVT formats
(https://docs.prophesee.ai/stable/data/encoding_formats). The decoder that comes with tonic does not end on some damaged
files, hence this one.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snnrobust.data.formats.assemble import assembled
from snnrobust.data.saccades import Recording

Words = NDArray[np.int64]

SIZE = 8


def read_dat(path: Path) -> Recording:
    """The events in a `.dat` file.

    Raises:
        ValueError: for events of another size, or a file that is cut off.
    """
    content = path.read_bytes()
    start = _header_end(content)
    if content[start + 1 : start + 2] != bytes((SIZE,)):
        raise ValueError(f"is no .dat recording of events of {SIZE} bytes, or is cut off in its header")
    data = content[start + 2 :]
    if len(data) % SIZE:
        raise ValueError(f"has {len(data)} bytes of events: expected a multiple of {SIZE}; it is cut off")
    time, word = np.frombuffer(data, dtype="<u4").reshape(-1, 2).T
    return assembled(word & 0x3FFF, word >> 14 & 0x3FFF, time, word >> 28 & 1)


def read_raw(path: Path) -> Recording:
    """The events in a `.raw` file.

    Raises:
        ValueError: for another version than EVT 2 and 3, or a file that is cut off.
    """
    content = path.read_bytes()
    start = _header_end(content)
    version = re.search(rb"^% (?:evt|format) *:? *(?:EVT)?([\d.]+)", content[:start], re.MULTILINE)
    number = version[1].decode() if version else "unknown"
    if number[0] not in "23":
        raise ValueError(f"is of EVT version {number}: expected 2.0 or 3.0")
    word = np.dtype("<u4" if number[0] == "2" else "<u2")
    if (len(content) - start) % word.itemsize:
        raise ValueError(f"has {len(content) - start} bytes of words of {word.itemsize}; it is cut off")
    words = np.frombuffer(content, dtype=word, offset=start).astype(np.int64)
    return _evt2(words) if number[0] == "2" else _evt3(words)


def _evt2(words: Words) -> Recording:
    """Words of type (4 bits), low time (6), x (11), y (11); type 8 holds the other 28 bits of the time."""
    kind = words >> 28
    is_high = kind == 8
    high = _last(np.where(is_high, words & 0xFFFFFFF, 0), is_high)
    found = (kind <= 1) & is_high.cumsum().astype(bool)
    words, high = words[found], high[found]
    return assembled(words >> 11 & 0x7FF, words & 0x7FF, high << 6 | words >> 22 & 0x3F, kind[found])


def _evt3(words: Words) -> Recording:
    """Words of type (4 bits) and value (12); a value holds until the next one of its type.

    Types: 0 row; 2 an event at a column, with its polarity in bit 11; 3 column and polarity of vectors; 4 and 5 a
    vector of 12 or 8 events beside each other, a bit each, which moves the column on; 6 and 8 low and high 12 bits of
    the time, which overflows. What comes before the first time is left out.
    """
    kind, value = words >> 12, words & 0xFFF
    row, low, high = (_last(np.where(kind == k, value, 0), kind == k) for k in (0, 6, 8))
    overflows = np.diff(high, prepend=high[:1]) < -(1 << 11)
    t = (overflows.cumsum() << 24) + (high << 12) + low
    # Vectors begin where those before them since the last base have ended.
    length = np.select([kind == 4, kind == 5], [12, 8], 0)
    ends = length.cumsum()
    base = _last(np.where(kind == 3, value, 0), kind == 3)
    column = (base & 0x7FF) + ends - length - _last(np.where(kind == 3, ends, 0), kind == 3)
    vector = np.where(kind == 2, 1, np.select([kind == 4, kind == 5], [value, value & 0xFF], 0))
    vector[~(_seen(kind == 6) & _seen(kind == 8))] = 0
    at, bit = np.nonzero(vector[:, None] >> np.arange(12) & 1)
    single = kind[at] == 2
    x = np.where(single, value[at] & 0x7FF, column[at] + bit)
    return assembled(x, row[at] & 0x7FF, t[at], np.where(single, value[at], base[at]) >> 11)


def _seen(marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return marked.cumsum() > 0


def _last(values: Words, marked: NDArray[np.bool_]) -> Words:
    """At every place the value of the last marked place up to it; 0 before the first."""
    place = np.maximum.accumulate(np.where(marked, np.arange(len(values)), -1))
    return np.where(place >= 0, values[place], 0)


def _header_end(content: bytes) -> int:
    """Where the lines that start with `%` end."""
    start = 0
    while content[start : start + 1] == b"%":
        end = content.find(b"\n", start)
        if end < 0:
            raise ValueError("has a header without an end; it is cut off")
        start = end + 1
        if content[:start].endswith(b"% end\n"):
            break
    return start
