"""The loops of `kernels.py`, compiled by numba: the only file that imports it, and only once the first kernel runs.

A block of neurons goes through all time steps before the next block, so that its state stays in the first-level cache;
inner loops are over plain rows, which the compiler turns into vector instructions. bfloat16 comes as its bits (uint16):
`wide` is a buffer of a block of float32 and `raw` its bits; for float32 rows `raw` is None and the compiler removes
the branches.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numba.core.errors import NumbaWarning

BLOCK = 2048


def compiled(function: Callable[..., Any]) -> Any:
    """Compiled at the first call; kept for later processes where there is a folder that can be written to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumbaWarning)
        try:
            return njit(function, cache=True, nogil=True, error_model="numpy")
        except RuntimeError:  # no folder for the cache
            return njit(function, nogil=True, error_model="numpy")


@compiled
def load(wide: Any, row: Any, raw: Any) -> None:
    """Copies a row of float32 or bfloat16 to the buffer `wide`."""
    if raw is None:
        for n in range(len(row)):
            wide[n] = row[n]
    else:
        for n in range(len(row)):
            raw[n] = np.uint32(row[n]) << np.uint32(16)


@compiled
def store(row: Any, values: Any, raw: Any, wide: Any) -> None:
    """Copies float32 values to a row of float32 or bfloat16 (rounded to nearest even)."""
    if raw is None:
        for n in range(len(row)):
            row[n] = values[n]
    else:
        for n in range(len(row)):
            wide[n] = values[n]
        for n in range(len(row)):
            bits = raw[n]
            row[n] = np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@compiled
def charge(v: Any, it: Any, ut: Any, kind: int, number: Any) -> None:
    """Potentials before the reset, with the roundings of SpikingJelly's operators; kinds as in `kernels.py`."""
    if kind == 0:
        for n in range(len(ut)):
            ut[n] = v[n] + it[n]
    elif kind == 1:
        for n in range(len(ut)):
            ut[n] = v[n] - v[n] / number + it[n]
    elif kind == 2:
        for n in range(len(ut)):
            ut[n] = v[n] + (it[n] - v[n]) / number
    elif kind == 3:
        for n in range(len(ut)):
            ut[n] = v[n] - v[n] * number + it[n]
    else:
        for n in range(len(ut)):
            ut[n] = v[n] + (it[n] - v[n]) * number


@compiled
def fire(v: Any, ut: Any, st: Any, one: Any, threshold: Any, soft: bool) -> None:
    """Spikes of a row of potentials, and what the reset leaves of these."""
    zero, silent = np.float32(0), st.dtype.type(0)
    if soft:
        for n in range(len(ut)):
            fires = ut[n] >= threshold
            st[n] = one if fires else silent
            v[n] = ut[n] - threshold if fires else ut[n]
    else:
        for n in range(len(ut)):
            fires = ut[n] >= threshold
            st[n] = one if fires else silent
            v[n] = zero if fires else ut[n]


@compiled
def forward(
    i: Any, u: Any, s: Any, one: Any, kind: int, number: Any, threshold: Any, soft: bool, raw: Any, wide: Any
) -> None:
    """Currents `[T or 1, n]` to potentials and spikes `[T, n]`; `one` is 1 in the type of the spikes."""
    steps, size = u.shape
    zero = np.float32(0)
    state = np.empty(BLOCK, np.float32)
    for low in range(0, size, BLOCK):
        count = min(BLOCK, size - low)
        v = state[:count]
        for n in range(count):
            v[n] = zero
        for t in range(steps):
            if t == 0 or len(i) > 1:
                load(wide, i[t, low : low + count], raw)
            ut, st = u[t, low : low + count], s[t, low : low + count]
            charge(v, wide, ut, kind, number)
            fire(v, ut, st, one, threshold, soft)


@compiled
def slopes(slope: Any, ut: Any, given: Any, kind: int, width: Any, threshold: Any) -> None:
    """The derivative of the spike at every potential of a row; kinds as in `kernels.py`."""
    one, zero, half = np.float32(1), np.float32(0), np.float32(0.5)
    if kind == 1:
        scale = one / (width * width)
        for n in range(len(ut)):
            a = width - abs(ut[n] - threshold)
            slope[n] = (a if a > zero else zero) * scale
    elif kind == 2:
        for n in range(len(ut)):
            slope[n] = one / width if abs(ut[n] - threshold) < half * width else zero
    elif kind == 3:
        for n in range(len(ut)):
            slope[n] = one
    elif kind == 4:
        bend = np.float32(0.5 * np.pi) * width
        for n in range(len(ut)):
            q = bend * (ut[n] - threshold)
            slope[n] = half * width / (one + q * q)
    else:
        for n in range(len(ut)):
            slope[n] = given[n]


@compiled
def step_back(
    gt: Any, ut: Any, slope: Any, carried: Any, total: Any, leak: Any, gain: Any, threshold: Any, attached: Any,
    soft: bool,
) -> None:  # fmt: skip
    """One step of backpropagation through time for a row; `slope` holds the result afterwards."""
    one, zero = np.float32(1), np.float32(0)
    if soft:
        for n in range(len(ut)):
            du = gt[n] * slope[n] + carried[n] * (one - attached * threshold * slope[n])
            carried[n] = leak * du
            total[n] += du
            slope[n] = gain * du
    else:
        for n in range(len(ut)):
            keep = zero if ut[n] >= threshold else one
            du = gt[n] * slope[n] + carried[n] * (keep - attached * ut[n] * slope[n])
            carried[n] = leak * du
            total[n] += du
            slope[n] = gain * du


@compiled
def backward(
    grad: Any, u: Any, given: Any, result: Any, kind: int, width: Any, leak: Any, gain: Any, threshold: Any,
    attached: Any, soft: bool, raw: Any, wide: Any, raw_out: Any, wide_out: Any,
) -> None:  # fmt: skip
    """`Dynamics.through_time`; a `result` of one row is the sum over time."""
    steps, size = u.shape
    zero = np.float32(0)
    slope_, carried_, total_ = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for low in range(0, size, BLOCK):
        count = min(BLOCK, size - low)
        slope, carried, total = slope_[:count], carried_[:count], total_[:count]
        for n in range(count):
            carried[n] = zero
            total[n] = zero
        for t in range(steps - 1, -1, -1):
            ut = u[t, low : low + count]
            load(wide, grad[t, low : low + count], raw)
            slopes(slope, ut, given[t % len(given), low : low + count], kind, width, threshold)
            step_back(wide, ut, slope, carried, total, leak, gain, threshold, attached, soft)
            if len(result) > 1:
                store(result[t, low : low + count], slope, raw_out, wide_out)
        if len(result) == 1:
            for n in range(count):
                total[n] *= gain
            store(result[0, low : low + count], total, raw_out, wide_out)
