"""Frequencies: an image that loses its details step by step."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from snnrobust.settings import PositiveInt
from snnrobust.spiking.encoder import Encoder

PUBLISHED_STEPS = 8


class Frequency(Encoder):
    """`x_t = |ifft2(M_t fft2(x))|` with square low-pass masks of falling half-width: the frequency encoding of FEEL-SNN
    (Xu et al., NeurIPS 2024).

    At step t the mask keeps, along each axis of n pixels, frequencies up to `(1 - t / max(T, 8)) n / 2` cycles per
    image: on 32 x 32 the 16, 14, ..., 2 that are published for T = 8, and 16, 14, 12, 10 for T = 4. The first step is
    the image itself. Inputs are raw; nothing is normalised afterwards.

    Backward: exact; the gradient goes through the transforms and the absolute value.

    Args:
        steps: T.
        mask: `published` keeps frequencies `-w <= f < w`, as the code of the paper does: without the partner of `-w`
            the filtered image is complex, and its absolute value is no low-pass of the image. `symmetric` keeps
            `|f| <= w`: the filtered image is real.
    """

    raw = True

    def __init__(
        self,
        steps: PositiveInt = 8,
        mask: Literal["published", "symmetric"] = "published",
        kind: Literal["images"] = "images",
    ) -> None:
        super().__init__()
        self.steps = steps
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        masks = _masks(self.steps, self.mask, (x.shape[-2], x.shape[-1]), x.device)[:, None, None]
        filtered = torch.fft.ifft2(torch.fft.fft2(x) * masks)
        # Where nothing is filtered, rounding would decide the sign of the gradient of black pixels.
        return torch.where(masks.all((-2, -1), keepdim=True), x, filtered.abs())

    def masks(self, size: tuple[int, int]) -> Tensor:
        """`[T, H, W]` bool: the frequencies that are kept at each step, in the order of `fft2`."""
        return _masks(self.steps, self.mask, size, torch.device("cpu")).clone()

    def peak(self, size: tuple[int, int]) -> float:
        """A bound: the sum of the absolute values of the widest filter kernel. Sharp edges overshoot."""
        kernels: Tensor = torch.fft.ifft2(self.masks(size).double()).abs().sum((1, 2))
        return float(kernels.max())


@lru_cache(maxsize=16)
def _masks(steps: int, mask: str, size: tuple[int, int], device: torch.device) -> Tensor:
    """`[T, H, W]` bool, made once per device and kept: nobody may write to it."""
    with torch.inference_mode(False):  # or autograd could not use it later
        share = 1 - torch.arange(steps, device="cpu") / max(steps, PUBLISHED_STEPS)
        rows, columns = (_kept(n, mask, share) for n in size)
        return (rows.unsqueeze(2) & columns.unsqueeze(1)).to(device)


def _kept(n: int, mask: str, share: Tensor) -> Tensor:
    """`[T, n]` along one axis."""
    frequency = (torch.fft.fftfreq(n, device="cpu") * n).round()
    width = (share * n / 2).unsqueeze(1)
    inside = frequency < width if mask == "published" else frequency <= width
    kept: Tensor = (frequency >= -width) & inside
    return kept
