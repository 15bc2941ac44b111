"""Time to first spike: the brighter a pixel, the earlier its one spike."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from snnrobust.settings import PositiveInt
from snnrobust.spiking.encoder import Encoder, straight_through


class Latency(Encoder):
    """One spike per pixel, at step `round((T - 1)(1 - x))`: 1 at the first step, 0 at the last.

    Backward: the spike as if shared by the two steps on both sides of its time `t = (T - 1)(1 - x)`, by linear
    interpolation, `s_k = 1 - (t - k)` and `s_{k+1} = t - k` with `k = floor(t)`. Hence
    `dL/dx = (T - 1)(dL/ds_k - dL/ds_{k+1})`: what it would change to move the spike across the one rounding that
    the pixel can cross. The time that such a code stands for, `sum_t t s_t`, has its true slope `-(T - 1)`. A pixel
    that falls on a step belongs to that step and the next (at 0, the one before); with T = 1 nothing can move, and the
    gradient is 0.

    Equal to the linear latency encoder of SpikingJelly.
    """

    raw = True

    def __init__(self, steps: PositiveInt = 8, kind: Literal["images"] = "images") -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        time = ((self.steps - 1) * (1 - x)).clamp(0, self.steps - 1)
        step = torch.arange(self.steps, device=x.device, dtype=x.dtype).view(-1, *[1] * x.dim())
        fired = (time.detach().round() == step).to(x.dtype)
        before = time.detach().floor().clamp(max=max(self.steps - 2, 0))
        share = time - before  # of the later of the two steps
        return straight_through((before == step) * (1 - share) + (before + 1 == step) * share, fired)
