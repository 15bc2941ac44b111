"""NumPy files, `.npy`: events with the fields x, y, t (us), p, or DVS128 Gesture as tonic distributes it.

The latter are rows of x, y, polarity and time in milliseconds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from snnrobust.data.formats.assemble import assembled
from snnrobust.data.saccades import Recording


def read(path: Path) -> Recording:
    """The events in `path`. Pickled objects are not loaded.

    Raises:
        ValueError: if the file cannot be read, or is an array of another kind.
    """
    try:
        raw = np.load(path, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # of a damaged header NumPy raises what its parser and tokenizer raise
        raise ValueError(f"cannot be read as a NumPy array: {' '.join(str(error).split())}") from error
    if not isinstance(raw, np.ndarray):
        raise ValueError("is an archive of NumPy arrays: expected a single array")
    if raw.ndim == 1 and raw.dtype.names and {"x", "y", "t", "p"} <= set(raw.dtype.names):
        return assembled(raw["x"], raw["y"], raw["t"], raw["p"])
    if raw.ndim == 2 and raw.shape[1] == 4 and raw.dtype.kind in "iuf":
        with np.errstate(over="ignore"):  # what is too large becomes infinite, which is refused
            t = np.rint(1000.0 * raw[:, 3].astype(np.float64))
        return assembled(raw[:, 0], raw[:, 1], t, raw[:, 2])
    raise ValueError(f"is an array {list(raw.shape)} of {raw.dtype}: expected events [N] with x, y, t, p, or [N, 4]")
