"""TRR-style: outputs that do not change when time runs backwards (arXiv 2408.09108)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from snnrobust.regularizers.base import Pass, Regularizer
from snnrobust.settings import NonNegative, Positive
from snnrobust.spiking.classifier import Classifier, SpikingClassifier
from snnrobust.spiking.encoder import Direct
from snnrobust.spiking.neuron import Neuron
from snnrobust.spiking.recording import NO_LAYERS


@dataclass(frozen=True)
class TemporalReversal(Regularizer):
    """`R = tau^2 mean_b (KL(p || p') + KL(p' || p)) / 2`: consistency of the output `p = softmax(z / tau)` with the
    output `p'` of a second pass in which time runs backwards (temporal reversal regularization, arXiv 2408.09108).

    What is reversed is the code of the input: the order of event frames, bit planes, spike times. A direct code is the
    same in both directions, and the spikes of the first spiking layer are reversed in its place. The gradient flows
    through both passes, and both update batch-norm statistics.

    TRR-style: the measure of consistency and its weight are ours, since we know the paper by its abstract. Its further
    head, on the product of the firing rates of both passes, is left out.

    Args:
        weight: factor of the term in the loss.
        warmup: epochs over which the weight rises linearly from 0.
        temperature: tau.

    Raises:
        ValueError: when called, if the model has no spiking layers.
    """

    weight: NonNegative = 1.0
    warmup: NonNegative = 0.0
    temperature: Positive = 1.0

    def __call__(self, model: Classifier, at: Pass) -> Tensor:
        with backwards(model):
            turned = model(at.x.detach())
        return self.temperature**2 * divergence(at.logits / self.temperature, turned / self.temperature)


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """`mean_b (KL(p || p') + KL(p' || p)) / 2 = mean_b sum_k (p - p') (log p - log p') / 2` of logits `[B, K]`."""
    p, q = F.log_softmax(first, 1), F.log_softmax(second, 1)
    return ((p.exp() - q.exp()) * (p - q)).sum(1).mean() / 2


@contextmanager
def backwards(model: Classifier) -> Iterator[None]:
    """Time runs backwards in the one forward pass of `model` in its body: from the code on, or where all steps of the
    code are equal, from the first spiking layer on.

    Raises:
        ValueError: if the model has no spiking layers.
    """
    neurons = [m for m in model.modules() if isinstance(m, Neuron)] if isinstance(model, SpikingClassifier) else []
    if not neurons:
        raise ValueError(NO_LAYERS)
    assert isinstance(model, SpikingClassifier)
    candidates = neurons if isinstance(model.encoder, Direct) else [model.encoder]
    handles: list[RemovableHandle] = []

    def turn(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        """Called after the first of them that runs, and after no other."""
        _remove(handles)
        return output.flip(0)

    try:
        handles += [module.register_forward_hook(turn) for module in candidates]
        yield
    finally:
        _remove(handles)


def _remove(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
