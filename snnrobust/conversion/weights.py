"""The weights of another run, to go on with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snnrobust.conversion.base import Ground, Start, described
from snnrobust.spiking.classifier import SpikingClassifier


@dataclass(frozen=True)
class Weights(Start):
    """All weights, thresholds and running statistics of another network of the same architecture and neurons.

    Args:
        source: the network.
    """

    source: SpikingClassifier

    def begin(self, model: SpikingClassifier, ground: Ground) -> Mapping[str, Any]:
        own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("normalize.")}
        try:
            model.load_state_dict(self.source.state_dict() | own)  # the dataset says how its inputs are normalised
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"start.source: of another architecture or other neurons ({reason}); allowed: runs of the same"
            ) from error
        return described(model)
