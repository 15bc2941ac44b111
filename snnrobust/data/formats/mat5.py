"""Arrays of numbers in MATLAB files of version 5 to 7.2 (MathWorks, "MAT-file format").

SciPy's reader, which tonic uses, ends the whole process on some damaged files; this one reads what recordings hold.
After a header of 128 bytes come elements: type and length as 32-bit words, then the content, padded to 8 bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER, TAG = 128, 8
MATRIX, COMPRESSED = 14, 15
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CLASSES = range(6, 16)
"""Of arrays of numbers: double, single, and integers of 8 to 64 bits."""
COMPLEX = 0x800


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays by name; variables of other kinds are left out.

    Raises:
        ValueError: if the file is no such file, is cut off or damaged.
    """
    content = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None or len(content) <= HEADER:
        raise ValueError(f"is no MATLAB file of version 5 to 7.2, or is cut off in its header of {HEADER} bytes")
    try:
        return dict(_arrays(content[HEADER:], order))
    except (zlib.error, struct.error, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"is damaged or cut off: {error}") from error


def _arrays(data: bytes, order: str) -> Iterator[tuple[str, NDArray[Any]]]:
    for kind, content in _elements(data, order, padded=False):
        if kind == COMPRESSED:
            yield from _arrays(zlib.decompress(content), order)
        elif kind == MATRIX:
            yield from _array(content, order)


def _array(data: bytes, order: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """Flags, dimensions, name, numbers."""
    parts = list(_elements(data, order, padded=True))
    if len(parts) < 4:
        raise ValueError(f"a variable has {len(parts)} parts")
    (_, flags), (_, sizes), (_, name), (kind, numbers) = parts[:4]
    (word,) = struct.unpack_from(order + "I", flags)
    if word & 0xFF not in CLASSES or word & COMPLEX or kind not in NUMBERS:
        return
    shape = np.frombuffer(sizes, dtype=order + "i4").tolist()
    values = np.frombuffer(numbers, dtype=order + NUMBERS[kind])
    yield name.decode("ascii"), values.reshape(shape, order="F")


def _elements(data: bytes, order: str, padded: bool) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start < len(data):
        kind, length = struct.unpack_from(order + "II", data, start)
        if kind >> 16:
            # Up to four bytes lie in the tag itself, with their number in the upper half of its first word.
            kind, length, start = kind & 0xFFFF, kind >> 16, start + 4
            end = start + 4
        else:
            start += TAG
            end = start + length + (-length % 8 if padded else 0)
        if start + length > len(data):
            raise ValueError(f"an element of {length} bytes has {len(data) - start}")
        yield kind, data[start : start + length]
        start = end
