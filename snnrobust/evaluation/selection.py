"""Chooses, on validation data, the estimators whose worst case is to be taken on the test data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from snnrobust.attacks.base import Attack
from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.data.dataset import Split, balanced
from snnrobust.estimators.base import Estimator
from snnrobust.estimators.ensemble import Ensemble
from snnrobust.estimators.strongest import Strongest
from snnrobust.evaluation.findings import Finding
from snnrobust.evaluation.judge import Judge
from snnrobust.evaluation.ledger import Ledger
from snnrobust.evaluation.outcomes import BROKEN, ROBUST
from snnrobust.spiking.classifier import Classifier
from snnrobust.threat import Threat

STEPS = 10
PHASE = "selection"


@dataclass(frozen=True)
class Selection:
    """What was chosen, and on what grounds.

    Args:
        estimator: the ensemble, strongest first.
        outcomes: per candidate, `[M]` int8 under PGD with 10 steps from the same starts, on the validation samples
            that are classified correctly.
        left_out: candidates that do not apply to the model.
    """

    estimator: Ensemble
    outcomes: Mapping[str, Tensor]
    left_out: tuple[str, ...]


def select(
    wanted: Strongest,
    attacked: Classifier,
    judge: Judge,
    validation: Split,
    threat: Threat,
    batch_size: int,
    seed: int,
    ledger: Ledger,
) -> Selection:
    """Tries every candidate on the same validation samples, of all classes alike, and keeps those that together break
    most.

    Greedy: the first breaks most samples, each further one most of those that are left; among equals the one that
    breaks more by itself, then the earlier one.
    """
    fitting = {name: e for name, e in wanted.candidates.items() if _applies(e, attacked)}
    probe = ProjectedGradient(threat, steps=STEPS, seed=seed)
    tried: dict[str, list[Tensor]] = {name: [] for name in fitting}
    find = partial(_tried, {name: replace(probe, estimator=e) for name, e in fitting.items()}, attacked, judge)
    batches = balanced(validation.labels.cpu(), wanted.samples, seed=0).split(batch_size)
    for finding in ledger.findings(PHASE, batches, partial(find, validation)):
        right = finding.right[PHASE]
        for name, parts in tried.items():
            parts.append(torch.where(finding.right[_phase(name)][right], ROBUST, BROKEN).to(torch.int8))
    nothing = torch.empty(0, dtype=torch.int8)
    outcomes = {name: torch.cat([nothing, *parts]) for name, parts in tried.items()}
    chosen = {name: fitting[name] for name in _cover(outcomes, wanted.keep)}
    return Selection(Ensemble(chosen), outcomes, tuple(name for name in wanted.candidates if name not in fitting))


def resolved(attacks: Mapping[str, Attack], wanted: Strongest, chosen: Ensemble) -> dict[str, Attack]:
    """The attacks with `chosen` in place of the request."""
    return {
        name: replace(attack, estimator=chosen) if attack.estimator == wanted else attack  # type: ignore[type-var]
        for name, attack in attacks.items()
    }


def wanted(attacks: Mapping[str, Attack]) -> Strongest | None:
    """The request that attacks make, if any.

    Raises:
        ValueError: if they make different ones.
    """
    requests = [a.estimator for a in attacks.values() if isinstance(a.estimator, Strongest)]
    if any(request != requests[0] for request in requests):
        raise ValueError("estimator: the attacks ask for different strongest estimators; allowed: the same for all")
    return requests[0] if requests else None


def _tried(
    probes: Mapping[str, Attack], attacked: Classifier, judge: Judge, validation: Split, index: Tensor
) -> Finding:
    """Which samples `[B]` are classified correctly, and which of them are so under each candidate."""
    batch = validation.batch(index)
    right, _ = judge(PHASE, judge.model, batch.x, batch.y, index)
    batch = validation.batch(index[right])
    found = {PHASE: right} | {_phase(name): torch.zeros_like(right) for name in probes}
    for name, probe in probes.items() if len(batch.index) else ():
        x = probe(attacked, batch.x, batch.y, batch.index)
        found[_phase(name)][right], _ = judge(_phase(name), judge.model, x, batch.y, batch.index)
    return Finding(index, found)


def _phase(candidate: str) -> str:
    return f"{PHASE}/{candidate}"


def _applies(estimator: Estimator, model: Classifier) -> bool:
    try:
        with estimator.applied(model):
            return True
    except ValueError:
        return False


def _cover(outcomes: Mapping[str, Tensor], keep: int) -> list[str]:
    """Names of at most `keep` candidates, greedily."""
    broken = {name: column == BROKEN for name, column in outcomes.items()}
    chosen: list[str] = []
    left = torch.ones_like(next(iter(broken.values())))
    while len(chosen) < min(keep, len(broken)):
        rest = [name for name in broken if name not in chosen]
        best = max(rest, key=lambda name: (int((broken[name] & left).sum()), int(broken[name].sum())))
        chosen.append(best)
        left &= ~broken[best]
    return chosen
