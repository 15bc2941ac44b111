"""The loops of `machine.py` with 2x2 average pooling behind the spikes, which are then never written to memory.

Pictures lie channels-last: a block is two rows of one picture, `2 * row` entries with `row = width * channels`, and
gives one row of `row / 2` pooled entries.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from snnrobust.spiking.machine import charge, compiled, fire, load, slopes, step_back, store


@compiled
def forward(
    i: Any, u: Any, pooled: Any, row: int, channels: int, kind: int, number: Any, threshold: Any,
    soft: bool, raw: Any, wide: Any, raw_out: Any, wide_out: Any,
) -> None:  # fmt: skip
    """Currents `[T or 1, n]` to potentials `[T, n]` and pooled spikes `[T, n / 4]`."""
    steps, size = u.shape
    one, zero, quarter = np.float32(1), np.float32(0), np.float32(0.25)
    v, s, means = np.empty(2 * row, np.float32), np.empty(2 * row, np.float32), np.empty(row // 2, np.float32)
    for block in range(size // (2 * row)):
        low, high = block * 2 * row, (block + 1) * 2 * row
        for n in range(2 * row):
            v[n] = zero
        for t in range(steps):
            if t == 0 or len(i) > 1:
                load(wide, i[t, low:high], raw)
            ut = u[t, low:high]
            charge(v, wide, ut, kind, number)
            fire(v, ut, s, one, threshold, soft)
            for left in range(0, row, 2 * channels):
                a, b = s[left : left + channels], s[left + channels : left + 2 * channels]
                c, d = s[row + left : row + left + channels], s[row + left + channels : row + left + 2 * channels]
                mean = means[left // 2 : left // 2 + channels]
                for n in range(channels):
                    mean[n] = (a[n] + b[n] + c[n] + d[n]) * quarter
            store(pooled[t, block * (row // 2) : (block + 1) * (row // 2)], means, raw_out, wide_out)


@compiled
def backward(
    grad: Any, u: Any, given: Any, result: Any, row: int, channels: int, kind: int, width: Any, leak: Any, gain: Any,
    threshold: Any, attached: Any, soft: bool, raw: Any, wide: Any, raw_out: Any, wide_out: Any,
) -> None:  # fmt: skip
    """From the gradient of the pooled spikes `[T, n / 4]` to that of the currents; one row is the sum over time."""
    steps, size = u.shape
    zero, quarter = np.float32(0), np.float32(0.25)
    spread, slope = np.empty(2 * row, np.float32), np.empty(2 * row, np.float32)
    carried, total = np.empty(2 * row, np.float32), np.empty(2 * row, np.float32)
    for block in range(size // (2 * row)):
        low, high = block * 2 * row, (block + 1) * 2 * row
        for n in range(2 * row):
            carried[n] = zero
            total[n] = zero
        for t in range(steps - 1, -1, -1):
            ut = u[t, low:high]
            load(wide, grad[t, block * (row // 2) : (block + 1) * (row // 2)], raw)
            for left in range(0, row, 2 * channels):
                mean = wide[left // 2 : left // 2 + channels]
                a, b = spread[left : left + channels], spread[left + channels : left + 2 * channels]
                c = spread[row + left : row + left + channels]
                d = spread[row + left + channels : row + left + 2 * channels]
                for n in range(channels):
                    share = mean[n] * quarter
                    a[n] = share
                    b[n] = share
                    c[n] = share
                    d[n] = share
            slopes(slope, ut, given[t % len(given), low:high], kind, width, threshold)
            step_back(spread, ut, slope, carried, total, leak, gain, threshold, attached, soft)
            if len(result) > 1:
                store(result[t, low:high], slope, raw_out, wide_out)
        if len(result) == 1:
            for n in range(2 * row):
                total[n] *= gain
            store(result[0, low:high], total, raw_out, wide_out)
