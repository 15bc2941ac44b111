"""Classifiers that show one property each, and a record of everything that may not change."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snnrobust.threat import Bounds

CLASSES = 4


class Toy(nn.Module):
    """Batch norm, a hidden tanh layer and dropout: has buffers, modes and parameters; smooth in eval mode."""

    stochastic = False

    def __init__(self, entries: int, classes: int = CLASSES, bounds: Bounds | None = None, seed: int = 0) -> None:
        super().__init__()
        self.bounds = bounds or Bounds()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.norm = nn.BatchNorm1d(entries)
            self.hidden = nn.Linear(entries, 16)
            self.drop = nn.Dropout(0.5)
            self.out = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out(self.drop(torch.tanh(3 * self.hidden(self.norm(x.flatten(1))))))
        return logits


class Linear(nn.Module):
    """Logits `W x + b`."""

    stochastic = False

    def __init__(self, weight: Tensor, bias: Tensor, bounds: Bounds | None = None) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.bounds = bounds or Bounds()

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


class Restless(Toy):
    """Draws from every global stream, counts its calls, and raises at the call `fails_at`."""

    calls = 0
    fails_at: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
        self.norm.running_mean.add_(0.01)  # type: ignore[union-attr]
        self.calls += 1
        if self.calls == self.fails_at:
            raise RuntimeError("the model gave up")
        return super().forward(x)


class Shy(Toy):
    """Class 0 where every entry is 0.5 and another class anywhere else; a search ends where its start sends it."""

    def forward(self, x: Tensor) -> Tensor:
        distance = (x.flatten(1) - 0.5).abs().sum(1)
        return torch.stack([1e-3 - distance, *(-i + 0 * distance for i in range(CLASSES - 1))], 1)


class Flat(Toy):
    """Logits that do not depend on the input; the gradient is 0 everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.zeros_like(x)) + 0 * x.flatten(1).sum(1, keepdim=True)


class Broken(Toy):
    """Finite logits with a gradient of NaN in every entry."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (0 * x.flatten(1)).sqrt().sum(1, keepdim=True)


def disturb(model: nn.Module) -> None:
    """Modes, frozen parameters and gradients that differ from module to module."""
    model.train()
    modules = [*model.modules()]
    modules[1].eval()
    parameters = [*model.parameters()]
    parameters[0].requires_grad_(False)
    for parameter in parameters[1:]:
        parameter.grad = torch.ones_like(parameter)


def state_of(model: nn.Module) -> dict[str, Any]:
    """Training flags per module, parameters and buffers with content, `requires_grad` and `.grad`."""
    content: dict[str, Any] = {f"training {name}": module.training for name, module in model.named_modules()}
    for name, buffer in model.named_buffers():
        content[f"buffer {name}"] = buffer.clone()
    for name, parameter in model.named_parameters():
        content[f"parameter {name}"] = parameter.detach().clone()
        content[f"requires_grad {name}"] = parameter.requires_grad
        content[f"grad {name}"] = None if parameter.grad is None else parameter.grad.clone()
    return content


def streams() -> dict[str, Any]:
    """The state of the global streams of torch, NumPy and Python."""
    _, keys, position, *_ = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy position": position,
        "python": random.getstate(),
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    for name, value in before.items():
        same = torch.equal(value, after[name]) if isinstance(value, Tensor) else value == after[name]
        assert same, f"{name} changed"


@contextmanager
def watched(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collects every input that the model is given."""
    points: list[Tensor] = []
    hook = model.register_forward_pre_hook(lambda _, inputs: points.append(inputs[0].detach().clone()))
    try:
        yield points
    finally:
        hook.remove()
