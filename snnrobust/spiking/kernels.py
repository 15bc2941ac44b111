"""The dynamics as one pass over memory each way: compiled once (seconds), then read from numba's cache.

The results of `Dynamics`, bit for bit forward, on the CPU in float32. Currents and spikes may be bfloat16 (spikes are
exact in it); membranes are float32 all the same. Where this does not apply, callers use the plain code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnrobust.spiking.dynamics import Dynamics
from snnrobust.spiking.surrogate import Surrogate

GIVEN, TRIANGLE, RECTANGLE, STRAIGHT, ATAN = range(5)
INLINE = {"triangle": TRIANGLE, "rectangle": RECTANGLE, "straight_through": STRAIGHT, "atan": ATAN}
"""Derivatives that the kernel computes itself; others are given to it."""
ONE = np.uint16(0x3F80)
"""The bits of 1 in bfloat16."""


def fits(x: Tensor) -> bool:
    """True if the kernels can run on it: CPU, float32 or bfloat16, not empty."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and x.numel() > 0


def fire(current: Tensor, steps: int, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Potentials (float32) and spikes (as the current), `[T, N, ...]` each; see `Dynamics.potentials`."""
    from snnrobust.spiking import machine

    current = _dense(current)
    shape, stride = (steps, *current.shape[1:]), (current[0].numel(), *current.stride()[1:])
    u = torch.empty_strided(shape, stride)
    s = torch.empty_strided(shape, stride, dtype=current.dtype)
    kind = 0 if dynamics.tau is None else 2 if dynamics.decay_input else 1
    tau, threshold = np.float32(dynamics.tau or 1.0), np.float32(dynamics.threshold)
    one = ONE if current.dtype == torch.bfloat16 else np.float32(1)
    machine.forward(_rows(current), _rows(u), _rows(s), one, kind, tau, threshold, *_buffers(current))
    return u, s


def through_time(
    grad: Tensor, u: Tensor, dynamics: Dynamics, surrogate: Surrogate | None, slope: Tensor | None, summed: bool
) -> Tensor:
    """`di` in the type of `grad`, see `Dynamics.through_time`; summed over time to `[1, N, ...]` if `summed`.

    The derivative comes from `surrogate` where that is among `INLINE`, else from `slope`.
    """
    from snnrobust.spiking import machine

    kind = INLINE[surrogate.name] if surrogate is not None and slope is None else GIVEN
    width = np.float32(surrogate.parameters[0] if surrogate is not None and surrogate.parameters else 1.0)
    given = _rows(u) if slope is None else _rows(_like(slope, u))
    result = torch.empty_strided((1 if summed else len(u), *u.shape[1:]), u.stride(), dtype=grad.dtype)
    attached = 0.0 if dynamics.detach_reset else 1.0
    numbers = [np.float32(n) for n in (width, dynamics.leak, dynamics.gain, dynamics.threshold, attached)]
    rows = [_rows(_like(grad, u)), _rows(u), given, _rows(result)]
    machine.backward(*rows, kind, *numbers, *_buffers(grad), *_buffers(result))
    return result


def _dense(x: Tensor) -> Tensor:
    """With steps one after the other in memory, each without gaps; channels-last stays channels-last."""
    step = x[0]
    packed = step.is_contiguous() or (step.dim() == 4 and step.is_contiguous(memory_format=torch.channels_last))
    return x if packed and (len(x) == 1 or x.stride(0) == step.numel()) else x.contiguous()


def _like(x: Tensor, u: Tensor) -> Tensor:
    if x.stride() == u.stride():
        return x
    return torch.empty_strided(u.shape, u.stride(), dtype=x.dtype).copy_(x)


def _rows(x: Tensor) -> NDArray[Any]:
    """A dense tensor as a matrix `[T, n]` on the same memory; bfloat16 as its bits."""
    flat = torch.as_strided(x.detach(), (len(x), x[0].numel()), (x[0].numel(), 1))
    return flat.numpy() if x.dtype == torch.float32 else flat.view(torch.int16).numpy().view(np.uint16)


def _buffers(x: Tensor) -> tuple[NDArray[np.uint32] | None, NDArray[np.float32]]:
    """A block of float32, and its bits where it is converted from or to bfloat16."""
    from snnrobust.spiking import machine

    raw = np.empty(machine.BLOCK, np.uint32)
    return (None if x.dtype == torch.float32 else raw), raw.view(np.float32)
