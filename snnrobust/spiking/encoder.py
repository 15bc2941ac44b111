"""Input codes: how an input becomes a sequence over T steps, with a gradient back to the input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from snnrobust.randomness import fresh
from snnrobust.settings import PositiveInt


class Encoder(nn.Module, ABC):
    """`x` `[B, C, H, W]` (images) or `[B, T, C, H, W]` (event frames), in [0, 1], to `[T, B, C, H, W]`.

    `spiking`: the code consists of spikes, made from raw inputs (a normalisation before it would break the rate).
    `stochastic`: it draws anew at every call, with `randomness.fresh`.
    """

    steps: int
    spiking: bool = False
    stochastic: bool = False

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...


class Direct(Encoder):
    """The same normalised image at every step (constant current); the gradient is summed over the steps."""

    def __init__(self, steps: PositiveInt = 8, kind: Literal["images"] = "images") -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(0).expand(self.steps, *x.shape)


class Poisson(Encoder):
    """`s_t = [x >= U_t]` with fresh `U_t ~ U(0, 1)` per pixel and step, so that `E s_t = x`.

    Backward: straight-through, `ds_t/dx = 1`, summed over the steps.
    """

    spiking = True
    stochastic = True

    def __init__(self, steps: PositiveInt = 8, kind: Literal["images"] = "images") -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        rate = x.unsqueeze(0).expand(self.steps, *x.shape)
        # rand draws from [0, 1): `x > U` fires never at 0 and always at 1.
        spikes = (rate.detach() > fresh(rate, batch=1)).to(x.dtype)
        through: Tensor = _StraightThrough.apply(rate, spikes)
        return through


class _StraightThrough(torch.autograd.Function):
    """Forward: the given spikes, exactly. Backward: identity to the rate."""

    @staticmethod
    def forward(ctx: object, rate: Tensor, spikes: Tensor) -> Tensor:
        return spikes.view_as(spikes)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class Frames(Encoder):
    """Event frames as they are: batch-first `[B, T, C, H, W]` to time-major `[T, B, C, H, W]`."""

    def __init__(self, steps: PositiveInt = 8, kind: Literal["events"] = "events") -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 5 or x.shape[1] != self.steps:
            raise ValueError(f"event frames [B, {self.steps}, C, H, W] expected, got {list(x.shape)}")
        return x.transpose(0, 1)
