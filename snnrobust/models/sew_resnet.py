"""Spike-element-wise residual networks (Fang et al. 2021): the spikes of a block and of its shortcut are added."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from snnrobust.models.layers import average_read_out, begin_convolutions
from snnrobust.models.residual import BODIES, Residual, Sum, halving, make_stem, places, projection
from snnrobust.settings import PositiveInt
from snnrobust.spiking.neuron import NeuronFactory


class SEWResNet(nn.Module):
    """Stem, blocks whose outputs are sums of spikes (integers), average over the picture, linear read-out.

    `[T, N, C, H, W]` to logits `[T, N, K]`. SpikingJelly's networks with `cnf="ADD"`, of any width and for any number
    of channels. The default is SEW-ResNet-18: 11,181,642 parameters on 3 channels and 10 classes.

    Args:
        shape: `(C, H, W)` of one step of the input.
        classes: K.
        neuron: called once per spiking layer.
        blocks: of each stage; all stages but the first begin with stride 2.
        block: basic: two 3x3 convolutions; bottleneck: 1x1, 3x3, 1x1, to four times the channels.
        width: channels inside the blocks of the first stage; each stage has twice as many as the one before.
        stem: imagenet: 7x7 convolution with stride 2; cifar: 3x3 convolution.
        stem_width: channels of that convolution.
        pool: 3x3 pooling with stride 2 behind it; the average counts padded zeros.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        neuron: NeuronFactory,
        blocks: tuple[PositiveInt, ...] = (2, 2, 2, 2),
        block: Literal["basic", "bottleneck"] = "basic",
        width: PositiveInt = 64,
        stem: Literal["imagenet", "cifar"] = "imagenet",
        stem_width: PositiveInt = 64,
        pool: Literal["max", "avg", "none"] = "max",
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*make_stem(shape[0], stem_width, stem, pool, neuron))
        body, expansion = BODIES[block]
        channels = stem_width
        made: list[nn.Module] = []
        for place in places(stem_width, width, blocks, halving(blocks), expansion):
            channels = place.inside * expansion
            inner = nn.Sequential(*body(place, neuron), neuron())
            shortcut = projection(place, expansion)
            made.append(
                Residual(inner, nn.Sequential(*shortcut, *([neuron()] if shortcut else [])), Sum(), nn.Identity())
            )
        self.blocks = nn.Sequential(*made)
        self.classifier = nn.Sequential(*average_read_out(channels, classes))
        begin_convolutions(self)

    def forward(self, sequence: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.blocks(self.stem(sequence)))
        return logits
