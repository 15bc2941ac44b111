"""The package in Python: `evaluate` any model on any data, `load` a trained one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from torch import Tensor, nn

from snnrobust.attacks.adaptive import APGD
from snnrobust.attacks.base import Attack
from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.attacks.guard import untouched
from snnrobust.attacks.noise import UniformNoise
from snnrobust.attacks.square import Square
from snnrobust.building import load
from snnrobust.data.dataset import Split
from snnrobust.estimators.base import Estimator
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.evaluation.checks import Flag, checks_of
from snnrobust.evaluation.evaluator import Evaluator, Settings
from snnrobust.evaluation.report import Report
from snnrobust.foreign import Foreign, verify
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.threat import L2, Bounds, Linf, Threat

__all__ = ["evaluate", "flags", "load", "quick"]


def evaluate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat | float | None = None,
    attacks: Mapping[str, Attack] | None = None,
    bounds: Bounds | tuple[float, float] = (0.0, 1.0),
    stochastic: bool = False,
    estimator: Estimator = TRAINED,
    validation: tuple[Tensor, Tensor] | None = None,
    batch_size: int = 256,
    seed: int = 0,
    draws: int = 10,
    exhaustive: bool = False,
    cascade: bool = False,
) -> Report:
    """Accuracy of a model on clean inputs and under attacks, worst case per sample, and gradient measures.

    The model is left as it was: mode, parameters, buffers, attributes. Every forward begins from the state that it is
    handed over with, and it has to show first that it is a classifier at all (`foreign.verify`).

    >>> import torch
    >>> from snnrobust import evaluate
    >>> points = torch.linspace(0, 1, 21)[:, None]
    >>> model = torch.nn.Linear(1, 2)
    >>> _ = model.load_state_dict({"weight": torch.tensor([[-1.0], [1.0]]), "bias": torch.tensor([0.5, -0.5])})
    >>> report = evaluate(model, points, (points[:, 0] > 0.5).long(), threat=0.09)
    >>> [round(report.metrics()[f"{name}_accuracy"], 3) for name in ("clean", "pgd", "worst")]
    [1.0, 0.857, 0.857]

    Args:
        model: `[B, ...]` to logits `[B, K]`. A classifier of this package is evaluated as it is, with its own bounds
            and its neurons open to gradient estimators; any other network is wrapped.
        x: inputs `[N, ...]`, floats within `bounds`; the model does its own normalisation.
        y: classes `[N]`.
        threat: budget of the evaluation; a number is an l_inf budget in units of the input. Where attacks are given it
            may be left out: it is then that of the attack whose threat contains the others'.
        attacks: by name; `quick` where not given.
        bounds: range of the inputs.
        stochastic: whether the model draws at random in eval mode.
        estimator: whose gradient is measured, and followed by the attacks of `quick`.
        validation: other inputs and classes, on which the strongest estimators are chosen where attacks ask for them.
        batch_size: samples per forward.
        seed: of noise, random starts, and the draws of a stochastic model.
        draws: forwards by which a stochastic model is judged: correct if correct in all.
        exhaustive: attack every sample under every estimator, not only those that survived the ones before.
        cascade: attack only what survived all attacks before.

    Raises:
        ValueError: in one line, if the arguments do not fit together, or the model is no classifier.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: got {type(model).__name__}; allowed: a torch.nn.Module")
    ours = model if isinstance(model, SpikingClassifier) else None
    limits = ours.bounds if ours else bounds if isinstance(bounds, Bounds) else Bounds(*map(float, bounds))
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), x.device)
    data = _split("x, y", x, y, limits).to(device)
    other = _split("validation", *validation, limits).to(device) if validation else None
    budget = _threat(threat, attacks or {}, limits)
    suite = _fitting(x, budget, estimator, seed) if attacks is None else attacks
    settings = Settings(batch_size, seed, draws, exhaustive, cascade=cascade)
    judge = Evaluator(suite, budget, estimator, {}, settings)
    if ours:
        return judge(ours, data, validation=other)
    foreign = Foreign(model, limits, stochastic)
    batch = next(data.batches(batch_size))
    with untouched(foreign):
        for caution in verify(foreign, batch.x, data.labels):
            warnings.warn(caution, stacklevel=2)
        return judge(foreign, data, validation=other)


def flags(report: Report) -> tuple[Flag, ...]:
    """What speaks against taking the accuracies of a report for robustness (docs/checks.md); empty if nothing does."""
    return tuple(checks_of(report).flags)


def quick(threat: Threat, estimator: Estimator = TRAINED, seed: int = 0) -> dict[str, Attack]:
    """Attacks that take seconds to minutes: noise, FGSM, PGD, short forms of APGD and Square. No proof of robustness.

    Raises:
        ValueError: for threats other than l_inf and l_2.
    """
    if not isinstance(threat, Linf | L2):
        raise ValueError(
            f"attacks: missing; there are none by default for {type(threat).__name__}, only for Linf and L2"
        )
    return {
        "uniform_noise": UniformNoise(threat, seed),
        "fgsm": ProjectedGradient(threat, estimator, steps=1, step_size=threat.size, start="input", seed=seed),
        "pgd": ProjectedGradient(threat, estimator, steps=10, seed=seed),
        "apgd": APGD(threat, estimator, steps=20, seed=seed),
        "square": Square(threat, queries=200, seed=seed),
    }


def _fitting(x: Tensor, threat: Threat, estimator: Estimator, seed: int) -> dict[str, Attack]:
    """`quick` without squares where inputs `[N, ...]` have no height and width."""
    attacks = quick(threat, estimator, seed)
    return {name: attack for name, attack in attacks.items() if x.dim() >= 4 or not isinstance(attack, Square)}


def _threat(given: Threat | float | None, attacks: Mapping[str, Attack], limits: Bounds) -> Threat:
    if isinstance(given, Threat):
        return given
    if given is not None:
        if not 0 <= given <= limits.width:
            raise ValueError(f"threat: got {given}; allowed: 0 to {limits.width:g}, the range, such as 8 / 255")
        return Linf(float(given))
    budgets = [attack.threat for attack in attacks.values() if attack.threat and attack.space == "input"]
    largest = [budget for budget in budgets if all(budget.contains(other) for other in budgets)]
    if not largest:
        raise ValueError("threat: missing; allowed: a number (l_inf), a Threat, or attacks of which one's contains all")
    return largest[0]


def _split(name: str, x: Tensor, y: Tensor, bounds: Bounds) -> Split:
    """Inputs and classes that fit together.

    Raises:
        ValueError: if they do not.
    """
    if not x.is_floating_point():
        raise ValueError(f"{name}: got inputs of {x.dtype}; allowed: floats, such as images.float() / 255")
    if y.is_floating_point() or y.dim() != 1 or len(y) != len(x) or len(y) == 0 or int(y.min()) < 0:
        got = f"{len(x)} inputs and classes {y.dtype} {list(y.shape)}"
        raise ValueError(f"{name}: got {got}; allowed: one class number from 0 for each of at least one input")
    if not bool(((x >= bounds.low) & (x <= bounds.high)).all()):
        raise ValueError(
            f"{name}: got inputs in [{float(x.min()):.4g}, {float(x.max()):.4g}]; allowed: [{bounds.low:g}, "
            f"{bounds.high:g}], the bounds; normalisation belongs into the model"
        )
    return Split(x.detach(), y.long())
