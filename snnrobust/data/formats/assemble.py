"""Columns become events."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from snnrobust.data.saccades import EVENT, Recording

LIMITS = np.iinfo(np.int16)


def assembled(x: NDArray[Any], y: NDArray[Any], t: NDArray[Any], p: NDArray[Any]) -> Recording:
    """Events of columns `[N]` of any type of number.

    Coordinates that 16 bits do not hold become the largest or smallest that they do, which is outside of every sensor;
    they do not come in again at the other end.

    Raises:
        ValueError: if a number is not finite.
    """
    if any(column.dtype.kind == "f" and not np.isfinite(column).all() for column in (x, y, t, p)):
        raise ValueError("holds numbers that are not finite")
    events = np.empty(len(t), dtype=EVENT)
    events["x"], events["y"] = (np.clip(column, LIMITS.min, LIMITS.max) for column in (x, y))
    events["t"], events["p"] = t, p
    return events
