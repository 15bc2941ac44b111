"""Random weights, of which a random choice is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from snnrobust.conversion.base import Ground, Start, described
from snnrobust.conversion.connections import apply_connections
from snnrobust.conversion.quotas import apportioned, remaining
from snnrobust.randomness import generator
from snnrobust.settings import ShareBelowOne
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.synapses import synapses


@dataclass(frozen=True)
class RandomConnectivity(Start):
    """Weights as a network begins with them, of which a number that is met exactly is drawn; the others are absent.

    The baseline "E2E random connectivity" of CPAL 2025 (its table 1): uniform layers, weights as they are drawn.

    Args:
        sparsity: share of absent weights among those of all convolutions and linear layers: `round((1 - sparsity) N)`
            of the N are there, of every layer at least one.
        layers: uniform: the same share of every layer; erdos_renyi: shares in proportion to
            `(in + out + height + width) / (in out height width)`, which spare small layers (Mocanu et al. 2018; with
            the kernels, Evci et al., RigL, ICML 2020). A layer that is full passes the rest on.
        rescale: none: as published; fan_in: by `sqrt(inputs / connections)` of each neuron, so that currents keep the
            variance that dense weights give them (Evci et al., AAAI 2022). It matters to layers without batch norm.
    """

    sparsity: ShareBelowOne = 0.9
    layers: Literal["uniform", "erdos_renyi"] = "uniform"
    rescale: Literal["none", "fan_in"] = "none"

    def begin(self, model: SpikingClassifier, ground: Ground) -> Mapping[str, Any]:
        weights = synapses(model)
        sizes = [weight.numel() for weight in weights.values()]
        ideal = sizes if self.layers == "uniform" else [sum(weight.shape) for weight in weights.values()]
        counts = apportioned(ideal, sizes, remaining(self.sparsity, sizes, sizes))
        random = generator("connectivity", ground.seed)
        for weight, count in zip(weights.values(), counts, strict=True):
            apply_connections(weight, _drawn(weight, count, random), self.rescale)
        return described(model)


def _drawn(weight: Tensor, count: int, random: torch.Generator) -> Tensor:
    """A mask of `count` places, every set of them equally probable."""
    there = torch.zeros(weight.numel(), dtype=torch.bool)
    there[torch.randperm(weight.numel(), generator=random)[:count]] = True
    return there.view(weight.shape).to(weight.device)
