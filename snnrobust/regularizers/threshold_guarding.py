"""TGO-style: potentials that keep away from the threshold (arXiv 2602.20548)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from snnrobust.regularizers.base import Pass, Regularizer
from snnrobust.settings import NonNegative, Positive
from snnrobust.spiking.classifier import Classifier
from snnrobust.spiking.recording import Layer, per_layer


@dataclass(frozen=True)
class ThresholdGuarding(Regularizer):
    """`R = sum_l mean_{t,b,i} max(0, delta - |u - threshold|)`: the membrane constraint of threshold-guarding
    optimization (TGO, arXiv 2602.20548).

    TGO-style, since the paper's `delta` is not known to us; with `neuron=noisy_lif` it is the whole method. Its weight
    is 0.4 for a WRN-16 and 0.6 for a VGG-11, reached at the end of the training.

    A potential far from the threshold is hard to push across it, and has little or no surrogate gradient besides: a
    part of what gradient-based attacks lose here is their gradient alone.

    Args:
        weight: factor of the term in the loss, after the warm-up.
        warmup: epochs over which the weight rises from 0, by half a cosine.
        delta: distance from the threshold, in units of the potential, from which on a potential costs nothing.
    """

    weight: NonNegative = 0.4
    warmup: NonNegative = 0.0
    delta: Positive = 0.5

    needs_layers = True

    def weight_at(self, elapsed: float) -> float:
        """`weight (1 - cos(pi elapsed / warmup)) / 2` up to `warmup`, then constant."""
        share = 1.0 if elapsed >= self.warmup else elapsed / self.warmup
        return self.weight * 0.5 * (1 - math.cos(math.pi * share))

    def __call__(self, model: Classifier, at: Pass) -> Tensor:
        return per_layer(self._near, at.layers).sum()

    def _near(self, layer: Layer) -> Tensor:
        return (self.delta - layer.distance.abs()).clamp_min(0).mean()
