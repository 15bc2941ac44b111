"""The dynamics as one pass over memory each way: compiled once (seconds), then read from numba's cache.

The results of `Dynamics`, bit for bit forward, on the CPU in float32. Currents and spikes may be bfloat16 (spikes are
exact in it); membranes are float32 all the same. Where this does not apply, callers use the plain code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnrobust.spiking.dynamics import Dynamics, IntegrateAndFire, ParametricLeak
from snnrobust.spiking.surrogate import Surrogate

GIVEN, TRIANGLE, RECTANGLE, STRAIGHT, ATAN = range(5)
INLINE = {"triangle": TRIANGLE, "rectangle": RECTANGLE, "straight_through": STRAIGHT, "atan": ATAN}
"""Derivatives that the kernel computes itself; others are given to it."""
Known = IntegrateAndFire | ParametricLeak
"""Dynamics that there are kernels for."""
ONE = np.uint16(0x3F80)
"""The bits of 1 in bfloat16."""


def fits(dynamics: Dynamics, x: Tensor) -> TypeGuard[Known]:
    """True if the kernels can run these dynamics on it: CPU, float32 or bfloat16, not empty."""
    known = isinstance(dynamics, IntegrateAndFire | ParametricLeak)
    return known and x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and x.numel() > 0


def pools(dynamics: Dynamics, current: Tensor) -> bool:
    """True if spikes of the current `[T, N, C, H, W]` can be pooled as they are made: even height and width."""
    return fits(dynamics, current) and current.dim() == 5 and not (current.shape[3] % 2 or current.shape[4] % 2)


def fire(current: Tensor, steps: int, dynamics: Known) -> tuple[Tensor, Tensor]:
    """Potentials (float32) and spikes (as the current), `[T, N, ...]` each; see `Dynamics.potentials`."""
    from snnrobust.spiking import machine

    current = _dense(current)
    shape, stride = (steps, *current.shape[1:]), (current[0].numel(), *current.stride()[1:])
    u = torch.empty_strided(shape, stride)
    s = torch.empty_strided(shape, stride, dtype=current.dtype)
    one = ONE if current.dtype == torch.bfloat16 else np.float32(1)
    machine.forward(_rows(current), _rows(u), _rows(s), one, *_charging(dynamics), *_buffers(current))
    return u, s


def fire_pooled(current: Tensor, steps: int, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Potentials, and spikes averaged over 2x2 entries, `[T, N, C, H / 2, W / 2]`; both channels-last."""
    from snnrobust.spiking import machine_pooled

    assert isinstance(dynamics, Known)
    current = _channels_last(current)
    _, number, channels, height, width = current.shape
    u = _pictures(steps, current.shape, torch.float32)
    pooled = _pictures(steps, (1, number, channels, height // 2, width // 2), current.dtype)
    rows = [_rows(current), _rows(u), _rows(pooled)]
    sizes, out = (width * channels, channels), _buffers(pooled, width * channels)
    machine_pooled.forward(*rows, *sizes, *_charging(dynamics), *_buffers(current, 2 * width * channels), *out)
    return u, pooled


def through_time(
    grad: Tensor, u: Tensor, dynamics: Known, surrogate: Surrogate | None, slope: Tensor | None, summed: bool
) -> Tensor:
    """`di` in the type of `grad`, see `Dynamics.through_time`; summed over time to `[1, N, ...]` if `summed`.

    A `grad` of half the height and width is that of the pooled spikes.

    The derivative comes from `surrogate` where that is among `INLINE`, else from `slope`.
    """
    from snnrobust.spiking import machine, machine_pooled

    kind = INLINE[surrogate.name] if surrogate is not None and slope is None else GIVEN
    width = np.float32(surrogate.parameters[0] if surrogate is not None and surrogate.parameters else 1.0)
    given = _rows(u) if slope is None else _rows(_like(slope, u))
    result = torch.empty_strided((1 if summed else len(u), *u.shape[1:]), u.stride(), dtype=grad.dtype)
    attached = 0.0 if dynamics.detach_reset else 1.0
    its = (width, dynamics.leak, dynamics.gain, dynamics.threshold, attached)
    numbers = [*(np.float32(float(n)) for n in its), dynamics.reset == "soft"]
    if grad.shape == u.shape:
        rows = [_rows(_like(grad, u)), _rows(u), given, _rows(result)]
        machine.backward(*rows, kind, *numbers, *_buffers(grad), *_buffers(result))
    else:
        channels, columns = u.shape[2], u.shape[4]
        rows = [_rows(_channels_last(grad)), _rows(u), given, _rows(result)]
        buffers = *_buffers(grad, columns * channels), *_buffers(result, 2 * columns * channels)
        machine_pooled.backward(*rows, columns * channels, channels, kind, *numbers, *buffers)
    return result


def _charging(dynamics: Known) -> tuple[int, np.float32, np.float32, bool]:
    """How the kernels are told the dynamics: kind of charge and its number, threshold, whether the reset is soft."""
    if isinstance(dynamics, ParametricLeak):
        kind, number = 4 if dynamics.decay_input else 3, float(dynamics.decay)
    else:
        kind, number = 0 if dynamics.tau is None else 2 if dynamics.decay_input else 1, dynamics.tau or 1.0
    return kind, np.float32(number), np.float32(float(dynamics.threshold)), dynamics.reset == "soft"


def _pictures(steps: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """`[T, N, C, H, W]`, not filled, channels-last."""
    _, number, channels, height, width = shape
    return torch.empty((steps, number, height, width, channels), dtype=dtype).permute(0, 1, 4, 2, 3)


def _channels_last(x: Tensor) -> Tensor:
    """`[T, N, C, H, W]` with the memory of `[T, N, H, W, C]`."""
    return x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


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


def _buffers(x: Tensor, size: int = 0) -> tuple[NDArray[np.uint32] | None, NDArray[np.float32]]:
    """A block of float32, and its bits where it is converted from or to bfloat16."""
    from snnrobust.spiking import machine

    raw = np.empty(max(size, machine.BLOCK), np.uint32)
    return (None if x.dtype == torch.float32 else raw), raw.view(np.float32)
