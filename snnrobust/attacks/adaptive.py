"""Auto-PGD (Croce and Hein 2020): gradient ascent that chooses its step sizes by its own progress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from snnrobust.attacks.base import Attack
from snnrobust.attacks.gradient import Loss
from snnrobust.attacks.iterate import Iterate, column, look, outermost
from snnrobust.attacks.losses import LOSSES, targeted_dlr
from snnrobust.attacks.schedule import checkpoints
from snnrobust.estimators.base import Estimator
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.settings import NonNegativeInt, PositiveInt
from snnrobust.spiking.classifier import Classifier
from snnrobust.threat import Threat

MOMENTUM = 0.75
"""Share of the new step in an update; the rest is the previous update."""
RHO = 0.75
"""A step size stays if more than this share of the steps since the last checkpoint increased the loss."""


def auto_pgd(
    model: Classifier, x: Tensor, y: Tensor, start: Tensor, threat: Threat, steps: int, loss: Loss, samples: int
) -> Iterate:
    """Croce and Hein 2020, Algorithm 1, all samples at once with a step size each.

    In two details as the authors' code has it: a share of rises of exactly rho halves the step size; and the first step
    after a return to the best point is compared with the point before the return.

    Returns:
        Per sample, of the misclassified points that were met the one of the largest margin; where none was, the point
        of the largest loss.
    """
    now = best = hit = look(model, start, y, loss, samples)
    before, size = start, x.new_full((len(x),), 2 * threat.size)
    looks, last = checkpoints(steps), 0
    value, rises, halved, best_then = now.loss, torch.zeros_like(now.loss), torch.ones_like(now.wrong), best.loss
    for number in range(1, steps + 1):
        at = threat.project(now.x + column(size, x) * threat.ascend(now.slope), x, model.bounds)
        if number > 1:
            at = now.x + MOMENTUM * (at - now.x) + (1 - MOMENTUM) * (now.x - before)
            at = threat.project(at, x, model.bounds)
        before, now = now.x, look(model, at, y, loss, samples)
        rises, value = rises + (now.loss > value), now.loss
        best = now.where(now.loss > best.loss, best)
        hit = now.where(now.wrong & (~hit.wrong | (now.margin > hit.margin)), hit)
        if number in looks:
            # Too few steps went up; or nothing has come of a step size that was not halved just before.
            halved = (rises <= RHO * (number - last)) | (~halved & (best.loss <= best_then))
            size = torch.where(halved, size / 2, size)
            now = best.where(halved, now)
            rises, best_then, last = torch.zeros_like(rises), best.loss, number
    return hit.where(hit.wrong, best)


@dataclass(frozen=True)
class APGD(Attack):
    """Auto-PGD from a random start at full distance, with steps of `2 threat.size` that halve where progress ends.

    Args:
        threat: norm and budget.
        estimator: how the model is differentiated.
        steps: per restart; the checkpoints are fixed shares of them.
        loss: what is increased.
        restarts: independent searches.
        samples: gradients averaged per step (expectation over transformation), for stochastic models.
        seed: of the random starts.
    """

    threat: Threat
    estimator: Estimator = TRAINED
    steps: PositiveInt = 100
    loss: Literal["cross_entropy", "margin", "dlr"] = "cross_entropy"
    restarts: PositiveInt = 1
    samples: PositiveInt = 1
    seed: NonNegativeInt = 0

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        start = outermost(self.threat, x, index, model.bounds, "start", self.seed, restart)
        return auto_pgd(model, x, y, start, self.threat, self.steps, LOSSES[self.loss], self.samples).x


@dataclass(frozen=True)
class TargetedAPGD(Attack):
    """Auto-PGD towards one wrong class after the other, by the targeted difference of logits ratio.

    Every search is of the whole batch, with a start of its own; per sample the result of the largest margin is kept.
    What an estimator remembers of its gradients passes from one target on to the next.

    Args:
        threat: norm and budget.
        estimator: how the model is differentiated.
        targets: how many classes are tried, the most likely wrong ones at the input first; all wrong ones at most.
        steps: per target and restart.
        restarts: independent rounds over all targets.
        samples: gradients averaged per step (expectation over transformation), for stochastic models.
        seed: of the random starts.
    """

    threat: Threat
    estimator: Estimator = TRAINED
    targets: PositiveInt = 9
    steps: PositiveInt = 100
    restarts: PositiveInt = 1
    samples: PositiveInt = 1
    seed: NonNegativeInt = 0

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        found, score = x, torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        for number, target in enumerate(self._targets(model, x, y)):
            start = outermost(self.threat, x, index, model.bounds, "start", self.seed, restart, number)
            new = auto_pgd(model, x, y, start, self.threat, self.steps, _towards(target), self.samples)
            better = new.margin > score
            found, score = torch.where(column(better, x), new.x, found), torch.where(better, new.margin, score)
        return found

    @torch.no_grad()
    def _targets(self, model: Classifier, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """`[B]` classes each."""
        z = torch.stack([model(x) for _ in range(self.samples)]).mean(0)
        others = z.scatter(1, y[:, None], -torch.inf)
        return others.topk(min(self.targets, z.shape[1] - 1), dim=1).indices.unbind(1)


def _towards(target: Tensor) -> Loss:
    return lambda z, y: targeted_dlr(z, y, target)
