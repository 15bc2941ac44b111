"""Columns become events."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from snnrobust.data.saccades import EVENT, Recording

LIMITS = np.iinfo(np.int16)
TIMES = np.iinfo(np.int64)


def assembled(x: NDArray[Any], y: NDArray[Any], t: NDArray[Any], p: NDArray[Any]) -> Recording:
    """Events of columns `[N]` of any type of number.

    Polarity is 0 and 1 (or false and true), or -1 and 1, of which 1 is "on". Coordinates that 16
    bits do not hold become the largest or smallest that they do, which is outside of every sensor; they do not come in
    again at the other end.

    Raises:
        ValueError: if a number is not finite or not whole, a time needs more than 64 bits, or a polarity is another.
    """
    for name, column in (("x", x), ("y", y), ("t", t), ("p", p)):
        _refuse_fractions(name, column)
    _refuse_late(t)
    events = np.empty(len(t), dtype=EVENT)
    events["x"], events["y"] = (np.clip(column, LIMITS.min, LIMITS.max) for column in (x, y))
    events["t"], events["p"] = t, _on(p)
    return events


def _refuse_fractions(name: str, column: NDArray[Any]) -> None:
    if column.ndim != 1 or column.dtype.kind not in "biuf":
        raise ValueError(f"has {name} as an array {list(column.shape)} of {column.dtype}: expected numbers [N]")
    if column.dtype.kind != "f":
        return
    if not np.isfinite(column).all():
        raise ValueError("holds numbers that are not finite")
    broken = column != np.trunc(column)
    if broken.any():
        at = int(broken.argmax())
        raise ValueError(f"has {name} = {column[at]} at event {at}: expected whole numbers")


def _refuse_late(t: NDArray[Any]) -> None:
    if not len(t) or np.can_cast(t.dtype, np.int64):
        return
    for found in (int(t.min()), int(t.max())):
        if not TIMES.min <= found <= TIMES.max:
            raise ValueError(f"has an event at t = {found:.3g} us: expected times that 64 bits hold")


def _on(p: NDArray[Any]) -> NDArray[np.bool_]:
    if p.dtype.kind == "b":
        return p
    on: NDArray[np.bool_] = p == 1
    for off in (0, -1):
        if (on | (p == off)).all():
            return on
    found = np.unique(p)
    values = ", ".join(f"{value:g}" for value in found[:4]) + (", ..." if len(found) > 4 else "")
    raise ValueError(f"has the polarities {values}: expected 0 and 1, or -1 and 1")
