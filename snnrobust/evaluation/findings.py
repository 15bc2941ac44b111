"""What became of the samples of one batch: all that an evaluation keeps of it, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor


@dataclass(frozen=True)
class Finding:
    """Outcomes of one batch, which follow from the batch alone, whatever was computed before it.

    Args:
        index: `[B]`, the samples' positions in their split.
        right: by what the samples were judged under (an attack, a candidate of a selection), `[B]` bool.
        mostly: for a stochastic model the same by majority over draws; else empty.
        excess: by attack, how far its largest perturbation left the attack's budget.
        seconds: that it took; of batches that several processes computed at the same time, their shares of it.
    """

    index: Tensor
    right: Mapping[str, Tensor]
    mostly: Mapping[str, Tensor] = field(default_factory=dict)
    excess: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def content(self) -> dict[str, Any]:
        """The same for JSON, from which `read` makes an equal one; a bit is a character."""
        return {
            "index": self.index.tolist(),
            "right": {name: _text(bits) for name, bits in self.right.items()},
            "mostly": {name: _text(bits) for name, bits in self.mostly.items()},
            "excess": dict(self.excess),
            "seconds": self.seconds,
        }


def read(content: Any) -> Finding:
    """The finding that `content` describes.

    Raises:
        ValueError: if it describes none.
    """
    try:
        index = torch.tensor(content["index"], dtype=torch.int64)
        size = len(index)
        right, mostly = (
            {str(name): _bits(text, size) for name, text in content[key].items()} for key in ("right", "mostly")
        )
        excess = {str(name): float(value) for name, value in content["excess"].items()}
        seconds = float(content["seconds"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"no finding ({type(error).__name__})") from error
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"seconds: got {seconds}")
    return Finding(index, right, mostly, excess, seconds)


def _text(bits: Tensor) -> str:
    return "".join("1" if bit else "0" for bit in cast(list[bool], bits.tolist()))


def _bits(text: str, size: int) -> Tensor:
    if len(text) != size or set(text) - {"0", "1"}:
        raise ValueError(f"got {text!r} for {size} samples")
    return torch.tensor([bit == "1" for bit in text], dtype=torch.bool)
