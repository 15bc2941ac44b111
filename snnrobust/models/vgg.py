"""VGG networks of spiking neurons (Simonyan and Zisserman 2015), as the sparse-gradient papers lay them out."""

from __future__ import annotations

from typing import Literal

from spikingjelly.activation_based import layer
from torch import Tensor, nn

from snnrobust.settings import PositiveInt
from snnrobust.spiking.neuron import NeuronFactory


class VGG(nn.Module):
    """3x3 convolutions with bias, each with batch norm and neuron; pooling as planned; two hidden layers; a read-out.

    `[T, N, C, H, W]` to logits `[T, N, K]`. The default plan is VGG-11 with 61,377,034 parameters on 3x32x32 and 10
    classes: two convolutions after the third pooling, none of them pooled again.

    Args:
        shape: `(C, H, W)` of one step of the input.
        classes: K.
        neuron: called once per spiking layer.
        plan: output channels of the convolutions in order, and `pool` where the picture is halved.
        hidden: neurons of each hidden layer.
        pool: average or maximum.

    Raises:
        ValueError: if the input is too small for the poolings.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        neuron: NeuronFactory,
        plan: tuple[PositiveInt | Literal["pool"], ...] = (
            64, "pool", 128, 256, "pool", 512, 512, 512, "pool", 512, 512,
        ),
        hidden: PositiveInt = 4096,
        pool: Literal["avg", "max"] = "avg",
    ) -> None:  # fmt: skip
        super().__init__()
        before, height, width = shape
        halvings = sum(entry == "pool" for entry in plan)
        if min(height, width) >> halvings < 1:
            raise ValueError(f"model.plan: got {halvings} poolings, each halving {height}x{width}; allowed: fewer")
        pooling = layer.AvgPool2d if pool == "avg" else layer.MaxPool2d
        layers: list[nn.Module] = []
        for entry in plan:
            if entry == "pool":
                layers.append(pooling(2, step_mode="m"))
                height, width = height // 2, width // 2
            else:
                layers += [
                    layer.Conv2d(before, entry, 3, padding=1, step_mode="m"),
                    layer.BatchNorm2d(entry, step_mode="m"),
                    neuron(),
                ]
                before = int(entry)
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            layer.Flatten(step_mode="m"),
            layer.Linear(before * height * width, hidden, step_mode="m"),
            neuron(),
            layer.Linear(hidden, hidden, step_mode="m"),
            neuron(),
            layer.Linear(hidden, classes, step_mode="m"),
        )
        for module in self.features.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, sequence: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(sequence))
        return logits
