"""Square Attack: random search by squares, which asks for logits alone, one forward of the batch per query."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from snnrobust.attacks.base import Attack
from snnrobust.attacks.losses import margin
from snnrobust.randomness import uniform
from snnrobust.settings import LeftOpenFraction, NonNegativeInt, PositiveInt
from snnrobust.spiking.classifier import Classifier
from snnrobust.threat import L2, Bounds, Linf, Threat

HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries, of 10,000, after which the share of the image that a square covers is halved (section 3 of the paper)."""
BLOCK = 100
"""Queries whose draws are made at once; a stream for each of them would cost more than the model."""
TILES = 5
"""Per side, of the l_2 start."""


@dataclass(frozen=True)
class Square(Attack):
    """Square Attack (Andriushchenko et al. 2020, Algorithms 1 to 3), for l_inf and l_2.

    A candidate is kept where it raises the margin. A sample that is misclassified, at its input or since, is left as it
    is. Inputs are images `[B, C, H, W]` or event frames `[B, T, C, H, W]`, whose steps count as channels.

    Where the paper leaves a choice: an l_inf candidate that would change nothing gets all signs inverted, and an l_2
    square is transposed with probability 1/2.

    Args:
        threat: l_inf or l_2, and the budget.
        queries: candidates per restart, one forward each; the forward at the input is not counted.
        p_init: share of the image that the first squares cover.
        restarts: independent searches.
        seed: of the draws.

    Raises:
        ValueError: for other threats.
    """

    threat: Threat
    queries: PositiveInt = 1000
    p_init: LeftOpenFraction = 0.8
    restarts: PositiveInt = 1
    seed: NonNegativeInt = 0

    black_box: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.threat, (Linf, L2)):
            raise ValueError(f"threat: got {type(self.threat).__name__}; allowed: Linf, L2")

    @torch.no_grad()
    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        images = x.flatten(1, -3)
        kind: type[_Moves] = _Squares if isinstance(self.threat, Linf) else _Pyramids
        moves = kind(images, self.threat, model.bounds)
        at, score = images, margin(model(x), y)
        for query, unit in enumerate(self._draws(moves, images, index, restart)):
            if query % BLOCK == 0 and bool((score > 0).all()):
                break
            candidate = moves.following(at, self.share(query), unit) if query else moves.first(unit)
            value = margin(model(candidate.view_as(x)), y)
            better = (score <= 0) & (value > score if query else True)
            at = torch.where(better.view(-1, 1, 1, 1), candidate, at)
            score = torch.where(better, value, score)
        return at.view_as(x)

    def share(self, query: int) -> float:
        """Of the image, covered by the square of a query."""
        return self.p_init * 0.5 ** bisect_left(HALVED, query * 10_000 // self.queries)

    def _draws(self, moves: _Moves, images: Tensor, index: Tensor, restart: int) -> Iterator[Tensor]:
        """`[B, n]` from U(0, 1) for each query."""
        words = ("square", self.seed, restart)
        yield uniform(images.new_empty(len(images), moves.draws_first), index, *words, "first")
        for number in range(1, self.queries, BLOCK):
            like = images.new_empty(len(images), min(BLOCK, self.queries - number), moves.draws)
            yield from uniform(like, index, *words, number).unbind(1)


class _Moves(ABC):
    """Candidates of one batch of images `[B, C, H, W]` under one threat; `unit` are draws from U(0, 1)."""

    def __init__(self, origin: Tensor, threat: Threat, bounds: Bounds) -> None:
        self.origin = origin
        self.threat = threat
        self.bounds = bounds
        _, self.channels, self.height, self.width = origin.shape

    @property
    @abstractmethod
    def draws_first(self) -> int:
        """Draws per sample that `first` needs."""

    @property
    @abstractmethod
    def draws(self) -> int:
        """Draws per sample that `following` needs."""

    @abstractmethod
    def first(self, unit: Tensor) -> Tensor:
        """Where the search starts, from `[B, draws_first]`."""

    @abstractmethod
    def following(self, at: Tensor, share: float, unit: Tensor) -> Tensor:
        """A change of `at` in squares that cover `share` of the image, from `[B, draws]`."""

    def side(self, share: float) -> int:
        """Of a square with that share of the area."""
        return min(max(round(math.sqrt(share * self.height * self.width)), 1), self.height, self.width)

    def corner(self, unit: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """First row and column `[B, 1]` of a random square inside the image, from `[B, 2]`."""
        rows, columns = self.height - side, self.width - side
        row = (unit[:, :1] * (rows + 1)).long().clamp_max(rows)
        return row, (unit[:, 1:2] * (columns + 1)).long().clamp_max(columns)


class _Squares(_Moves):
    """l_inf, Algorithm 2: in a square, all entries of a channel move to the same end of their range."""

    def __init__(self, origin: Tensor, threat: Threat, bounds: Bounds) -> None:
        super().__init__(origin, threat, bounds)
        self.low, self.high = (threat.project(origin + sign * threat.size, origin, bounds) for sign in (-1, 1))

    @property
    def draws_first(self) -> int:
        return self.channels * self.width

    @property
    def draws(self) -> int:
        return 2 + self.channels

    def first(self, unit: Tensor) -> Tensor:
        """Vertical stripes."""
        return torch.where(unit.view(-1, self.channels, 1, self.width) < 0.5, self.low, self.high)

    def following(self, at: Tensor, share: float, unit: Tensor) -> Tensor:
        side = self.side(share)
        row, column = self.corner(unit, side)
        rows = torch.arange(self.height, device=at.device) - row
        columns = torch.arange(self.width, device=at.device) - column
        square = ((rows >= 0) & (rows < side))[:, None, :, None] & ((columns >= 0) & (columns < side))[:, None, None]
        down = unit[:, 2:, None, None] < 0.5
        candidate = torch.where(square, torch.where(down, self.low, self.high), at)
        same = (candidate == at).flatten(1).all(1).view(-1, 1, 1, 1)
        return torch.where(same & square, torch.where(down, self.high, self.low), candidate)


class _Pyramids(_Moves):
    """l_2, Algorithm 3: the length of the change in two squares, and what is unused, goes to a pyramid pair in one."""

    @property
    def draws_first(self) -> int:
        return (self.channels + 1) * TILES**2

    @property
    def draws(self) -> int:
        return 5 + self.channels

    def first(self, unit: Tensor) -> Tensor:
        """Tiles of pyramid pairs with random signs around the centre."""
        rows, columns = min(TILES, self.height), min(TILES, self.width)
        side = max(1, min(self.height, self.width) // TILES)
        pair = pyramids(side).to(self.origin)
        drawn = unit.view(-1, self.channels + 1, TILES, TILES)[:, :, :rows, :columns, None, None]
        tiles = torch.where(drawn[:, :1] < 0.5, pair, pair.T) * _signs(drawn[:, 1:])
        change = torch.zeros_like(self.origin)
        top, left = (self.height - rows * side) // 2, (self.width - columns * side) // 2
        window = change[:, :, top : top + rows * side, left : left + columns * side]
        window.copy_(tiles.transpose(3, 4).reshape(window.shape))
        length = change.square().sum((1, 2, 3), keepdim=True).sqrt()
        return self.threat.project(self.origin + change * self.threat.size / length, self.origin, self.bounds)

    def following(self, at: Tensor, share: float, unit: Tensor) -> Tensor:
        side = self.side(share)
        pair = pyramids(side).to(at)
        bump = torch.where(unit[:, 4:5, None] < 0.5, pair, pair.T).flatten(1).unsqueeze(1)
        change = (at - self.origin).flatten(2)
        cells = self._cells(unit[:, :2], side)
        outside = change.scatter(2, cells, 0).scatter(2, self._cells(unit[:, 2:4], side), 0)
        squares = change.square().sum(2, keepdim=True)
        unused = (self.threat.size**2 - squares.sum(1, keepdim=True)).clamp_min(0)
        available = squares - outside.square().sum(2, keepdim=True) + unused / self.channels
        moved = _normalised(_signs(unit[:, 5:, None]) * bump + _normalised(change.gather(2, cells)))
        change = outside.scatter(2, cells, moved * available.clamp_min(0).sqrt())
        return self.threat.project(self.origin + change.view_as(at), self.origin, self.bounds)

    def side(self, share: float) -> int:
        """At least 3 and odd, where the image is large enough."""
        return min(max(super().side(share), 3) // 2 * 2 + 1, self.height, self.width)

    def _cells(self, unit: Tensor, side: int) -> Tensor:
        """`[B, C, side^2]`: the positions of a random square's entries in a flattened channel, row by row."""
        row, column = self.corner(unit, side)
        steps = torch.arange(side, device=unit.device)
        cells = (row + steps)[:, :, None] * self.width + (column + steps)[:, None, :]
        return cells.flatten(1).unsqueeze(1).expand(-1, self.channels, -1)


def _signs(unit: Tensor) -> Tensor:
    return torch.where(unit < 0.5, -1.0, 1.0).to(unit.dtype)


def _normalised(x: Tensor) -> Tensor:
    """Of length one along the last dimension; 0 stays 0."""
    return torch.nn.functional.normalize(x, dim=-1, eps=torch.finfo(x.dtype).tiny)


@cache
def pyramids(side: int) -> Tensor:
    """`[side, side]` of length one: a pyramid over the left half, one upside down over the right half (equation 4)."""
    half = side // 2
    pair = torch.cat([_pyramid(side, half), -_pyramid(side, side - half)], 1)
    return _normalised(pair.flatten()).view(side, side)


def _pyramid(height: int, width: int) -> Tensor:
    """`sum_{k=0}^{M} 1 / (n + 1 - k)^2` with `n = height // 2` and `M = n - max(distance from the middle)`."""
    n = height // 2
    rows = (torch.arange(height) - n).abs()[:, None]
    columns = (torch.arange(width) - width // 2).abs()
    levels = 1 / (n + 1 - torch.arange(n + 1, dtype=torch.double)).square()
    return levels.cumsum(0)[n - torch.maximum(rows, columns)]
