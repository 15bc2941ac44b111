"""MATLAB files, `.mat`: ASL-DVS (Bi et al., 2019) and ST-MNIST (See et al., 2020), told apart by their variables.

ASL-DVS: columns `ts` (us), `x`, `y`, `pol` of a 240x180 sensor; rows are counted from below, as tonic turns them round.
ST-MNIST: `spiketrain` `[101, N]`, a row per taxel of a 10x10 array with 1, -1 or 0, and a last row of seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snnrobust.data.formats.assemble import assembled
from snnrobust.data.formats.mat5 import read_arrays
from snnrobust.data.saccades import Recording

ASL_HEIGHT = 180
TAXELS = 10


def read(path: Path) -> Recording:
    """The events in `path`.

    Raises:
        ValueError: if the file cannot be read or holds other variables.
    """
    content = read_arrays(path)
    if {"ts", "x", "y", "pol"} <= content.keys():
        return _asl(content)
    if "spiketrain" in content:
        return _tactile(content["spiketrain"])
    found = ", ".join(sorted(content)) or "none"
    raise ValueError(f"has the variables {found}: expected ts, x, y, pol (ASL-DVS) or spiketrain (ST-MNIST)")


def _asl(content: Mapping[str, NDArray[Any]]) -> Recording:
    columns = {name: content[name].reshape(-1) for name in ("ts", "x", "y", "pol")}
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"has columns of different lengths {sorted(lengths)}")
    return assembled(columns["x"], ASL_HEIGHT - 1.0 - columns["y"], columns["ts"], columns["pol"])


def _tactile(train: NDArray[Any]) -> Recording:
    if train.ndim != 2 or len(train) != TAXELS**2 + 1:
        raise ValueError(f"has a spiketrain of shape {train.shape}: expected {TAXELS**2 + 1} rows")
    column, taxel = train[:-1].T.nonzero()
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which is refused
        t = np.rint(1e6 * train[-1, column].astype(np.float64))
    return assembled(taxel % TAXELS, taxel // TAXELS, t, train[taxel, column])
