"""Weights of the work on gradient sparsity trails (Luu et al. 2025, arXiv 2509.23762)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from snnrobust.importing.base import Format, Given, Recognised, State, count, listed, under, width

STEM = (("snn.conv1", "stem.0"), ("snn.bn1", "stem.1"), ("snn.fc", "classifier.2"))
BLOCK = (
    ("conv1", "body.0"),
    ("bn1", "body.1"),
    ("conv2", "body.3"),
    ("bn2", "body.4"),
    ("conv3", "body.6"),
    ("bn3", "body.7"),
    ("downsample", "shortcut"),
)
DEPTHS: Mapping[tuple[str, tuple[int, ...]], int] = {
    ("basic", (2, 2, 2, 2)): 18,
    ("basic", (3, 4, 6, 3)): 34,
    ("bottleneck", (3, 4, 6, 3)): 50,
}


class GradObfSnn(Format):
    """SEW-ResNet (sums of spikes) and Spiking-ResNet in SpikingJelly's layout, below the name `snn`.

    Grey levels become bit planes, unweighted; T = 10. The attacks of the paper perturb these planes: in our terms
    `+attack@attacks.code=encoded_pgd`. Neurons have no weights, so that both networks look alike, and so does the
    pooling in the stem.
    """

    name = "grad_obf_snn"
    about = "SEW-ResNet and Spiking-ResNet 18/34/50 of github.com/luutn2002/grad-obf-snn (Luu et al. 2025)"

    def recognise(self, state: State, size: int) -> Recognised:
        block = "bottleneck" if "snn.layer1.0.conv3.weight" in state else "basic"
        blocks = tuple(count(state, f"snn.layer{stage}.{{}}.conv1.weight") for stage in (1, 2, 3, 4))
        if (block, blocks) not in DEPTHS:
            known = ", ".join(f"{'+'.join(map(str, key))} {kind}" for kind, key in DEPTHS)
            raise ValueError(f"{'+'.join(map(str, blocks))} {block} blocks below snn.layer1 to 4; allowed: {known}")
        depth = DEPTHS[block, blocks]
        places = [f"snn.layer{stage}.{k}" for stage, number in enumerate(blocks, 1) for k in range(number)]
        parts = [*STEM]
        for number, place in enumerate(places):
            parts += under(BLOCK, place, f"blocks.{number}")
        settings = (
            f"model.blocks={listed(blocks)}",
            f"model.block={block}",
            f"model.width={width(state, 'snn.layer1.0.conv1.weight')}",
            f"model.stem_width={width(state, 'snn.conv1.weight')}",
        )
        return Recognised((f"sew_resnet{depth}", f"spiking_resnet{depth}"), settings, parts)

    def defaults(self, state: State, given: Given, file: str) -> Sequence[str]:
        detached = str(given["model"].startswith("sew")).lower()
        neuron = ("neuron=if", f"neuron.detach_reset={detached}", "neuron/surrogate=atan")
        return "encoder=phase", "encoder.steps=10", *neuron

    def asks(self, state: State, given: Given) -> Mapping[str, Sequence[str]]:
        return {"model.pool": ("max", "avg")} if given["model"].startswith("sew") else {}
