"""Weights of "Enhancing Adversarial Robustness in SNNs with Sparse Gradients" (Liu et al., ICML 2024)."""

from __future__ import annotations

from collections.abc import Sequence

from snnrobust.importing import vgg, wide_resnet
from snnrobust.importing.base import Format, Given, Recognised, State, count, under, width

VGGS = {
    (1, 2): "vgg5",
    (1, 2, 3, 2): "vgg11",
    (2, 2, 2, 2, 2): "vgg13",
    (2, 2, 3, 3, 3): "vgg16",
    (2, 2, 4, 4, 4): "vgg19",
}
"""By the convolutions in each stage."""
POISSON = "_poi"
"""In the names of files whose networks were trained on Poisson spikes."""


class GradientRegDefense(Format):
    """VGG with `layer1` to `layer5` and `classifier`, WRN with `block1` to `block3`; integrate-and-fire, T = 8.

    Images are normalised in the network and repeated at every step; files with `_poi` in their names are of networks
    that see Poisson spikes.
    """

    name = "gradient_reg_defense"
    about = "VGG-11 and WRN-16-4 of github.com/putshua/gradient_reg_defense (Liu et al., ICML 2024)"

    def recognise(self, state: State, size: int) -> Recognised:
        if "layer1.0.weight" in state:
            return _vgg(state, size)
        if "block1.0.conv1.weight" in state:
            return _wide_resnet(state)
        raise ValueError("neither layer1.0.weight (VGG) nor block1.0.conv1.weight (WRN) is there")

    def defaults(self, state: State, given: Given, file: str) -> Sequence[str]:
        code = "poisson" if POISSON in file else "direct"
        return f"encoder={code}", "encoder.steps=8", "neuron=if"


def _vgg(state: State, size: int) -> Recognised:
    stages = [
        [width(state, f"layer{stage}.{3 * k}.weight") for k in range(count(state, f"layer{stage}.{{}}.weight", step=3))]
        for stage in range(1, 6)
    ]
    channels = [entry for stage in stages for entry in stage][-1]
    pooled = vgg.poolings(state, "classifier.1.weight", channels, size)
    parts = [("classifier", "classifier")]
    before = 0  # modules of our one sequence: convolution, norm, neuron; and one per pooling
    for number, stage in enumerate(stages):
        parts += [(f"layer{number + 1}.{k}", f"features.{before + k}") for k in range(3 * len(stage))]
        before += 3 * len(stage) + (number < pooled)
    hidden = [width(state, f"classifier.{k}.weight") for k in (1, 3)]
    settings = vgg.settings(vgg.plan(stages, pooled), hidden, "flatten", "all", 0.0)
    return Recognised((vgg.model(stages, VGGS),), settings, parts)


def _wide_resnet(state: State) -> Recognised:
    blocks = [count(state, f"block{stage}.{{}}.conv1.weight") for stage in (1, 2, 3)]
    parts = [("conv1", "stem"), ("bn1", "classifier.0"), ("fc", "classifier.4")]
    places = [f"block{stage}.{k}" for stage, number in enumerate(blocks, 1) for k in range(number)]
    for number, place in enumerate(places):
        parts += under(wide_resnet.BLOCK, place, f"blocks.{number}")
    stem, first = width(state, "conv1.weight"), width(state, "block1.0.conv1.weight")
    return wide_resnet.recognised(blocks, stem, first, "fc.bias" in state, parts)
