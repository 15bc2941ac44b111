"""What is sent through a network while it classifies: spikes of every layer, and how often a layer computes anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from snnrobust.data.dataset import Batch, Split
from snnrobust.randomness import per_sample
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.drawing import Drawing
from snnrobust.spiking.encoder import Direct, Frames
from snnrobust.spiking.neuron import Neuron
from snnrobust.spiking.synapses import weighted

INTEGER = 1e-4
"""How far an event count may be from an integer: it was divided by the data's scale, and is multiplied by it."""


class Traffic:
    """Totals over all samples that passed, and over all steps.

    Attributes:
        samples: how many passed.
        sent: by layer, for each of its calls in a forward pass, `[...]` float64: what each neuron sent, or each cell of
            a max pooling or of a gate passed on.
        entries: by convolution or linear layer, the input entries that it computed with; where all steps are one
            tensor, it is computed with once.
        code: `[C, H, W]` float64, the spikes of the input code; None if that is analog.
        shape: of one step of the code.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.sent: dict[str, list[Tensor]] = {}
        self.entries: Counter[str] = Counter()
        self.code: Tensor | None = None
        self.shape: torch.Size = torch.Size()
        self._calls: Counter[str] = Counter()
        self._analog = False

    def begin(self, samples: int) -> None:
        """A forward pass begins."""
        self.samples += samples
        self._calls.clear()

    def send(self, layer: str, total: Tensor) -> None:
        """A layer sent something in this pass."""
        calls, place = self.sent.setdefault(layer, []), self._calls[layer]
        self._calls[layer] += 1
        if place == len(calls):
            calls.append(total.cpu())
        else:
            calls[place] += total.cpu()

    def receive(self, layer: str, x: Tensor) -> None:
        """A convolution or linear layer computed with `x`."""
        constant = len(x) > 1 and x.stride(0) == 0
        self.entries[layer] += x[0].numel() if constant else x.numel()

    def encode(self, sequence: Tensor, spikes: Tensor | None) -> None:
        """The code `[T, N, C, H, W]` of a batch, and the spikes that it consists of, if it does."""
        self.shape = sequence.shape[2:]
        if spikes is None or bool(((spikes < 0) | ((spikes - spikes.round()).abs() > INTEGER)).any()):
            self._analog, self.code = True, None
        elif not self._analog:
            total = spikes.round().sum((0, 1), dtype=torch.float64).cpu()
            self.code = total if self.code is None else self.code + total


def traffic(model: SpikingClassifier, data: Split, batch_size: int, seed: int) -> Traffic:
    """One forward pass over the data, without gradients; the model should be in eval mode.

    Args:
        model: what is watched.
        data: what it classifies.
        batch_size: has no influence on what is found.
        seed: of a stochastic model's draws from the streams of `randomness.fresh`, which belong to a sample.
    """
    found = Traffic()
    with torch.no_grad(), _noting(model, found):
        for batch in data.batches(batch_size):
            found.begin(len(batch.x))
            with per_sample(batch.index, "costs", seed):
                sequence = model.encoder(batch.x if model.encoder.raw else model.normalize(batch.x))
                model.backbone(sequence)
            found.encode(sequence, _spikes(model, batch, sequence, data.scale))
    return found


def _spikes(model: SpikingClassifier, batch: Batch, sequence: Tensor, scale: int) -> Tensor | None:
    """The entries of an input code that are spikes, if they turn out to be counts: `[T, N, C, H, W]`.

    Event frames are counts of events; that they are scaled and normalised on their way to the first layer, its weights
    and biases could take over. Codes of raw images are what they are. A constant current is analog, and so is whatever
    a network without neurons sees.
    """
    if not any(isinstance(module, Neuron) for module in model.modules()):
        return None
    if isinstance(model.encoder, Frames):
        counts: Tensor = model.encoder(batch.x * scale)
        return counts
    return sequence if model.encoder.raw and not isinstance(model.encoder, Direct) else None


@contextmanager
def _noting(model: SpikingClassifier, found: Traffic) -> Iterator[None]:
    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        for name, module in model.named_modules():
            leading = leading_dimensions(module)
            if leading is not None:
                handles.append(module.register_forward_hook(_sending(found, name, leading)))
        for name, layer in weighted(model):
            handles.append(layer.register_forward_pre_hook(_receiving(found, name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def leading_dimensions(module: nn.Module) -> int | None:
    """Of what a module sends: how many dimensions count steps and samples, negative ones from the end.

    None for modules whose output follows from the totals of their input.
    """
    if isinstance(module, Neuron) or (isinstance(module, Drawing) and module.stochastic):
        return 2
    return -3 if isinstance(module, nn.MaxPool2d) else None


def _sending(found: Traffic, name: str, leading: int) -> Callable[..., None]:
    def leave(_module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> None:
        found.send(name, output.flatten(0, leading - 1).sum(0, dtype=torch.float64))

    return leave


def _receiving(found: Traffic, name: str) -> Callable[..., None]:
    def enter(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.receive(name, inputs[0])

    return enter
