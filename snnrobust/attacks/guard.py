"""What an attack may not touch, kept as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def untouched(model: object) -> Iterator[None]:
    """Runs its body with `model` in eval mode and its parameters frozen; restores everything on exit, also on error.

    Restored, module by module: training flags; for parameters `requires_grad` and `.grad`; the content of buffers.
    A model that is not a `torch.nn.Module` has none of these and is left alone.
    """
    if not isinstance(model, nn.Module):
        yield
        return
    training = [(module, module.training) for module in model.modules()]
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    buffers = [(b, b.detach().clone()) for b in model.buffers()]
    try:
        model.eval()
        for parameter, _, _ in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
        yield
    finally:
        for module, mode in training:
            module.training = mode
        for parameter, requires_grad, grad in parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad
        with torch.no_grad():
            for buffer, content in buffers:
                buffer.copy_(content)
