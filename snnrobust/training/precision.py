"""The precision of the training passes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import nn

Precision = Literal["float32", "bfloat16"]


def rounded(model: nn.Module, precision: Precision) -> AbstractContextManager[object]:
    """While open, convolutions and linear layers compute in bfloat16, if that is the precision (torch's autocast).

    Weights, their gradients and the membranes stay in float32, and so do logits and losses. Rounded weights are not
    kept for the next pass: one that was made without a graph would cut the gradient of a pass with one.

    Args:
        model: tells the device.
        precision: of these layers.
    """
    if precision == "float32":
        return nullcontext()
    device = next(model.parameters()).device.type
    return torch.autocast(device, torch.bfloat16, cache_enabled=False)
