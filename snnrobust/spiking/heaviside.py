"""The step function with a derivative of choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Heaviside(torch.autograd.Function):
    """`[q >= 0]`; backward: the gradient times `derivative(q)`."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, derivative: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(q)
        ctx.derivative = derivative
        return (q >= 0).to(q.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.derivative(ctx.saved_tensors[0]), None
