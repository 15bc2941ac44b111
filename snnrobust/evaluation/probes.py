"""Small experiments on the model under evaluation, whose outcome is known if all is well."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.data.dataset import Split
from snnrobust.estimators.base import Estimator
from snnrobust.estimators.strongest import Strongest
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.evaluation.judge import Judge
from snnrobust.randomness import isolated
from snnrobust.spiking.classifier import Classifier
from snnrobust.threat import L2, Bounds, Linf, Threat

SAMPLES = 256
STEPS = 10
ROUNDING = 1e-4
"""Largest difference, relative to the range of the logits, that is taken for rounding."""


@dataclass(frozen=True)
class HalfRange:
    """What PGD with half the range of the inputs as its budget left of the model.

    Args:
        threat: with that budget: from every input it reaches the middle of the range, the grey input.
        index: `[M]`, positions of correctly classified samples in their split.
        robust: `[M]` bool, correct under PGD.
        breakable: `[M]` bool, taken for another class when grey: an adversarial input is certain to exist.
    """

    threat: Threat
    index: Tensor
    robust: Tensor
    breakable: Tensor

    @property
    def accuracy(self) -> float | None:
        """Of the breakable samples, of which a working attack leaves none; None if there are none."""
        left = self.robust[self.breakable]
        return int(left.sum()) / len(left) if len(left) else None


@dataclass(frozen=True)
class Probes:
    """Results of all probes.

    Args:
        half_range: None where the threat has no such budget.
        changed: share of samples whose logits are others the second time; None for a stochastic model.
    """

    half_range: HalfRange | None
    changed: float | None


NO_PROBES = Probes(None, None)
"""Of an evaluation without any."""


@dataclass(frozen=True)
class Probing:
    """Runs the probes on the first samples of a split, at most `SAMPLES`.

    Args:
        threat: of the evaluation; gives the norm.
        estimator: see `declared`.
        batch_size: samples per forward.
        seed: of the random starts.
    """

    threat: Threat
    estimator: Estimator
    batch_size: int
    seed: int

    def __call__(self, attacked: Classifier, judge: Judge, data: Split, correct: Tensor) -> Probes:
        """`attacked` computes the same as the judge's model, perhaps faster; `correct` `[N]` bool on clean inputs."""
        few = torch.arange(min(len(data), SAMPLES))
        with isolated("probes", self.seed):
            changed = None if judge.model.stochastic else _changed(judge.model, data.batch(few[: self.batch_size]).x)
        return Probes(self._half_range(attacked, judge, data, few[correct[few]]), changed)

    def _half_range(self, attacked: Classifier, judge: Judge, data: Split, index: Tensor) -> HalfRange | None:
        bounds = judge.model.bounds
        threat = half_range(self.threat, data.batch(torch.tensor([0])).x.numel(), bounds)
        if threat is None:
            return None
        attack = ProjectedGradient(threat, declared(self.estimator), STEPS, seed=self.seed)
        robust, breakable = [torch.empty(0, dtype=torch.bool)], [torch.empty(0, dtype=torch.bool)]
        for part in index.split(self.batch_size) if len(index) else ():
            batch = data.batch(part)
            found = attack(attacked, batch.x, batch.y, part)
            robust.append(judge("probes/half_range", judge.model, found, batch.y, part)[0])
            grey = torch.full_like(batch.x, bounds.low + bounds.width / 2)
            right, mostly = judge("probes/grey", judge.model, grey, batch.y, part)
            breakable.append(~(right if mostly is None else mostly))
        return HalfRange(threat, index, torch.cat(robust), torch.cat(breakable))


def declared(estimator: Estimator) -> Estimator:
    """The first of an ensemble, or of the candidates that one is chosen from; else the estimator itself."""
    several = estimator.candidates if isinstance(estimator, Strongest) else estimator.members()
    return next(iter(several.values()), estimator)


def half_range(threat: Threat, entries: int, bounds: Bounds) -> Threat | None:
    """The smallest threat of the same norm that reaches the middle of the range from everywhere; None if unknown.

    Args:
        threat: gives the norm.
        entries: of one input.
        bounds: of every entry.
    """
    if isinstance(threat, Linf):
        return Linf(bounds.width / 2)
    if isinstance(threat, L2):
        return L2(math.sqrt(entries) * bounds.width / 2)
    return None


@torch.no_grad()
def _changed(model: Classifier, x: Tensor) -> float:
    """Share of samples whose logits differ the second time, at another position and with half of the neighbours gone.

    The batch keeps its size, since other sizes may be computed by other kernels, which round differently.
    """
    total = len(x)
    order = torch.arange(total - 1, -1, -1, device=x.device)[: (total + 1) // 2].repeat(2)[:total]
    with TRAINED.applied(model) as same:
        first, second = same(x)[order], same(x[order])
    spread = first.amax() - first.amin()
    # Written so that NaN counts as a change.
    return 1 - int(((first - second).abs().amax(1) <= ROUNDING * spread).sum()) / total
