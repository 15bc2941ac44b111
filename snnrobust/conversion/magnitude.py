"""Least weight magnitude: the weakest connections go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snnrobust.conversion.base import Ground, Start, described
from snnrobust.conversion.masks import prune, strongest, uniform
from snnrobust.conversion.weights import Weights
from snnrobust.settings import ShareBelowOne
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.synapses import synapses


@dataclass(frozen=True)
class Magnitude(Start):
    """The weights of another network, of every layer the same share of those with the largest `|w|`.

    The baseline "LWM" of CPAL 2025. Of equal weights, those that come first stay; connections that the source lacks
    stay absent.

    Args:
        source: of the same architecture and neurons.
        sparsity: share of absent weights among those of all convolutions and linear layers: `round((1 - sparsity) N)`
            of the N stay, of every layer at least one.
    """

    source: SpikingClassifier
    sparsity: ShareBelowOne = 0.9

    def begin(self, model: SpikingClassifier, ground: Ground) -> Mapping[str, Any]:
        Weights(self.source).begin(model, ground)
        weights = synapses(model)
        counts = uniform(self.sparsity, model)
        prune(model, {name: strongest(weight.abs(), counts[name]) for name, weight in weights.items()})
        return {"method": "magnitude", **described(model)}
