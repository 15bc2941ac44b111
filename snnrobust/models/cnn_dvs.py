"""The small network for event frames of RGA (Bu et al. 2023) and HART (Hao et al. 2024)."""

from __future__ import annotations

from torch import Tensor, nn

from snnrobust.models.layers import BatchNorm2d, Conv2d, Flatten, Linear, pooling
from snnrobust.settings import PositiveInt
from snnrobust.spiking.neuron import NeuronFactory
from snnrobust.spiking.pooled import Chain


class CNNDVS(nn.Module):
    """Two convolutions, each followed by neurons, 2x2 average pooling and neurons again; a hidden layer; a read-out.

    `[T, N, C, H, W]` to logits `[T, N, K]`. The first convolution is 5x5 with stride 2 and padding 1, the second 3x3.
    All layers have biases; weights begin as torch's, as in the published code.

    Args:
        shape: `(C, H, W)` of one step of the input.
        classes: K.
        neuron: called once per spiking layer.
        channels: output channels of the two convolutions.
        hidden: neurons of the hidden layer.

    Raises:
        ValueError: if the input is too small.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        neuron: NeuronFactory,
        channels: tuple[PositiveInt, PositiveInt] = (16, 32),
        hidden: PositiveInt = 512,
    ) -> None:
        super().__init__()
        height, width = (((side - 3) // 2 + 1) // 4 for side in shape[1:])
        if min(height, width) < 1:
            raise ValueError(f"model: got {shape[1]}x{shape[2]}; allowed: at least 9x9")
        first, second = channels
        self.features = Chain(
            Conv2d(shape[0], first, 5, stride=2, padding=1),
            BatchNorm2d(first),
            neuron(),
            pooling("avg", 2, 2),
            neuron(),
            Conv2d(first, second, 3, padding=1),
            BatchNorm2d(second),
            neuron(),
            pooling("avg", 2, 2),
            neuron(),
        )
        self.classifier = nn.Sequential(
            Flatten(),
            Linear(second * height * width, hidden),
            neuron(),
            Linear(hidden, classes),
        )

    def forward(self, sequence: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(sequence))
        return logits
