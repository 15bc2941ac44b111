"""A whole protocol on a trained digits network: our evaluation against a loop over torchattacks.

Clean, uniform noise, FGSM, PGD with 10, 30 and 50 steps, each attack the per-sample worst case over four estimators
(triangle, sigmoid, atan, rate). PGD starts at the input, so that both sides compute the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torchattacks
from spikingjelly.activation_based import surrogate
from torch import Tensor, nn

from benchmarks.networks import spikingjelly
from snnrobust.attacks.base import Attack
from snnrobust.config import build, compose
from snnrobust.data.dataset import Split
from snnrobust.evaluation.evaluator import Evaluator
from snnrobust.experiment import Experiment
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.threat import Linf

LENGTHS = (10, 30, 50)
SIZE = 0.31875
"""Step size in units of eps."""
OVERRIDES = [
    "suite=sparse_gradients", "~attacks.apgd10", "~attacks.rfgsm", "tracker=none", "device=cpu", "training.epochs=12",
    *(f"attacks.pgd{n}.start=input" for n in LENGTHS),
]  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """Seconds, and accuracies by attack."""

    seconds: float
    accuracy: Mapping[str, float]


def trained() -> tuple[Experiment, SpikingClassifier, Split]:
    """The digits network without regularizer, and the test data."""
    experiment, _ = build(compose("config", [*OVERRIDES, "regularizer=none"]).config)
    splits, model = experiment.load(), experiment.classifier()
    found = experiment.train(model, splits, lambda _epoch: None)
    model.load_state_dict(found.state)
    return experiment, model.eval(), splits.test


def ours(experiment: Experiment, model: SpikingClassifier, data: Split, eps: float) -> Outcome:
    attacks: dict[str, Attack] = dict(_attacks(eps))
    judge = Evaluator(attacks, Linf(eps), experiment.estimator, {}, experiment.evaluation)
    report = judge(model, data)
    spent = sum(s for phase, s in report.seconds.items() if phase == "clean" or phase.startswith("attack/"))
    metrics = report.metrics()
    return Outcome(spent, {name: metrics[f"{name}_accuracy"] for name in ("clean", *attacks)})


def _attacks(eps: float) -> Mapping[str, Attack]:
    config = compose("config", [*OVERRIDES, f"threat.eps={eps}"]).config
    return build(config)[0].attacks


def theirs(experiment: Experiment, model: SpikingClassifier, data: Split, eps: float) -> Outcome:
    """What a user of torchattacks writes: for every attack, estimator and batch, craft and count."""
    start = time.perf_counter()
    networks = [*_networks(experiment, model)]
    size = experiment.evaluation.batch_size
    right = {"clean": _judged(networks[0], data, size, lambda _net: lambda x, _y: x)}
    right["uniform_noise"] = _judged(networks[0], data, size, lambda _net: lambda x, _y: _noise(x, eps))
    makers: dict[str, Callable[[nn.Module], Callable[[Tensor, Tensor], Tensor]]] = {
        "fgsm": lambda net: torchattacks.FGSM(net, eps=eps),
        **{f"pgd{n}": _pgd(eps, n) for n in LENGTHS},
    }
    for name, make in makers.items():
        right[name] = torch.stack([_judged(network, data, size, make) for network in networks]).all(0)
    accuracy = {name: float(bits.float().mean()) for name, bits in right.items()}
    return Outcome(time.perf_counter() - start, accuracy)


def _pgd(eps: float, steps: int) -> Callable[[nn.Module], Callable[[Tensor, Tensor], Tensor]]:
    return lambda net: torchattacks.PGD(net, eps=eps, alpha=SIZE * eps, steps=steps, random_start=False)


def _noise(x: Tensor, eps: float) -> Tensor:
    return (x + eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1)


Network = tuple[nn.Module, Callable[[], AbstractContextManager[object]]]


def _networks(experiment: Experiment, model: SpikingClassifier) -> Iterator[Network]:
    """SpikingJelly's modules with each surrogate; for the rate estimator, which it lacks, our plain network."""
    for spike in (surrogate.PiecewiseQuadratic(), surrogate.Sigmoid(4.0), surrogate.ATan(2.0)):
        yield spikingjelly(model, spike), nullcontext
    rate = experiment.estimator.members()["rate"]
    yield model, lambda: rate.applied(model)


def _judged(
    network: Network, data: Split, size: int, make: Callable[[nn.Module], Callable[[Tensor, Tensor], Tensor]]
) -> Tensor:
    net, applied = network
    found = []
    with applied():
        attack = make(net)
        for batch in data.batches(size):
            x = attack(batch.x, batch.y)
            with torch.no_grad():
                found.append(net(x).argmax(1) == batch.y)
    return torch.cat(found)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Runs its body with so many threads of torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def half_survives(model: SpikingClassifier, experiment: Experiment, data: Split) -> float:
    """The budget, in hundredths, at which PGD-50 under the four estimators leaves closest to half of the samples."""
    tried = {eps / 100: ours(experiment, model, data, eps / 100).accuracy["pgd50"] for eps in range(4, 15, 2)}
    return min(tried, key=lambda eps: abs(tried[eps] - 0.5))
