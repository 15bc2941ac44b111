"""Events of 40 bits, big-endian: `.bin` of N-MNIST and N-Caltech101, `.bs2` of SLAYER.

8 bits x, 8 bits y, 1 bit polarity, 23 bits time in microseconds (Orchard et al., 2015). An event with y = 240 is none:
it stands for an overflow of the clock, from which on 2^13 us are added, as tonic does (`tonic.io.read_mnist_file`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from snnrobust.data.formats.assemble import assembled
from snnrobust.data.saccades import Recording

SIZE = 5
OVERFLOW_ROW, OVERFLOW_US = 240, 1 << 13


def read(path: Path) -> Recording:
    """The events in `path`.

    Raises:
        ValueError: if the file does not end with a whole event.
    """
    raw = np.fromfile(path, dtype=np.uint8)
    if len(raw) % SIZE:
        raise ValueError(f"has {len(raw)} bytes: expected a multiple of {SIZE}, the size of an event; it is cut off")
    columns = raw.reshape(-1, SIZE)
    high = columns[:, 2].astype(np.int64)
    t = ((high & 127) << 16) | (columns[:, 3].astype(np.int64) << 8) | columns[:, 4]
    overflow = columns[:, 1] == OVERFLOW_ROW
    if overflow.any():
        t += OVERFLOW_US * overflow.cumsum()
    events: Recording = assembled(columns[:, 0], columns[:, 1], t, high >> 7)[~overflow]
    return events
