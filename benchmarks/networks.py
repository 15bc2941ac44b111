"""The networks that are timed: ours, the same weights in SpikingJelly's stateful modules, and with ReLU for neurons."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

from snnrobust.models.convnet import ConvNet
from snnrobust.models.vgg import VGG
from snnrobust.randomness import isolated
from snnrobust.spiking.classifier import Normalize, SpikingClassifier
from snnrobust.spiking.dynamics import IntegrateAndFire
from snnrobust.spiking.encoder import Direct
from snnrobust.spiking.neuron import LIF, Neuron
from snnrobust.spiking.surrogate import triangle
from snnrobust.threat import Bounds

STEPS = 8
NEURON = partial(LIF, surrogate=triangle())
VGG_HALF = (32, "pool", 64, 128, "pool", 256, 256, 256, "pool", 256, 256)


@dataclass(frozen=True)
class Case:
    """A network and a batch for it."""

    name: str
    backbone: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    batch: int

    def model(self) -> SpikingClassifier:
        """With random weights and warmed-up batch norm, so that neurons fire."""
        with isolated("benchmark", self.name), torch.no_grad():
            channels = self.shape[0]
            normalize = Normalize((0.5,) * channels, (0.3,) * channels)
            model = SpikingClassifier(self.backbone(), Direct(STEPS), normalize, Bounds()).train()
            for _ in range(5):
                model(torch.rand(16, *self.shape))
        return model.eval()

    def data(self) -> tuple[Tensor, Tensor]:
        with isolated("batch", self.name):
            return torch.rand(self.batch, *self.shape), torch.randint(10, (self.batch,))


CASES = (
    Case("ConvNet of the digits (16, 32 channels), 1x8x8", partial(ConvNet, (1, 8, 8), 10, NEURON), (1, 8, 8), 64),
    Case(
        "ConvNet (32, 64, 128 channels), 3x32x32",
        partial(ConvNet, (3, 32, 32), 10, NEURON, channels=(32, 64, 128), hidden=256),
        (3, 32, 32),
        16,
    ),
    Case(
        "VGG-11 of half the width, 3x32x32",
        partial(VGG, (3, 32, 32), 10, NEURON, plan=VGG_HALF, hidden=(2048, 2048)),
        (3, 32, 32),
        8,
    ),
)


class Stateful(nn.Module):
    """A network of SpikingJelly's modules, reset before every forward, as its users do."""

    def __init__(self, model: SpikingClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self.model)
        logits: Tensor = self.model(x)
        return logits


def spikingjelly(model: SpikingClassifier, spike: nn.Module | None = None) -> Stateful:
    """The same weights under `LIFNode`s in multi-step mode, eager; `spike` is SpikingJelly's surrogate (triangle)."""

    def node(own: Neuron) -> nn.Module:
        its = own.dynamics
        assert isinstance(its, IntegrateAndFire)
        assert isinstance(its.threshold, float)
        assert isinstance(its.tau, float)
        return neuron.LIFNode(
            its.tau, its.decay_input, its.threshold, 0.0, spike or surrogate.PiecewiseQuadratic(), its.detach_reset, "m"
        )

    return Stateful(replaced(model, node)).eval()


class Relu(nn.Module):
    """In place of a neuron: what a time step costs without dynamics."""

    def forward(self, current: Tensor) -> Tensor:
        return current.relu()


def analog(model: SpikingClassifier, steps: int) -> SpikingClassifier:
    """The same weights with ReLU in place of the neurons, over `steps` time steps."""
    twin = replaced(model, lambda _: Relu())
    return SpikingClassifier(twin.backbone, Direct(steps), twin.normalize, twin.bounds).eval()


def replaced(model: SpikingClassifier, make: Callable[[Neuron], nn.Module]) -> SpikingClassifier:
    """A copy with other modules in place of the neurons."""
    twin = copy.deepcopy(model)
    for parent in [*twin.modules()]:
        for name, child in [*parent.named_children()]:
            if isinstance(child, Neuron):
                setattr(parent, name, make(child))
    return twin
