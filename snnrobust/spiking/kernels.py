"""The dynamics as one pass over memory each way: compiled once (seconds), then read from numba's cache.

Same results as `Dynamics`, bit for bit forward. CPU and float32; where this does not apply, callers use the plain code.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnrobust.spiking.dynamics import Dynamics
from snnrobust.spiking.surrogate import Surrogate

BLOCK = 2048
"""Neurons per block: a block's state stays in the first-level cache over all time steps."""
GIVEN, TRIANGLE, RECTANGLE, STRAIGHT, ATAN = range(5)
INLINE = {"triangle": TRIANGLE, "rectangle": RECTANGLE, "straight_through": STRAIGHT, "atan": ATAN}
"""Derivatives that the kernel computes itself; others are given to it."""
Array = NDArray[np.float32]


def fits(current: Tensor) -> bool:
    """True if the kernels can run on it: CPU, float32, not empty."""
    return current.device.type == "cpu" and current.dtype == torch.float32 and current.numel() > 0


def fire(current: Tensor, steps: int, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Potentials and spikes, `[T, N, ...]` each; see `Dynamics.potentials`."""
    current = _dense(current)
    u = torch.empty_strided((steps, *current.shape[1:]), (current[0].numel(), *current.stride()[1:]))
    s = torch.empty_like(u)
    kind = 0 if dynamics.tau is None else 2 if dynamics.decay_input else 1
    tau = np.float32(dynamics.tau or 1.0)
    forward, _ = _compiled()
    forward(_rows(current), _rows(u), _rows(s), kind, tau, np.float32(dynamics.threshold))
    return u, s


def through_time(
    grad: Tensor, u: Tensor, dynamics: Dynamics, surrogate: Surrogate | None, slope: Tensor | None, summed: bool
) -> Tensor:
    """`di`, see `Dynamics.through_time`; summed over time to `[1, N, ...]` if `summed`.

    The derivative comes from `surrogate` where that is among `INLINE`, else from `slope`.
    """
    kind = INLINE[surrogate.name] if surrogate is not None and slope is None else GIVEN
    width = np.float32(surrogate.parameters[0] if surrogate is not None and surrogate.parameters else 1.0)
    given = _rows(_like(slope, u)) if slope is not None else np.empty((1, 1), np.float32)
    result = torch.empty_strided((1 if summed else len(u), *u.shape[1:]), u.stride())
    _, backward = _compiled()
    numbers = [np.float32(n) for n in (dynamics.leak, dynamics.threshold, 0.0 if dynamics.detach_reset else 1.0)]
    backward(_rows(_like(grad, u)), _rows(u), given, _rows(result), kind, width, *numbers)
    return result if dynamics.gain == 1.0 else result.mul_(dynamics.gain)


def _dense(x: Tensor) -> Tensor:
    """With steps one after the other in memory, each without gaps; channels-last stays channels-last."""
    step = x[0]
    packed = step.is_contiguous() or (step.dim() == 4 and step.is_contiguous(memory_format=torch.channels_last))
    return x if packed and (len(x) == 1 or x.stride(0) == step.numel()) else x.contiguous()


def _like(x: Tensor, u: Tensor) -> Tensor:
    return x if x.stride() == u.stride() else torch.empty_like(u).copy_(x)


def _rows(x: Tensor) -> Array:
    """A dense tensor as a matrix `[T, n]` on the same memory."""
    rows: Array = torch.as_strided(x.detach(), (len(x), x[0].numel()), (x[0].numel(), 1)).numpy()
    return rows


@cache
def _compiled() -> tuple[Callable[..., None], Callable[..., None]]:
    """The two kernels; without a folder to cache machine code in, they are compiled in every process."""
    from numba import njit
    from numba.core.errors import NumbaWarning

    def compiled(function: Callable[..., None]) -> Callable[..., None]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumbaWarning)
            try:
                kernel: Any = njit(function, cache=True, nogil=True, error_model="numpy")
            except RuntimeError:
                kernel = njit(function, nogil=True, error_model="numpy")
        result: Callable[..., None] = kernel
        return result

    return compiled(_forward), compiled(_backward)


def _forward(i: Array, u: Array, s: Array, kind: int, tau: np.float32, threshold: np.float32) -> None:
    steps, size = u.shape
    one, zero = np.float32(1), np.float32(0)
    v = np.empty(BLOCK, np.float32)
    for low in range(0, size, BLOCK):
        count = min(BLOCK, size - low)
        for n in range(count):
            v[n] = zero
        for t in range(steps):
            it = i[t if len(i) > 1 else 0, low : low + count]
            ut = u[t, low : low + count]
            st = s[t, low : low + count]
            if kind == 0:
                for n in range(count):
                    ut[n] = v[n] + it[n]
            elif kind == 1:
                for n in range(count):
                    ut[n] = v[n] - v[n] / tau + it[n]
            else:
                for n in range(count):
                    ut[n] = v[n] + (it[n] - v[n]) / tau
            for n in range(count):
                p = ut[n]
                st[n] = one if p >= threshold else zero
                v[n] = zero if p >= threshold else p


def _backward(
    grad: Array, u: Array, given: Array, result: Array, kind: int, width: np.float32,
    leak: np.float32, threshold: np.float32, attached: np.float32,
) -> None:  # fmt: skip
    steps, size = u.shape
    one, zero, half = np.float32(1), np.float32(0), np.float32(0.5)
    slope, carried = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    scale = one / (width * width)
    bend = np.float32(0.5 * np.pi) * width
    for low in range(0, size, BLOCK):
        count = min(BLOCK, size - low)
        for n in range(count):
            carried[n] = zero
        if len(result) == 1:
            for n in range(count):
                result[0, low + n] = zero
        for t in range(steps - 1, -1, -1):
            ut = u[t, low : low + count]
            gt = grad[t, low : low + count]
            if kind == 1:
                for n in range(count):
                    a = width - abs(ut[n] - threshold)
                    slope[n] = (a if a > zero else zero) * scale
            elif kind == 2:
                for n in range(count):
                    slope[n] = one / width if abs(ut[n] - threshold) < half * width else zero
            elif kind == 3:
                for n in range(count):
                    slope[n] = one
            elif kind == 4:
                for n in range(count):
                    q = bend * (ut[n] - threshold)
                    slope[n] = half * width / (one + q * q)
            else:
                for n in range(count):
                    slope[n] = given[t, low + n]
            if len(result) == 1:
                rt = result[0, low : low + count]
                for n in range(count):
                    keep = zero if ut[n] >= threshold else one
                    du = gt[n] * slope[n] + carried[n] * (keep - attached * ut[n] * slope[n])
                    carried[n] = leak * du
                    rt[n] += du
            else:
                rt = result[t, low : low + count]
                for n in range(count):
                    keep = zero if ut[n] >= threshold else one
                    du = gt[n] * slope[n] + carried[n] * (keep - attached * ut[n] * slope[n])
                    carried[n] = leak * du
                    rt[n] = du
