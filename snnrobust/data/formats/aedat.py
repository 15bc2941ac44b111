"""AEDAT 2 of a DVS128 and AEDAT 3.1, `.aedat`: CIFAR10-DVS and DVS128 Gesture as their authors published them.

After a header of lines that start with `#`: in version 2 pairs of big-endian 32-bit words, address and microseconds;
in version 3.1 packets of a 28-byte header and little-endian events, of which those of polarity are taken.

The chip counts columns from the right and rows from below, and its lowest bit is set for "off". Addresses of version 2
are turned round as jAER and SpikingJelly do (`spikingjelly.datasets.cifar10_dvs`); tonic's `read_dvs_128` takes them as
they are. Addresses of version 3.1 are split as tonic does (`tonic.io.read_dvs_ibm`).
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from snnrobust.data.formats.assemble import assembled
from snnrobust.data.saccades import EVENT, Recording

PACKET = struct.Struct("<HHIIIIII")
"""Type, source, event size, offset of the time, overflows of the clock, capacity, number and number of valid events."""
POLARITY, POLARITY_SIZE = 1, 8
LAST = 127
"""Row and column of a DVS128."""


def read(path: Path) -> Recording:
    """The events in `path`.

    Raises:
        ValueError: for another version than 2 and 3.1, or a file that is cut off.
    """
    content = path.read_bytes()
    version, start = _header(content)
    if version.startswith("2"):
        return _two(content[start:])
    if version == "3.1":
        return _three(content[start:])
    raise ValueError(f"is of AEDAT version {version or 'unknown'}: expected 2.0 or 3.1 (4 has the ending .aedat4)")


def _header(content: bytes) -> tuple[str, int]:
    """The version, and where the data begin."""
    version, start = "", 0
    while content[start : start + 1] == b"#":
        end = content.find(b"\n", start)
        if end < 0:
            break
        line = content[start:end].strip()
        if line.startswith(b"#!AER-DAT"):
            version = line[9:].decode("ascii", "replace").strip()
        start = end + 1
        if line == b"#!END-HEADER":
            break
    return version, start


def _two(data: bytes) -> Recording:
    if len(data) % 8:
        raise ValueError(f"has {len(data)} bytes of events: expected a multiple of 8, the size of one; it is cut off")
    address, time = np.frombuffer(data, dtype=">u4").reshape(-1, 2).T
    return assembled(LAST - ((address >> 8) & 0x7F), LAST - ((address >> 1) & 0x7F), time, 1 - (address & 1))


def _three(data: bytes) -> Recording:
    parts, start = [np.zeros(0, dtype=EVENT)], 0
    while start < len(data):
        if len(data) - start < PACKET.size:
            raise ValueError(
                f"ends with {len(data) - start} bytes of a packet's header of {PACKET.size}; it is cut off"
            )
        kind, _, size, _, overflows, capacity, number, _ = PACKET.unpack_from(data, start)
        start += PACKET.size
        if len(data) - start < capacity * size:
            raise ValueError(
                f"ends with {len(data) - start} bytes of a packet of {capacity * size}; it is cut off or damaged"
            )
        if kind == POLARITY:
            if size != POLARITY_SIZE or number > capacity:
                raise ValueError(f"has a packet of {number} events of {size} bytes: expected at most {capacity} of 8")
            words = np.frombuffer(data, dtype="<u4", count=2 * number, offset=start).reshape(-1, 2)
            word, time = words[words[:, 0] & 1 == 1].T  # the lowest bit: the event is valid
            parts.append(
                assembled(
                    (word >> 17) & 0x7FFF, (word >> 2) & 0x7FFF, time + (np.int64(overflows) << 31), (word >> 1) & 1
                )
            )
        start += capacity * size
    return np.concatenate(parts)
