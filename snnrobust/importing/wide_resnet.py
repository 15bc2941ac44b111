"""What the wide residual networks of two formats share."""

from __future__ import annotations

from collections.abc import Sequence

from snnrobust.importing.base import Recognised, listed

BLOCK = (
    ("bn1", "before.0"),
    ("conv1", "body.0"),
    ("bn2", "body.1"),
    ("conv2", "body.3"),
    ("convShortcut", "shortcut"),
    ("convex.comb", "join.shares"),
)
"""Names inside a pre-activation block."""
NAMES = {2: "wrn16", 4: "wrn28"}
"""By the blocks in a stage."""


def recognised(
    blocks: Sequence[int], stem: int, first: int, bias: bool, parts: Sequence[tuple[str, str]]
) -> Recognised:
    """A wide residual network.

    Args:
        blocks: of each stage.
        stem: channels of the first convolution.
        first: channels of the first stage.
        bias: whether the read-out has biases.
        parts: names of the modules there and here.

    Raises:
        ValueError: if the network is no such one.
    """
    name = NAMES.get(blocks[0]) if len(set(blocks)) == 1 else None
    if name is None:
        raise ValueError(f"a WRN with {'+'.join(map(str, blocks))} blocks; allowed: 2+2+2 (wrn16), 4+4+4 (wrn28)")
    if first % stem:
        raise ValueError(f"a WRN whose first stage has {first} channels after {stem}; allowed: a whole multiple")
    settings = (
        f"model.blocks={listed(blocks)}",
        f"model.stem={stem}",
        f"model.width={first // stem}",
        f"model.bias={str(bias).lower()}",
    )
    return Recognised((name,), settings, parts)
