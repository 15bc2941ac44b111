"""Projected gradient ascent: FGSM and PGD are yaml files of this one class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from snnrobust.attacks.base import Attack
from snnrobust.attacks.losses import LOSSES
from snnrobust.randomness import uniform
from snnrobust.settings import NonNegative, NonNegativeInt, PositiveInt
from snnrobust.spiking.classifier import Classifier
from snnrobust.threat import Threat


@dataclass(frozen=True)
class ProjectedGradient(Attack):
    """`x <- project(x + step_size * ascend(grad_x loss))`, `steps` times (Goodfellow 2015; Madry 2018).

    Args:
        threat: norm and budget.
        steps: gradient steps per restart.
        step_size: in units of the input; None means `2.5 threat.size / steps`.
        random_start: start at a random point of the threat set, else at the input.
        restarts: independent searches; per sample, a misclassified result is kept, else that of the largest loss.
        samples: gradients averaged per step (expectation over transformation), for stochastic models.
        loss: what is increased.
        seed: of the random starts.
    """

    threat: Threat
    steps: PositiveInt = 10
    step_size: NonNegative | None = None
    random_start: bool = True
    restarts: PositiveInt = 1
    samples: PositiveInt = 1
    loss: Literal["cross_entropy", "margin"] = "cross_entropy"
    seed: NonNegativeInt = 0

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        best = self._climb(model, x, y, index, restart=0)
        if self.restarts == 1:
            return best
        best_score = self._score(model, best, y)
        for restart in range(1, self.restarts):
            found = self._climb(model, x, y, index, restart)
            score = self._score(model, found, y)
            better = score > best_score
            best_score = torch.where(better, score, best_score)
            best = torch.where(better.view(-1, *[1] * (x.dim() - 1)), found, best)
        return best

    def _climb(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        """One search from one start; returns its last iterate."""
        step_size = 2.5 * self.threat.size / self.steps if self.step_size is None else self.step_size
        at = x
        if self.random_start:
            at = self.threat.start(x, uniform(x, index, "start", self.seed, restart), model.bounds)
        for _ in range(self.steps):
            ascent = self.threat.ascend(self._gradient(model, at, y))
            at = self.threat.project(at + step_size * ascent, x, model.bounds)
        return at

    def _gradient(self, model: Classifier, x: Tensor, y: Tensor) -> Tensor:
        """Gradient of the loss with respect to the input, averaged over `samples` forwards."""
        x = x.detach().requires_grad_()
        total = torch.zeros_like(x)
        for _ in range(self.samples):
            loss = LOSSES[self.loss](model(x), y).sum()
            total += torch.autograd.grad(loss, x)[0]
        return total / self.samples

    @torch.no_grad()
    def _score(self, model: Classifier, x: Tensor, y: Tensor) -> Tensor:
        """`[B]`: the loss, with misclassified samples lifted above all others."""
        logits = model(x)
        wrong = logits.argmax(1) != y
        return torch.where(wrong, torch.inf, LOSSES[self.loss](logits, y))
