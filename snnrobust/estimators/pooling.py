"""A smoother backward pass of max pooling, which otherwise sends the whole gradient to one entry of each window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor, nn

from snnrobust.estimators.base import Estimator
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.settings import Positive
from snnrobust.spiking.classifier import Classifier

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MaxPoolSubstitute(Estimator):
    """Max pooling, differentiated as average or softmax pooling (BPDA, Athalye et al. 2018); its values stay.

    It replaces the backward pass of every `torch.nn.MaxPool2d` of the model.

    Args:
        backward: `average`: an equal share to every entry of a window (padding gets none); `softmax`: shares
            `softmax(x / temperature)` over the window.
        temperature: of the softmax, in units of what is pooled.
        estimator: of everything else; of an ensemble, each member is used with the substitute.

    Raises:
        ValueError: when applied to a model without max pooling.
    """

    backward: Literal["average", "softmax"] = "average"
    temperature: Positive = 1.0
    estimator: Estimator = TRAINED

    def members(self) -> Mapping[str, Estimator]:
        return {name: replace(self, estimator=member) for name, member in self.estimator.members().items()}

    @contextmanager
    def applied(self, model: Classifier) -> Iterator[Classifier]:
        pools = _pools(model)
        before = [vars(pool).get("forward") for pool in pools]
        temperature = self.temperature if self.backward == "softmax" else math.inf
        try:
            for pool in pools:
                vars(pool)["forward"] = _substituted(pool, pool.forward, temperature)
            with self.estimator.applied(model) as view:
                yield view
        finally:
            for pool, forward in zip(pools, before, strict=True):
                vars(pool).pop("forward", None)
                if forward is not None:
                    vars(pool)["forward"] = forward


def _pools(model: Classifier) -> list[nn.MaxPool2d]:
    modules = model.modules() if isinstance(model, nn.Module) else ()
    pools = [module for module in modules if isinstance(module, nn.MaxPool2d)]
    if not pools or any(pool.return_indices for pool in pools):
        got = "one that returns indices" if pools else "none"
        raise ValueError(
            f"estimator: max pooling is substituted in torch.nn.MaxPool2d, and {type(model).__name__} has {got}; "
            "allowed: any other estimator"
        )
    return pools


def _substituted(pool: nn.MaxPool2d, forward: Forward, temperature: float) -> Forward:
    def call(x: Tensor) -> Tensor:
        pooled: Tensor = _Pool.apply(x, pool, forward, temperature)
        return pooled

    return call


class _Pool(torch.autograd.Function):
    """Forward as the layer itself; backward as softmax pooling, in the limit as average pooling."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pool: nn.MaxPool2d, forward: Forward, temperature: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.pool, ctx.temperature = pool, temperature
        # A copy, since a view of what was pooled in another shape could not be changed in place by the next layer.
        return forward(x).clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _shared_out(grad, ctx.saved_tensors[0] / ctx.temperature, ctx.pool), None, None, None


def _shared_out(grad: Tensor, scores: Tensor, pool: nn.MaxPool2d) -> Tensor:
    """The gradient `[..., h, w]` of pooled values, shared out over `[..., H, W]` by the softmax of scores."""
    size, stride, padding, dilation = map(_pair, (pool.kernel_size, pool.stride, pool.padding, pool.dilation))
    (height, width), (rows, columns) = scores.shape[-2:], grad.shape[-2:]
    # Windows may reach beyond the end (padding, ceil_mode); entries that are not there get nothing.
    below = max(0, (rows - 1) * stride[0] + (size[0] - 1) * dilation[0] + 1 - height - padding[0])
    right = max(0, (columns - 1) * stride[1] + (size[1] - 1) * dilation[1] + 1 - width - padding[1])
    scores = nn.functional.pad(scores, (padding[1], right, padding[0], below), value=-math.inf)

    def of_each_window(entries: Tensor, down: int, across: int) -> Tensor:
        """The entry at one place of every window, `[..., h, w]`, as a view."""
        return entries[..., down * dilation[0] :: stride[0], across * dilation[1] :: stride[1]][..., :rows, :columns]

    places = [*product(range(size[0]), range(size[1]))]
    shares = torch.stack([of_each_window(scores, *place) for place in places]).softmax(0)
    result = torch.zeros_like(scores)
    for place, share in zip(places, shares, strict=True):
        of_each_window(result, *place).addcmul_(share, grad)
    return result[..., padding[0] : padding[0] + height, padding[1] : padding[1] + width]


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
