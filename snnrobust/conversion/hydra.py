"""HYDRA: connections chosen by what the robust loss says of them (Sehwag et al., NeurIPS 2020, arXiv 2002.10509)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from snnrobust.conversion.base import Ground, Start, described
from snnrobust.conversion.learning import learn
from snnrobust.conversion.masks import connections, uniform
from snnrobust.conversion.scores import Chosen, Quotas
from snnrobust.conversion.weights import Weights
from snnrobust.settings import ShareBelowOne
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.training.settings import TrainingSettings


@dataclass(frozen=True)
class Hydra(Start):
    """The weights of another network, of every layer the same share of those with the largest learned score `|s|`.

    `min_s L(f(x; m(s) w), y)` with the weights frozen and `L` the loss of the run, its defence and its regularizer;
    straight-through, `dm/d|s| = 1`. Connections that the source lacks stay absent.

    Args:
        source: of the same architecture and neurons.
        training: of the scores.
        sparsity: share of absent weights among those of all convolutions and linear layers: `round((1 - sparsity) N)`
            of the N stay, of every layer at least one. If none has to go, nothing is learned.
    """

    source: SpikingClassifier
    training: TrainingSettings
    sparsity: ShareBelowOne = 0.9

    def begin(self, model: SpikingClassifier, ground: Ground) -> Mapping[str, Any]:
        whole = Weights(self.source).begin(model, ground)
        counts = uniform(self.sparsity, model)
        if sum(counts.values()) == sum(connections(model)[1].values()):
            return {"method": "hydra", **whole}
        trained, _ = learn(model, lambda names: _Fixed([counts[name] for name in names]), self.training, ground)
        return {"method": "hydra", "epoch": trained.best.epoch, **described(model)}


class _Fixed(Quotas):
    """Numbers of connections that stay what they are."""

    def __init__(self, counts: list[int]) -> None:
        super().__init__()
        self.counts = counts

    def count(self, layer: int) -> int:
        return self.counts[layer]

    def chosen(self, layer: int, importance: Tensor) -> Tensor:
        mask: Tensor = Chosen.apply(importance, self.counts[layer])
        return mask
