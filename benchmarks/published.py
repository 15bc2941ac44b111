"""SR in the style in which papers publish it, written from the formulas: what the benchmark of training compares with.

Eager neurons, one operation after the other at every step; the stem computed anew at every step; the regularizer sample
by sample, with copies to the host.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.networks import replaced
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.dynamics import IntegrateAndFire
from snnrobust.spiking.encoder import Encoder
from snnrobust.spiking.neuron import Neuron


class Triangle(torch.autograd.Function):
    """`[q >= 0]`, with the derivative `max(0, 1 - |q|)`."""

    @staticmethod
    def forward(ctx: Any, q: Tensor) -> Tensor:
        ctx.save_for_backward(q)
        return (q >= 0).float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (q,) = ctx.saved_tensors
        result: Tensor = grad * (1 - q.abs()).clamp(min=0)
        return result


class Stepwise(nn.Module):
    """Integrate-and-fire, leaky or not, with an attached hard reset, in a loop over time."""

    def __init__(self, leak: float, threshold: float) -> None:
        super().__init__()
        self.leak, self.threshold = leak, threshold

    def forward(self, current: Tensor) -> Tensor:
        potential = torch.zeros_like(current[0])
        spikes = []
        for t in range(len(current)):
            potential = self.leak * potential + current[t]
            spike = Triangle.apply(potential - self.threshold)
            potential = (1 - spike) * potential
            spikes.append(spike)
        return torch.stack(spikes)


class Repeated(Encoder):
    """The picture, copied for every step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(0).repeat(self.steps, *(1,) * x.dim())


def published(model: SpikingClassifier) -> SpikingClassifier:
    """The same weights, in this style."""

    def stepwise(neuron: Neuron) -> nn.Module:
        its = neuron.dynamics
        assert isinstance(its, IntegrateAndFire)
        assert (its.reset, its.detach_reset, its.decay_input) == ("hard", False, False)
        return Stepwise(float(its.leak), float(its.threshold))

    twin = replaced(model, stepwise)
    twin.encoder = Repeated(model.encoder.steps)
    return twin


def sample_by_sample(model: nn.Module, x: Tensor, y: Tensor, logits: Tensor, step: float) -> Tensor:
    """The regularizer."""

    def probabilities(z: Tensor, others: list[int]) -> list[Tensor]:
        return [
            torch.exp(z[i, y[i]]) / (torch.exp(z[i, y[i]]) + torch.exp(z[i, other])) for i, other in enumerate(others)
        ]

    others = []
    for i in range(len(x)):
        order = logits[i].argsort(descending=True).tolist()
        others.append(order[1] if order[0] == int(y[i].item()) else order[0])
    here = probabilities(logits, others)
    direction = torch.autograd.grad(torch.stack(here).sum(), x, retain_graph=True)[0].sign()
    there = probabilities(model(x.detach() + step * direction), others)
    return torch.stack([((b - a) / step) ** 2 for a, b in zip(here, there, strict=True)]).mean()
