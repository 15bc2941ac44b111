"""Few spikes: a penalty on the firing rate of every layer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from snnrobust.regularizers.base import Pass, Regularizer
from snnrobust.settings import Fraction, NonNegative
from snnrobust.spiking.classifier import Classifier
from snnrobust.spiking.recording import per_layer


@dataclass(frozen=True)
class SpikeRate(Regularizer):
    """`R = mean_l max(0, r_l - target)`; `r_l` is the mean spike of layer l over time, samples and neurons.

    Activity regularization has many forms (Zenke and Vogels 2021, doi 10.1162/neco_a_01367, bound the spike counts of a
    layer); this one is ours, the simplest that lets a layer be once it is quiet enough. With `target=0` it is the mean
    firing rate of the layers, each of the same weight whatever its size.

    Args:
        weight: factor of the term in the loss.
        warmup: epochs over which the weight rises linearly from 0.
        target: rate, in spikes per neuron and step, up to which a layer costs nothing.
    """

    weight: NonNegative = 1.0
    warmup: NonNegative = 0.0
    target: Fraction = 0.0

    needs_layers = True

    def __call__(self, model: Classifier, at: Pass) -> Tensor:
        rates = per_layer(lambda layer: layer.spikes.mean(), at.layers)
        return (rates - self.target).clamp_min(0).mean()
