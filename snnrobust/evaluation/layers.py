"""What passes through every spiking layer: its spikes forward, its gradient back.

Let `ds` be the gradient that arrives at the spikes of a layer and `di` the one that leaves it to its current, both
`[T, N, ...]`. Zeros of `di` that `ds` does not have were made by the neurons (the surrogate's derivative); zeros of
`ds` that `di` of the layer behind does not have, by what lies between the two, such as max pooling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snnrobust.evaluation.measures import sparsity, zero_fraction
from snnrobust.spiking.classifier import Classifier
from snnrobust.spiking.neuron import Neuron

FIRING_RATE = "firing_rate"
LAYER_MEASURES = (
    FIRING_RATE,
    "zero_spike_gradient",
    "zero_current_gradient",
    "small_spike_gradient",
    "small_current_gradient",
)
"""Per layer, means over samples: spikes per neuron and step; shares of entries of `ds` and of `di` that are exactly
zero; and that are at most 1e-3 of the sample's largest in that layer and tensor."""

Values = dict[str, dict[str, float]]
"""By measure and layer."""


class Watch:
    """What was seen of a model's spiking layers while they were watched."""

    def __init__(self, layers: tuple[str, ...]) -> None:
        self._layers = layers
        self._seen: dict[tuple[str, str], list[Tensor]] = {}

    def means(self) -> Values:
        """Means over all samples that passed; a measure that was not seen of any layer is left out.

        Layers stand in the order of the model. An estimator that differentiates another network in place of the
        model has no gradients here, one that differentiates several has those of all.
        """
        found: Values = {}
        for measure in LAYER_MEASURES:
            seen = {layer: self._seen[measure, layer] for layer in self._layers if (measure, layer) in self._seen}
            if seen:
                found[measure] = {layer: float(torch.cat(parts).double().mean()) for layer, parts in seen.items()}
        return found

    def note(self, measure: str, layer: str, values: Tensor) -> None:
        """Values `[N]` of a batch."""
        self._seen.setdefault((measure, layer), []).append(values)

    def note_gradient(self, kind: str, layer: str, gradient: Tensor) -> None:
        """Gradient `[T, N, ...]` of a batch."""
        per_sample = gradient.transpose(0, 1)
        self.note(f"zero_{kind}_gradient", layer, zero_fraction(per_sample))
        self.note(f"small_{kind}_gradient", layer, sparsity(per_sample))


@contextmanager
def watched(model: Classifier) -> Iterator[Watch]:
    """Watches all spiking layers of a model, in forwards and backwards with and without a gradient estimator."""
    modules = model.named_modules() if isinstance(model, nn.Module) else ()
    neurons = {name: module for name, module in modules if isinstance(module, Neuron)}
    watch = Watch(tuple(neurons))
    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        for name, neuron in neurons.items():
            enter, leave = _hooks(watch, name)
            handles += [neuron.register_forward_pre_hook(enter), neuron.register_forward_hook(leave)]
        yield watch
    finally:
        for handle in handles:
            handle.remove()


def _hooks(watch: Watch, layer: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What is called before and after a layer's forward. Functions, since copies of a model share those."""

    def enter(_neuron: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        (current,) = inputs
        if current.requires_grad:
            # A tensor of its own, whose gradient is this layer's alone, whoever else uses the current; and written out
            # where all steps are one tensor, since their gradients would arrive as a sum.
            constant = len(current) > 1 and current.stride(0) == 0
            current = current.contiguous() if constant else current.view_as(current)
            current.register_hook(partial(watch.note_gradient, "current", layer))
        return (current,)

    def leave(_neuron: nn.Module, _inputs: tuple[Tensor], spikes: Tensor) -> None:
        rates = spikes.detach().transpose(0, 1).flatten(1).mean(1, dtype=torch.float64)
        watch.note(FIRING_RATE, layer, rates)
        if spikes.requires_grad:
            spikes.register_hook(partial(watch.note_gradient, "spike", layer))

    return enter, leave
