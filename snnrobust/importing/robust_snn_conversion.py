"""Weights of robust conversion (Özdenizci and Legenstein, TMLR 2024, arXiv 2311.09266)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from snnrobust.importing import vgg, wide_resnet
from snnrobust.importing.base import Format, Given, Recognised, State, count, listed, under, width

VGGS = {
    (1, 2, 3, 2): "vgg11",
    (2, 2, 3, 3, 3): "vgg16",
    (1, 1, 2, 2, 2): "vgg11_tiny_imagenet",
}
"""By the convolutions in each stage."""
RESNETS = {3: "resnet20", 5: "resnet32"}
"""By the blocks in each of the three stages."""
RESNET_BLOCK = (
    ("conv1", "body.0"),
    ("bn1", "body.1"),
    ("act1.v_th", "body.2.threshold"),
    ("conv2", "body.3"),
    ("bn2", "body.4"),
    ("shortcut", "shortcut"),
    ("convex.comb", "join.shares"),
    ("act2.v_th", "out.threshold"),
)
WIDE_BLOCK = (("act1.v_th", "before.1.threshold"), ("act2.v_th", "body.2.threshold"), *wide_resnet.BLOCK)
DROPOUT = 0.2


class RobustSnnConversion(Format):
    """VGG, WRN and ResNet with `features` and `classifier`; a trainable threshold `v_th` per layer of neurons, T = 8.

    Images are normalised in the network and repeated at every step.
    """

    name = "robust_snn_conversion"
    about = "VGG, WRN, ResNet of github.com/IGITUGraz/RobustSNNConversion (Özdenizci and Legenstein, TMLR 2024)"

    def recognise(self, state: State, size: int) -> Recognised:
        for name, network in (("features.1.conv1.weight", _wide_resnet), ("features.3.conv1.weight", _resnet)):
            if name in state:
                return network(state, size)
        if "features.0.weight" in state:
            return _vgg(state, size)
        raise ValueError("neither convolutions (VGG) nor blocks (WRN, ResNet) below features")

    def defaults(self, state: State, given: Given, file: str) -> Sequence[str]:
        learned = ("neuron=trainable_threshold",) if _thresholds(state) else ()
        grey = ("dataset.mean=[0.5,0.5,0.5]", "dataset.std=[0.5,0.5,0.5]") if given["dataset"] == "svhn" else ()
        steps = 1 if given.get("neuron") == "relu" else 8
        return "encoder=direct", f"encoder.steps={steps}", *learned, *grey

    def asks(self, state: State, given: Given) -> Mapping[str, Sequence[str]]:
        return {} if _thresholds(state) else {"neuron": ("relu", "if")}  # the network before its conversion, or another


def _thresholds(state: State) -> bool:
    return any(name.endswith(".v_th") for name in state)


def _vgg(state: State, size: int) -> Recognised:
    places = [
        k for k in range(len(state)) if f"features.{k}.weight" in state and state[f"features.{k}.weight"].dim() == 4
    ]
    matrices = [k for k in range(len(state)) if f"classifier.{k}.weight" in state]
    if not places or not matrices:
        raise ValueError("a VGG without convolutions below features, or without a matrix below classifier")
    channels = [width(state, f"features.{k}.weight") for k in places]
    stages: list[list[int]] = []
    for k, place in enumerate(places):
        if k == 0 or place > places[k - 1] + 3:  # behind convolution, norm and neuron comes a pooling
            stages.append([])
        stages[-1].append(channels[k])
    model = vgg.model(stages, VGGS)
    averaged = "classifier.1.weight" not in state
    hidden = [width(state, f"classifier.{k}.weight") for k in matrices[:-1]]
    pooled = len(stages) - 1 if averaged else vgg.poolings(state, "classifier.1.weight", channels[-1], size)
    bias = "all" if "features.0.bias" in state else "linear" if f"classifier.{matrices[-1]}.bias" in state else "none"
    head, dropout = ("average", 0.0) if averaged else ("flatten", DROPOUT)
    parts = [(f"{name.removesuffix('.v_th')}.v_th", f"{name.removesuffix('.v_th')}.threshold") for name in state]
    settings = vgg.settings(vgg.plan(stages, pooled), hidden, head, bias, dropout)
    return Recognised((model,), settings, [*parts, ("features", "features"), ("classifier", "classifier")])


def _stages(widths: Sequence[int]) -> list[int]:
    """How many blocks there are of each width."""
    return [len([*group]) for _, group in groupby(widths)]


def _wide_resnet(state: State, size: int) -> Recognised:
    number = count(state, "features.{}.conv1.weight", first=1)
    widths = [width(state, f"features.{k}.conv1.weight") for k in range(1, number + 1)]
    parts = [
        *(("features.0", "stem"), (f"features.{number + 1}", "classifier.0")),
        *((f"features.{number + 2}.v_th", "classifier.1.threshold"), ("classifier.1", "classifier.4")),
    ]
    for k in range(number):
        parts += under(WIDE_BLOCK, f"features.{k + 1}", f"blocks.{k}")
    stem = width(state, "features.0.weight")
    return wide_resnet.recognised(_stages(widths), stem, widths[0], "classifier.1.bias" in state, parts)


def _resnet(state: State, size: int) -> Recognised:
    number = count(state, "features.{}.conv1.weight", first=3)
    widths = [width(state, f"features.{k}.conv1.weight") for k in range(3, number + 3)]
    blocks = _stages(widths)
    name = RESNETS.get(blocks[0]) if len(set(blocks)) == 1 and len(blocks) == 3 else None
    if name is None:
        raise ValueError(
            f"a ResNet with {'+'.join(map(str, blocks))} blocks; allowed: 3+3+3 (resnet20), 5+5+5 (resnet32)"
        )
    parts = [
        *(("features.0", "stem.0"), ("features.1", "stem.1"), ("features.2.v_th", "stem.2.threshold")),
        ("classifier.1", "classifier.2"),
    ]
    for k in range(number):
        parts += under(RESNET_BLOCK, f"features.{k + 3}", f"blocks.{k}")
    bias = str("classifier.1.bias" in state).lower()
    settings = (f"model.blocks={listed(blocks)}", f"model.width={widths[0]}", f"model.bias={bias}")
    return Recognised((name,), settings, parts)
