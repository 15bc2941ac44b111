"""The analog twin of a spiking network."""

from __future__ import annotations

import copy

import torch
from torch import nn

from snnrobust.spiking.activation import ReLU
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.dynamics import Membrane
from snnrobust.spiking.encoder import Direct
from snnrobust.spiking.neuron import Neuron


def twin(model: SpikingClassifier) -> SpikingClassifier:
    """A copy of a classifier with ReLU in the place of its neurons; it shares no weights with `model`.

    A neuron with gain g and threshold v becomes `max(0, (g / v) i)`: without leak its firing rate under a constant
    current, up to rounding and saturation. A direct code gets one step, since all steps are equal without time. The
    state dict is that of the model but for parameters of neurons, so that weights go to and fro.

    Raises:
        ValueError: if the model has no neurons, or such without a membrane.
    """
    neurons = [module for module in model.modules() if isinstance(module, Neuron)]
    if not neurons:
        raise ValueError("twin: got a model without spiking neurons; allowed: one of snnrobust's spiking networks")
    instead: dict[int, nn.Module] = {id(neuron): _activation(neuron).train(neuron.training) for neuron in neurons}
    if isinstance(model.encoder, Direct):
        instead[id(model.encoder)] = Direct(steps=1).train(model.encoder.training)
    copied: SpikingClassifier = copy.deepcopy(model, dict(instead))
    return copied


@torch.no_grad()
def _activation(neuron: Neuron) -> ReLU:
    its = neuron.dynamics
    if not isinstance(its, Membrane):
        raise ValueError(f"twin: got {type(neuron).__name__}, which has no membrane; allowed: neurons that have one")
    return ReLU(float(its.gain) / float(its.threshold))
