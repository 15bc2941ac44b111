"""Wide residual networks (Zagoruyko and Komodakis 2016) of spiking neurons, as the papers lay them out."""

from __future__ import annotations

from torch import Tensor, nn

from snnrobust.models.layers import BatchNorm2d, average_read_out, begin_convolutions, begin_linear_biases, convolution
from snnrobust.models.residual import ConvexCombination, Place, halving, places
from snnrobust.settings import PositiveInt
from snnrobust.spiking.neuron import NeuronFactory


class WideResNet(nn.Module):
    """Pre-activation blocks with learnable convex combinations at their ends.

    `[T, N, C, H, W]` to logits `[T, N, K]`: 3x3 convolution; blocks, the first of each stage but the first with stride
    2; batch norm, neuron, average over the picture, linear read-out. The default is WRN-16-4, with 2,748,902
    parameters on 3x32x32 and 10 classes, of which 12 are shares of the combinations. Weights begin as `layers.py` says.

    Args:
        shape: `(C, H, W)` of one step of the input.
        classes: K.
        neuron: called once per spiking layer.
        blocks: of each stage; `n` blocks in each of three stages make a network of depth `6n + 4`.
        width: stage k (from 0) has `stem * width * 2^k` channels.
        stem: channels of the first convolution.
        bias: whether the read-out has biases.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        neuron: NeuronFactory,
        blocks: tuple[PositiveInt, ...] = (2, 2, 2),
        width: PositiveInt = 4,
        stem: PositiveInt = 16,
        bias: bool = True,
    ) -> None:
        super().__init__()
        found = [*places(stem, stem * width, blocks, halving(blocks))]
        channels = found[-1].inside if found else stem
        self.stem = convolution(shape[0], stem)
        self.blocks = nn.Sequential(*(PreActivation(place, neuron) for place in found))
        self.classifier = nn.Sequential(BatchNorm2d(channels), neuron(), *average_read_out(channels, classes, bias))
        begin_convolutions(self)
        begin_linear_biases(self)

    def forward(self, sequence: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.blocks(self.stem(sequence)))
        return logits


class PreActivation(nn.Module):
    """`c_0 shortcut + c_1 body(a)` with `a = neuron(norm(x))`.

    The shortcut is `x` itself, or a strided 1x1 convolution of `a` where the channels or the size change.
    """

    def __init__(self, place: Place, neuron: NeuronFactory) -> None:
        super().__init__()
        self.before = nn.Sequential(BatchNorm2d(place.before), neuron())
        self.body = nn.Sequential(
            convolution(place.before, place.inside, stride=place.stride),
            BatchNorm2d(place.inside),
            neuron(),
            convolution(place.inside, place.inside),
        )
        same = place.stride == 1 and place.before == place.inside
        self.shortcut = None if same else convolution(place.before, place.inside, 1, place.stride)
        self.join = ConvexCombination()

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.before(x)
        shortcut = x if self.shortcut is None else self.shortcut(spikes)
        result: Tensor = self.join(shortcut, self.body(spikes))
        return result
