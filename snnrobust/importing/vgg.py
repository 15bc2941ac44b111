"""What the VGG networks of two formats share: where they halve their pictures, which weights tell only in part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from snnrobust.importing.base import State, listed, width
from snnrobust.schema import ConfigError

Stages = Sequence[Sequence[int]]
"""Channels of the convolutions between poolings."""


def poolings(state: State, first_linear: str, channels: int, size: int) -> int:
    """How many 2x2 poolings there are: what is left of the picture is what the first linear layer sees.

    Args:
        state: of the network.
        first_linear: name of the weights of that layer.
        channels: of the last convolution.
        size: height and width of the inputs.

    Raises:
        ValueError: if the layer is missing.
        ConfigError: if no number of poolings leads there.
    """
    width(state, first_linear)
    entries = int(state[first_linear].shape[1])
    for halvings in range(size.bit_length()):
        if channels * (size >> halvings) ** 2 == entries:
            return halvings
    raise ConfigError(
        f"dataset: {first_linear} sees {entries} entries of {channels} channels, and {size}x{size} pixels cannot be "
        "halved to that; allowed by the weights: another dataset=CHOICE"
    )


def plan(stages: Stages, pooled: int) -> list[int | str]:
    """The plan of stages of which the first `pooled` end with a pooling."""
    entries: list[int | str] = []
    for number, stage in enumerate(stages):
        entries += [*stage, *["pool"] * (number < pooled)]
    return entries


def settings(plan: Sequence[int | str], hidden: Sequence[int], head: str, bias: str, dropout: float) -> tuple[str, ...]:
    """Overrides of the model."""
    return (
        f"model.plan={listed(plan)}",
        f"model.hidden={listed(hidden)}",
        f"model.head={head}",
        f"model.bias={bias}",
        f"model.dropout={dropout}",
    )


def model(stages: Stages, names: Mapping[tuple[int, ...], str]) -> str:
    """The network with so many convolutions per stage, whatever their widths.

    Raises:
        ValueError: if there is none of that kind.
    """
    lengths = tuple(len(stage) for stage in stages if stage)
    if lengths not in names:
        known = ", ".join(f"{'+'.join(map(str, key))} ({name})" for key, name in names.items())
        raise ValueError(f"a VGG with {'+'.join(map(str, lengths))} convolutions; allowed: {known}")
    return names[lengths]
