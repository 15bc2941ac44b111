"""MPPD: membranes that an adversarial input moves little (Ding et al., ICML 2024, arXiv 2405.20694)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from snnrobust.attacks.base import Attack
from snnrobust.regularizers.base import Pass, Regularizer
from snnrobust.settings import NonNegative
from snnrobust.spiking.classifier import Classifier, SpikingClassifier
from snnrobust.spiking.dynamics import Membrane
from snnrobust.spiking.fuse import fused
from snnrobust.spiking.neuron import Neuron
from snnrobust.spiking.recording import Layer, per_layer, recorded


@dataclass(frozen=True)
class MembranePerturbation(Regularizer):
    """`R = mean_l mean_{t,b,i} Y_t^2` with `Y_t = leak Y_{t-1} + gain (I'_t - I_t)`, from 0:
    how far the membranes of a layer would drift apart under the currents `I'` of the perturbed and `I` of the clean
    input, if nothing fired (MPPD, Ding et al., ICML 2024, arXiv 2405.20694). `norm=l1` takes `|Y_t|`, as the
    total-variation form that followed it.

    If the pass is of other inputs than the clean ones, a defence has made them and they are the perturbed ones;
    otherwise, with `defence=none`, after a defence that regularizes its clean pass, and on validation data, `attack`
    makes them, against the model in eval mode. Both passes update batch-norm statistics. As published the loss is also
    that of both inputs, half and half: `defence=adversarial defence.clean_weight=0.5`.

    Args:
        attack: makes the perturbed inputs where no defence has made any; its draws differ from epoch to epoch.
        weight: factor of the term in the loss; 1 is published.
        warmup: epochs over which the weight rises linearly from 0.
        layers: the last spiking layer, as published, or all of them.
        norm: of the perturbation: mean square or mean absolute value.

    Raises:
        ValueError: when called, if a layer has no membrane.
    """

    attack: Attack
    weight: NonNegative = 1.0
    warmup: NonNegative = 0.0
    layers: Literal["last", "all"] = "last"
    norm: Literal["l2", "l1"] = "l2"

    needs_layers = True

    def __call__(self, model: Classifier, at: Pass) -> Tensor:
        if torch.equal(at.x, at.clean):
            x = self._perturbed(model, at)
            perturbed, clean = self._layers(model, x), at.layers
        else:
            perturbed, clean = at.layers, self._layers(model, at.clean)
        first = 0 if self.layers == "all" else -1
        return per_layer(self._moved, perturbed[first:], clean[first:]).mean()

    def _perturbed(self, model: Classifier, at: Pass) -> Tensor:
        """Crafted on the fused copy of the network, which decides the same."""
        network = fused(model) if isinstance(model, SpikingClassifier) else model
        return self.attack.renewed("regularizer", at.epoch)(network, at.clean, at.y, at.index)

    def _layers(self, model: Classifier, x: Tensor) -> Sequence[Layer]:
        with recorded(model) as layers:
            model(x)
        return layers

    def _moved(self, perturbed: Layer, clean: Layer) -> Tensor:
        moved = drift(perturbed.neuron, perturbed.current - clean.current)
        return (moved.square() if self.norm == "l2" else moved.abs()).mean()


def drift(neuron: Neuron, current: Tensor) -> Tensor:
    """`Y` `[T, N, ...]`: what a current `[T, N, ...]` leaves on membranes that neither fire nor are reset.

    Where the leak changes, its mean counts.

    Raises:
        ValueError: if the layer has no membrane.
    """
    dynamics = neuron.dynamics
    if not isinstance(dynamics, Membrane):
        raise ValueError(
            f"regularizer: membrane_perturbation is of membranes that charge and leak, which "
            f"{type(neuron).__name__} does not have; allowed: neurons that have one"
        )
    leak, charge = dynamics.leak, dynamics.gain * current
    states = [charge[0]]
    for step in charge[1:]:
        states.append(leak * states[-1] + step)
    return torch.stack(states)
