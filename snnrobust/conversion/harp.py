"""HARP: which connections stay, and how many of each layer (Zhao & Wressnegger, ICLR 2023, arXiv 2412.14714)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snnrobust.conversion.base import Ground, Start, described
from snnrobust.conversion.learning import learn
from snnrobust.conversion.masks import connections
from snnrobust.conversion.quotas import remaining
from snnrobust.conversion.shares import Shares
from snnrobust.conversion.weights import Weights
from snnrobust.settings import LeftOpenFraction, Positive, ShareBelowOne
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.training.settings import TrainingSettings


@dataclass(frozen=True)
class Harp(Start):
    """The weights of another network, of every layer a learned share `a_l` of those with the largest learned score.

    Scores as in HYDRA, and `a_l = a_min + (1 - a_min) sigmoid(r_l)` together minimise the loss of the run plus
    `gamma e max(sum_l a_l n_l / K - 1, 0)`, where `K` connections are to stay and `e` is the number of the epoch, which
    counts no further once the excess was gone. From then on shares are scaled, so that exactly `K` stay; and so they
    are whenever the network is validated, and in the end. (The authors let shares fall below, and stop short of `K`.)

    `a_min` is a tenth of the share that is asked for. All layers begin with its square root, which is the 10 % of the
    authors for their 99 % sparsity.

    Args:
        source: of the same architecture and neurons.
        training: of scores and shares.
        sparsity: share of absent weights among those of all convolutions and linear layers: `K = round((1 - sparsity)
            N)` of the N stay, of every layer at least one. If none has to go, nothing is learned.
        gamma: by which the price of the excess rises with every epoch.
        window: the gradient to `a_l` is `n_l` times the mean of `dL/dm` over this share of the layer's connections on
            either side of the threshold. 1: over all of them, the straight-through estimate of the authors' code; the
            smaller, the nearer to the change of the loss when the threshold moves.
    """

    source: SpikingClassifier
    training: TrainingSettings
    sparsity: ShareBelowOne = 0.9
    gamma: Positive = 0.01
    window: LeftOpenFraction = 1.0

    def begin(self, model: SpikingClassifier, ground: Ground) -> Mapping[str, Any]:
        whole = Weights(self.source).begin(model, ground)
        sizes, there = connections(model)
        kept = remaining(self.sparsity, [*sizes.values()], [*there.values()])
        if kept == sum(there.values()):
            return {"method": "harp", **whole}

        def quotas(names: list[str]) -> Shares:
            own = [sizes[name] for name in names], [there[name] for name in names]
            return Shares(*own, kept, self.gamma, self.window)

        trained, learned = learn(model, quotas, self.training, ground)
        return {
            "method": "harp",
            "epoch": trained.best.epoch,
            "shares": dict(zip((name for name in there if there[name]), learned.shares().tolist(), strict=True)),
            "excess": float(learned.excess().detach()),
            **described(model),
        }
