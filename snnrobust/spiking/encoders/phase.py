"""Bit planes: a pixel's grey level in binary, one digit per step."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from snnrobust.settings import PositiveInt
from snnrobust.spiking.encoder import Encoder, straight_through

PLANES = 8


class Phase(Encoder):
    """The 8 bits of the grey level `round(255 x)`, most significant first, over and over: step t shows bit `t mod 8`.

    Luu et al. 2025 (arXiv 2509.23762) show the bits unweighted, and have T = 10: the two highest bits come twice.
    Kim et al. 2018 (doi 10.1016/j.neucom.2018.05.087) weight them by what they are worth, `2^-(k+1)` for bit k; then
    8 steps add up to the grey level over 256.

    Backward: straight-through, `ds_t/dx = 1` for every bit (times its weight, if weighted), summed over the steps. With
    it the weighted sum of the 8 bits has exactly its true slope, 255/256. The slopes of the straight lines that fit
    the bits over all grey levels, which fall from 1.5 for the highest bit by half from bit to bit, have that property
    too; but a small budget rarely reaches the highest bits, and PGD along them finds less (`docs/encoders.md`).

    Args:
        steps: T; fewer than 8 leave the lowest bits out.
        weighted: bit k has the value `2^-(k+1)` instead of 1.
    """

    raw = True

    def __init__(self, steps: PositiveInt = 10, weighted: bool = False, kind: Literal["images"] = "images") -> None:
        super().__init__()
        self.steps = steps
        self.weighted = weighted

    def forward(self, x: Tensor) -> Tensor:
        bit = torch.arange(self.steps, device=x.device).remainder(PLANES).view(-1, *[1] * x.dim())
        level = (255 * x.detach()).round().clamp(0, 255).int()
        planes = ((level >> (PLANES - 1 - bit)) & 1).to(x.dtype)
        worth = torch.exp2(-1.0 - bit).to(x.dtype) if self.weighted else torch.ones_like(planes[:, :1])
        return straight_through(x * worth, planes * worth)

    def peak(self, size: tuple[int, int]) -> float:
        return 0.5 if self.weighted else 1.0
