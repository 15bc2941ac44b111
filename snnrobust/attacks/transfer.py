"""Transferred attacks: made on one model, judged on another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Tensor

from snnrobust.attacks.base import Attack
from snnrobust.spiking.classifier import Classifier
from snnrobust.threat import Threat


@dataclass(frozen=True)
class Transfer(Attack):
    """What `attack` finds on `source`, which it sees through; of the model itself not even the output is seen.

    Budget and seed are those of `attack`, which is run with all its restarts and estimators: the source decides which
    of their results is the worst.

    Args:
        source: another classifier of the same inputs and classes, on the same device.
        attack: run on it.
    """

    source: Classifier
    attack: Attack

    black_box: ClassVar[bool] = True

    @property
    def threat(self) -> Threat | None:  # type: ignore[override]
        return self.attack.threat

    @property
    def seed(self) -> int:  # type: ignore[override]
        return self.attack.seed

    def renewed(self, *words: object) -> Self:
        return replace(self, attack=self.attack.renewed(*words))

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        return self.attack(self.source, x, y, index)
