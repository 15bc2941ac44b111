"""Augmentations of event frames beyond those of images: rotation, lost steps, lost cells, one of several.

Shifts, mirror images and Cutout are those of `image_augmentation.py`, which change all frames of a recording alike.
Values are moved or set to 0, never mixed: counts stay counts, and binary frames binary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import radians

import torch
from torch import Tensor
from torch.nn import functional as F

from snnrobust.data.augmentation import Augmentation, named, refuse_misfits
from snnrobust.randomness import hashed_integers, hashed_uniform
from snnrobust.settings import Fraction, Positive


@dataclass(frozen=True)
class Rotate(Augmentation):
    """Rotation about the middle by a random angle, uniform in `-degrees` to `degrees`.

    A pixel takes the value of the nearest one that is rotated onto it, 0 where that is outside.

    Args:
        degrees: largest angle.
    """

    degrees: Positive = 30.0

    def __call__(self, x: Tensor, index: Tensor, *stream: object) -> Tensor:
        draws = hashed_uniform(index.to(x.device), 1, *stream)[:, 0]
        angle = radians(self.degrees) * (2 * draws - 1)
        height, width = x.shape[-2:]
        # In units of half a side, in which torch counts: pixels need not be square in them.
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        rows = (cos, -sin * height / width, zero, sin * width / height, cos, zero)
        turn = torch.stack(rows, 1).view(-1, 2, 3).to(x.dtype)
        planes = x.reshape(len(x), -1, height, width)
        grid = F.affine_grid(turn, list(planes.shape), align_corners=False)
        return F.grid_sample(planes, grid, mode="nearest", align_corners=False).view(x.shape)


@dataclass(frozen=True)
class DropSteps(Augmentation):
    """Whole frames without events (after Gu, Sng, Hu and Yu, 2021, "EventDrop: data augmentation for event-based
    learning", whose drop by time takes a single interval).

    Args:
        probability: of every step of every sample to be lost.
    """

    probability: Fraction = 0.1

    def __call__(self, x: Tensor, index: Tensor, *stream: object) -> Tensor:
        if x.dim() != 5:
            raise ValueError("probability: got images; allowed: event frames [B, T, C, H, W], which have steps to lose")
        kept = hashed_uniform(index.to(x.device), x.shape[1], *stream) >= self.probability
        return x * kept.view(*x.shape[:2], *(1,) * (x.dim() - 2))


DRAWS = 1 << 22
"""That are made at once, at least those of a sample."""


@dataclass(frozen=True)
class DropCells(Augmentation):
    """Single cells of single frames without events (EventDrop's random drop, by cell instead of by event).

    Args:
        probability: of every cell to be lost.
    """

    probability: Fraction = 0.1

    def __call__(self, x: Tensor, index: Tensor, *stream: object) -> Tensor:
        # A draw takes several times the memory of its cell: one for all of a large batch would not fit.
        parts = index.to(x.device).split(max(1, DRAWS // x[0].numel()))
        kept = torch.cat([hashed_uniform(part, x[0].numel(), *stream) >= self.probability for part in parts])
        return x * kept.view(x.shape)


@dataclass(frozen=True)
class OneOf(Augmentation):
    """One of several augmentations for every sample, each equally likely.

    Args:
        operations: by name; each has a stream of its own.
    """

    operations: Mapping[str, Augmentation]

    def __call__(self, x: Tensor, index: Tensor, *stream: object) -> Tensor:
        index = index.to(x.device)
        chosen = hashed_integers(index, (len(self.operations),), *stream)[:, 0]
        result = x.clone()
        for number, (name, operation) in enumerate(self.operations.items()):
            members = (chosen == number).nonzero().flatten()
            if len(members):
                with named(name):
                    result[members] = operation(x[members], index[members], *stream, name)
        return result

    def refuse_misfit(self, shape: tuple[int, ...]) -> None:
        refuse_misfits(self.operations, shape)
