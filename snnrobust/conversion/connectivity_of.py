"""Random weights with the connections of another network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from snnrobust.conversion.base import Ground, Start, described
from snnrobust.conversion.connections import apply_connections
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.synapses import synapses


@dataclass(frozen=True)
class ConnectivityOf(Start):
    """Weights as a network begins with them, where the source has connections; the others are absent.

    The baseline "E2E ANN connectivity" of CPAL 2025 (its table 1), where the source is a pruned network.

    Args:
        source: of the same architecture; neurons may differ.
        rescale: none: as published; fan_in: by `sqrt(inputs / connections)` of each neuron, as
            `RandomConnectivity` does.
    """

    source: SpikingClassifier
    rescale: Literal["none", "fan_in"] = "none"

    def begin(self, model: SpikingClassifier, ground: Ground) -> Mapping[str, Any]:
        weights, theirs = synapses(model), synapses(self.source)
        for name in [*weights, *theirs]:
            if name not in weights or name not in theirs:
                whose = "the source lacks it" if name in weights else "the model lacks it"
                raise ValueError(f"start.source: of another architecture ({name}: {whose}); allowed: the same model")
            if weights[name].shape != theirs[name].shape:
                shapes = f"{[*theirs[name].shape]} instead of {[*weights[name].shape]}"
                raise ValueError(f"start.source: of another architecture ({name} is {shapes}); allowed: the same model")
        for name, weight in weights.items():
            apply_connections(weight, theirs[name].detach().to(weight.device) != 0, self.rescale)
        return described(model)
