"""Attacks on binary inputs that choose their flips at once: by the gradient, or at random. And what to compare with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from snnrobust.attacks.base import Attack
from snnrobust.attacks.gradient import gradient
from snnrobust.attacks.losses import margin
from snnrobust.estimators.base import Estimator
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.flips import Flips, flipped, require_binary
from snnrobust.randomness import uniform
from snnrobust.settings import NonNegativeInt, PositiveInt
from snnrobust.spiking.classifier import Classifier
from snnrobust.threat import Bounds


@dataclass(frozen=True)
class TopFlips(Attack):
    """Flips the entries that promise most by the gradient of the margin, in rounds of equal size.

    An entry promises `|g|` if its flip follows the sign of `g`, else nothing, and is then never flipped. A sample is
    left alone once it is misclassified. The baseline of attacks that try flips before they take them.

    Args:
        threat: number of flips.
        estimator: how the model is differentiated.
        steps: rounds, each with a new gradient; no more than there are flips.
        seed: draws nothing.

    Raises:
        ValueError: for a threat of another kind, or inputs that are not binary.
    """

    threat: Flips
    estimator: Estimator = TRAINED
    steps: PositiveInt = 1
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        require_flips(self)

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        require_binary(x, model.bounds)
        count, entries = self.threat.count, x[0].numel()
        rounds = min(self.steps, count)
        chosen = torch.zeros_like(x, dtype=torch.bool).flatten(1)
        for number in range(1, rounds + 1):
            at = flipped(x, chosen.view_as(x), model.bounds)
            direction, logits = gradient(model, at, y, margin)
            promised = gain(direction, at, model.bounds).masked_fill(chosen, 0)
            quota = count * number // rounds - count * (number - 1) // rounds
            best = promised.topk(min(quota, entries), dim=1)
            wanted = (best.values > 0) & (margin(logits, y) <= 0)[:, None]
            chosen = chosen | torch.zeros_like(chosen).scatter(1, best.indices, wanted)
        return flipped(x, chosen.view_as(x), model.bounds)


@dataclass(frozen=True)
class RandomFlips(Attack):
    """Flips as many random entries as the threat allows: the perturbation without an adversary.

    Args:
        threat: number of flips.
        restarts: tries, of which the one with the largest margin is kept.
        seed: of the draws.

    Raises:
        ValueError: for a threat of another kind, or inputs that are not binary.
    """

    threat: Flips
    restarts: PositiveInt = 1
    seed: NonNegativeInt = 0

    adversarial: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_flips(self)

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        return self.threat.start(x, uniform(x, index, "flips", self.seed, restart), model.bounds)


def require_flips(attack: Attack) -> None:
    """Passes silently if the threat is one of flips.

    Raises:
        ValueError: if not.
    """
    if not isinstance(attack.threat, Flips):
        given = "null" if attack.threat is None else type(attack.threat).__name__
        raise ValueError(f"threat: got {given} for {type(attack).__name__}; allowed: snnrobust.flips.Flips")


def gain(direction: Tensor, at: Tensor, bounds: Bounds) -> Tensor:
    """`[B, N]`: what the flip of each entry of `at` `[B, ...]` adds to the loss by its gradient; 0 if nothing.

    Gradients of NaN count as 0.
    """
    towards = torch.where(at == bounds.high, -direction, direction)
    return towards.nan_to_num(nan=0.0).clamp_min(0).flatten(1)


@torch.no_grad()
def after_each(model: Classifier, at: Tensor, y: Tensor, entries: Tensor, chunk: int) -> Tensor:
    """`[B, k]`: the margin of `at` `[B, ...]` after the flip of one entry alone, for each of `entries` `[B, k]`.

    Args:
        chunk: inputs per forward, rounded down to whole batches in their order, and at least one.
    """
    batch, found = len(at), []
    for part in entries.split(max(1, chunk // batch), dim=1):
        copies = at.flatten(1).expand(part.shape[1], -1, -1).clone()
        one = torch.zeros_like(copies, dtype=torch.bool).scatter_(2, part.T.unsqueeze(2), True)
        changed = flipped(copies, one, model.bounds).view(-1, *at.shape[1:])
        found.append(margin(model(changed), y.repeat(part.shape[1])).view(-1, batch).T)
    return torch.cat(found, 1)
