"""Thresholds of a conversion in one pass, against one pass per layer as in published code. Both give the same ones.

Run with: python -m benchmarks.calibration
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks import protocol
from benchmarks.pairs import measure
from snnrobust.conversion.calibration import Calibration, calibrated
from snnrobust.models.resnet import ResNet
from snnrobust.models.vgg import VGG
from snnrobust.randomness import isolated
from snnrobust.spiking.classifier import Normalize, SpikingClassifier
from snnrobust.spiking.encoder import Direct
from snnrobust.spiking.neurons.trainable_threshold import TrainableThreshold
from snnrobust.spiking.surrogate import triangle
from snnrobust.threat import Bounds

THREADS = 1
HOW = Calibration(steps=25, batch_size=16, percent=99.7)
SAMPLES = 32
SHAPE = (3, 16, 16)
VGG_PLAN: tuple[int | Literal["pool"], ...] = (16, "pool", 32, 32, "pool", 64, 64, 64, "pool", 64, 64)
CASES: dict[str, Callable[..., nn.Module]] = {
    "ResNet-20, width 8": partial(ResNet, blocks=(3, 3, 3), strides=(1, 2, 2), width=8, join="convex"),
    "VGG-11, width 16": partial(VGG, plan=VGG_PLAN, hidden=(128, 128), bias="none"),
}
"""19 and 10 layers of neurons."""


def passes(backbone: Callable[..., nn.Module]) -> dict[str, Callable[[], object]]:
    """The alternatives on a network with random weights."""
    with isolated("benchmark"):
        built = backbone(SHAPE, 10, partial(TrainableThreshold, triangle()))
        x = torch.rand(SAMPLES, *SHAPE)
    model = SpikingClassifier(built, Direct(1), Normalize((0.5,) * 3, (0.25,) * 3), Bounds())
    other = copy.deepcopy(model)
    order = list(calibrated(model, _neurons(model), x, HOW))
    return {
        "one pass per layer": lambda: per_layer(other, order, x),
        "one pass": lambda: calibrated(model, _neurons(model), x, HOW),
    }


class _Measured(Exception):
    """The layer that is looked at has its threshold: what lies behind it need not run."""


def per_layer(model: SpikingClassifier, order: list[str], x: Tensor) -> dict[str, float]:
    """Thresholds by layer; for each the network runs from its input up to that layer."""
    found: dict[str, float] = {}
    for name in order:
        neuron = _neurons(model)[name]

        def stop(*_: Any) -> None:
            raise _Measured

        handle = neuron.register_forward_hook(stop, prepend=True)
        try:
            calibrated(model, {name: neuron}, x, HOW)
        except _Measured:
            found[name] = neuron.threshold.item()
        finally:
            handle.remove()
    return found


def _neurons(model: SpikingClassifier) -> Mapping[str, TrainableThreshold]:
    return {name: module for name, module in model.named_modules() if isinstance(module, TrainableThreshold)}


def main() -> None:
    with protocol.threads(THREADS):
        for name, backbone in CASES.items():
            several, one = measure(passes(backbone), rounds=3, warmup=1)
            print(f"{name}: {several.median:.0f} ms, {one.median:.0f} ms; {1 / one.ratio:.1f} times as fast")


if __name__ == "__main__":
    main()
