"""Runs a suite of attacks and all measures over one split."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snnrobust.attacks.base import Attack
from snnrobust.attacks.guard import untouched
from snnrobust.data.dataset import Batch, Split
from snnrobust.evaluation.measures import firing_rate, firing_rates, gradient_measures
from snnrobust.evaluation.report import CLEAN, Report
from snnrobust.randomness import isolated
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.threat import Threat

Advance = Callable[[int, float], None]
"""Called after each batch with the number of samples done and the accuracy so far."""
Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""Opened for each phase with its name and number of samples."""


def silent(name: str, samples: int) -> AbstractContextManager[Advance]:
    """A `Progress` that shows nothing."""
    return nullcontext(lambda _samples, _accuracy: None)


@dataclass(frozen=True)
class Evaluator:
    """Clean accuracy, accuracy under every attack, gradient measures and firing rates.

    Args:
        attacks: by name; `clean` is always there and is no name for an attack.
        threat: of the evaluation; attacks whose own threat it contains form the worst case.
        headline: see `Report`.
        batch_size: samples per forward.
        seed: of the draws of a stochastic model.
    """

    attacks: Mapping[str, Attack]
    threat: Threat
    headline: Mapping[str, str]
    batch_size: int
    seed: int

    def __call__(self, model: SpikingClassifier, data: Split, progress: Progress = silent) -> Report:
        """Evaluates in eval mode; the model and the caller's random streams are left as they were."""
        seconds: dict[str, float] = {}
        correct: dict[str, Tensor] = {}
        excess: dict[str, float] = {}
        with untouched(model):
            with _timed(seconds, CLEAN):
                correct[CLEAN] = self._outcomes(CLEAN, model, data, lambda batch: batch.x, progress)
            for name, attack in self.attacks.items():
                with _timed(seconds, f"attack/{name}"):
                    craft = _Crafted(attack, model)
                    correct[name] = self._outcomes(name, model, data, craft, progress)
                    excess[name] = craft.excess
            with _timed(seconds, "measures"), isolated("measures", self.seed):
                measures = gradient_measures(model, data.batches(self.batch_size))
                rates = firing_rates(model, data.batches(self.batch_size))
        return Report(correct, self._inside(), self.headline, measures | firing_rate(rates), rates, excess, seconds)

    def _outcomes(
        self, name: str, model: nn.Module, data: Split, craft: Callable[[Batch], Tensor], progress: Progress
    ) -> Tensor:
        """`[N]` bool: correct on what `craft` makes of each batch."""
        outcomes: list[Tensor] = []
        done = right = 0
        with progress(name, len(data)) as advance:
            for batch in data.batches(self.batch_size):
                x = craft(batch)
                with isolated("judge", self.seed, name, done), torch.no_grad():
                    outcomes.append((model(x).argmax(1) == batch.y).cpu())
                done, right = done + len(x), right + int(outcomes[-1].sum())
                advance(len(x), right / done)
        return torch.cat(outcomes)

    def _inside(self) -> tuple[str, ...]:
        return tuple(
            name for name, attack in self.attacks.items() if attack.threat and self.threat.contains(attack.threat)
        )


class _Crafted:
    """Adversarial inputs of one attack on one model, with the largest excess over the attack's budget so far."""

    def __init__(self, attack: Attack, model: SpikingClassifier) -> None:
        self.attack = attack
        self.model = model
        self.excess = 0.0

    def __call__(self, batch: Batch) -> Tensor:
        x = self.attack(self.model, batch.x, batch.y, batch.index)
        if self.attack.threat is not None:
            self.excess = max(self.excess, float(self.attack.threat.excess(x, batch.x).max()))
        return x


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - start
