"""Input codes: how an input becomes a sequence over T steps, with a gradient back to the input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from snnrobust.randomness import fresh
from snnrobust.settings import PositiveInt


class Encoder(nn.Module, ABC):
    """`x` `[B, C, H, W]` (images) or `[B, T, C, H, W]` (event frames) to `[T, B, C, H, W]`.

    The code of a sample depends on that sample alone, and has a gradient to it.

    `raw`: it is made from the inputs as they are, in [0, 1]; its entries are not negative. Otherwise the classifier
    normalises the inputs before, and the code consists of normalised inputs.
    `stochastic`: it draws anew at every call, with `randomness.fresh`.
    """

    steps: int
    raw: bool = False
    stochastic: bool = False

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...

    def peak(self, size: tuple[int, int]) -> float:
        """The largest entry that a raw code of inputs in [0, 1] of this height and width can have, or a bound on it."""
        return 1.0


def straight_through(value: Tensor, code: Tensor) -> Tensor:
    """`code`, exactly, with the gradient of `value`, which has the same shape."""
    through: Tensor = _StraightThrough.apply(value, code)
    return through


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

    raw = True
    stochastic = True

    def __init__(self, steps: PositiveInt = 8, kind: Literal["images"] = "images") -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        rate = x.unsqueeze(0).expand(self.steps, *x.shape)
        # rand draws from [0, 1): `x > U` fires never at 0 and always at 1.
        spikes = (rate.detach() > fresh(rate, batch=1)).to(x.dtype)
        return straight_through(rate, spikes)


class _StraightThrough(torch.autograd.Function):
    """Forward: the code. Backward: identity to the value."""

    @staticmethod
    def forward(ctx: object, value: Tensor, code: Tensor) -> Tensor:
        return code.view_as(code)

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
