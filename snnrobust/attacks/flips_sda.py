"""SDA: flips in binary inputs, tried one by one before they are taken, and taken back where they were not needed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snnrobust.attacks.base import Attack
from snnrobust.attacks.flips import after_each, gain, require_flips
from snnrobust.attacks.flips_reduction import importance_of, reduced
from snnrobust.attacks.gradient import gradient
from snnrobust.attacks.losses import margin
from snnrobust.estimators.base import Estimator
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.flips import Flips, flipped, largest, require_binary
from snnrobust.randomness import uniform
from snnrobust.settings import NonNegativeInt, PositiveInt
from snnrobust.spiking.classifier import Classifier


@dataclass(frozen=True)
class SDA(Attack):
    """The sparse dynamic attack (Lun et al., CVPR 2025).

    Round n = 0, 1, ...: of the entries that are not chosen yet, the `first (n + 1)` of the largest useful gradient of
    the margin are flipped one by one from where the search stands, and all that do not lower the margin are chosen
    together. Entries without a useful gradient come last, in random order. Once a sample is misclassified, the flips
    of the smallest effect are taken back (`reduced`); then again, by their effect at the result.

    As published: PDSG, `iterations` 500, `first` 10, no limit on `candidates`, one reduction, no budget. Small rounds
    and further reductions need fewer flips. Unlike there, entries that lowered the margin are not tried again before
    the sample has moved.

    Samples that end outside the budget, misclassified or not, get the `threat.count` chosen flips of largest effect.

    Args:
        threat: number of flips.
        estimator: how the model is differentiated.
        iterations: rounds.
        first: flips tried in the first round.
        candidates: most flips tried in one round.
        overshoot: a sample with more than `overshoot threat.count` chosen flips is given up: that the reduction would
            take back so many is not to be expected.
        reductions: how often flips are taken back.
        chunk: inputs per forward in which flips are tried; at least a whole batch.
        seed: of the random order.

    Raises:
        ValueError: for a threat of another kind, or inputs that are not binary.
    """

    threat: Flips
    estimator: Estimator = TRAINED
    iterations: PositiveInt = 100
    first: PositiveInt = 5
    candidates: PositiveInt = 5
    overshoot: PositiveInt = 2
    reductions: PositiveInt = 3
    chunk: PositiveInt = 512
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        require_flips(self)

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        require_binary(x, model.bounds)
        sets = _Sets(x)
        for number in range(self.iterations + 1):
            at = flipped(x, sets.chosen.view_as(x), model.bounds)
            # Of the whole batch, since estimators keep memory by position; flips are tried for open samples alone.
            direction, logits = gradient(model, at, y, margin)
            score = margin(logits, y)
            sets.judge(score, self.overshoot * self.threat.count)
            if number == self.iterations or not sets.open.any():
                break
            rows = _rows(model, sets.open)
            unit = uniform(x[rows], index[rows.to(index.device)], "sda", self.seed, restart, number).flatten(1)
            ranking = _ranking(gain(direction[rows], at[rows], model.bounds), sets.closed(rows), unit)
            best = ranking.topk(min(self.first * (number + 1), self.candidates, ranking.shape[1]), dim=1)
            after = after_each(model, at[rows], y[rows], best.indices, self._inputs(model, rows))
            # Of max(0, -margin): beyond the decision no flip is better than another.
            change = (-after).clamp_min(0) - (-score[rows, None]).clamp_min(0)
            sets.record(rows, best.indices, change, best.values >= 0)
        self._reduce(model, x, y, sets)
        kept = largest((-sets.effect).masked_fill(~sets.chosen, -torch.inf), self.threat.count)
        return flipped(x, (sets.chosen & kept).view_as(x), model.bounds)

    def _reduce(self, model: Classifier, x: Tensor, y: Tensor, sets: _Sets) -> None:
        """Takes back flips of the samples that are misclassified."""
        if not sets.broken.any():
            return
        rows = _rows(model, sets.broken)
        inputs, classes, few, importance = x[rows], y[rows], sets.chosen[rows], -sets.effect[rows]
        for number in range(self.reductions):
            if number:
                importance = importance_of(model, inputs, classes, few, self._inputs(model, rows))
            few = reduced(model, inputs, classes, few, importance)
        sets.chosen[rows] = torch.where(sets.broken[rows, None], few, sets.chosen[rows])

    def _inputs(self, model: Classifier, rows: Tensor) -> int:
        """Per forward: a stochastic model draws by position, hence for the batch as it is."""
        return len(rows) if model.stochastic else self.chunk


class _Sets:
    """What has become of the entries `[B, N]` and of the samples `[B]`; `effect` is read at chosen entries."""

    def __init__(self, x: Tensor) -> None:
        self.chosen = torch.zeros_like(x, dtype=torch.bool).flatten(1)
        self.rejected = torch.zeros_like(self.chosen)  # since the sample last moved: it would be rejected again
        self.effect = torch.zeros_like(x).flatten(1)
        self.broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.open = ~self.broken

    def judge(self, score: Tensor, most: int) -> None:
        """Closes samples of positive margin `[B]`, and those with more than `most` flips."""
        self.broken |= self.open & (score > 0)
        self.open &= ~self.broken & (self.chosen.sum(1) <= most)

    def closed(self, rows: Tensor) -> Tensor:
        """Entries that are not to be tried."""
        return self.chosen[rows] | self.rejected[rows]

    def record(self, rows: Tensor, entries: Tensor, change: Tensor, allowed: Tensor) -> None:
        """Takes `entries` `[b, k]` of the samples `rows` where `allowed` and `change` is not positive."""
        taken = allowed & (change <= 0) & self.open[rows, None]
        nothing = torch.zeros_like(self.chosen[rows])
        new, tried = nothing.scatter(1, entries, taken), nothing.scatter(1, entries, True)
        self.effect[rows] = torch.where(new, self.effect[rows].scatter(1, entries, change), self.effect[rows])
        self.chosen[rows] |= new
        self.rejected[rows] = (self.rejected[rows] | tried) & ~taken.any(1, keepdim=True)
        self.open[rows] &= allowed.any(1)


def _rows(model: Classifier, wanted: Tensor) -> Tensor:
    """Positions of the samples to go on with; of all samples where the model draws by position."""
    return (torch.ones_like(wanted) if model.stochastic else wanted).nonzero().flatten()


def _ranking(promised: Tensor, closed: Tensor, unit: Tensor) -> Tensor:
    """`[B, N]`, the best first: what a flip promises; below all of that, in random order, the rest; -1 if closed."""
    least = promised.masked_fill(promised <= 0, torch.inf).amin(1, keepdim=True)
    least = torch.where(least.isfinite(), least, 1.0)
    return torch.where(promised > 0, promised, unit * least).masked_fill(closed, -1)
