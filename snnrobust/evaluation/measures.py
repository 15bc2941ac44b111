"""Scalar measures of a model on data: one definition each.

Let `p_y(x)` be the softmax probability of the true class and `g = grad_x p_y(x)` with n entries, taken in eval mode
with respect to the input in its own units (pixels in [0, 1], scaled event counts), with the surrogate that the model
was trained with. All gradient measures are means over samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from snnrobust.attacks.guard import untouched
from snnrobust.data.dataset import Batch
from snnrobust.spiking.classifier import Classifier
from snnrobust.spiking.neuron import Neuron

SMALL = 1e-3
"""An entry counts as small if |g_i| is at most this share of the sample's largest |g_i|."""


def input_gradient(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """`grad_x p_y(x)` per sample, `[B, ...]`; the model is left as it was."""
    with untouched(model), torch.enable_grad():
        x = x.detach().requires_grad_()
        logits: Tensor = model(x)
        probability = logits.softmax(1).gather(1, y[:, None]).sum()
        gradient: Tensor = torch.autograd.grad(probability, x)[0]
    return gradient


def sparsity(g: Tensor) -> Tensor:
    """`gradient_sparsity` `[B]`: fraction of entries with `|g_i| <= 1e-3 max_j |g_j|`; 1 for an all-zero gradient."""
    size = g.flatten(1).abs()
    return (size <= SMALL * size.amax(1, keepdim=True)).float().mean(1)


def zero_fraction(g: Tensor) -> Tensor:
    """`gradient_zero_fraction` `[B]`: fraction of entries that are exactly 0 (the complement of l0 / n)."""
    return (g.flatten(1) == 0).float().mean(1)


def l1(g: Tensor) -> Tensor:
    """`gradient_l1` `[B]`: `sum_i |g_i|`."""
    return g.flatten(1).abs().sum(1)


def l2(g: Tensor) -> Tensor:
    """`gradient_l2` `[B]`: `sqrt(sum_i g_i^2)`."""
    length: Tensor = torch.linalg.vector_norm(g.flatten(1), dim=1)
    return length


def hoyer(g: Tensor) -> Tensor:
    """`gradient_hoyer` `[B]`: `(sqrt(n) - l1 / l2) / (sqrt(n) - 1)`, 0 for equal entries, 1 for a single one.

    Hoyer (2004). An all-zero gradient, for which the quotient is undefined, counts as 1, as the sparsest there is.
    Computed on `g / max|g|`, since the squares of tiny gradients underflow.
    """
    flat = g.flatten(1)
    largest = flat.abs().amax(1, keepdim=True)
    scaled = flat / torch.where(largest > 0, largest, 1.0)
    root = math.sqrt(flat.shape[1])
    if root == 1:
        return torch.ones(len(flat), device=g.device)
    quotient = l1(scaled) / l2(scaled).clamp_min(1.0)
    return torch.where(largest.squeeze(1) > 0, (root - quotient) / (root - 1), 1.0)


def all_zero(g: Tensor) -> Tensor:
    """`gradient_vanished` `[B]`: 1 where every entry is exactly 0, so that a gradient attack cannot move."""
    return (g.flatten(1) == 0).all(1).float()


GRADIENT_MEASURES = {
    "gradient_sparsity": sparsity,
    "gradient_zero_fraction": zero_fraction,
    "gradient_l1": l1,
    "gradient_l2": l2,
    "gradient_hoyer": hoyer,
    "gradient_vanished": all_zero,
}


def gradient_measures(model: Classifier, batches: Iterable[Batch]) -> dict[str, float]:
    """The mean over samples of every gradient measure."""
    values: dict[str, list[Tensor]] = {name: [] for name in GRADIENT_MEASURES}
    for batch in batches:
        g = input_gradient(model, batch.x, batch.y)
        for name, measure in GRADIENT_MEASURES.items():
            values[name].append(measure(g).cpu())
    return {name: float(torch.cat(v).double().mean()) for name, v in values.items()}


@torch.no_grad()
def firing_rates(model: Classifier, batches: Iterable[Batch]) -> dict[str, float]:
    """Mean spikes per neuron and time step, by name of the spiking layer, in eval mode; {} without such layers."""
    totals: dict[str, list[float]] = {}
    modules = model.named_modules() if isinstance(model, nn.Module) else ()
    layers = {name: module for name, module in modules if isinstance(module, Neuron)}
    with untouched(model), _recording(layers, totals):
        samples = []
        for batch in batches:
            model(batch.x)
            samples.append(len(batch.x))
    return {
        name: sum(rate * n for rate, n in zip(rates, samples, strict=True)) / sum(samples)
        for name, rates in totals.items()
    }


def firing_rate(rates: Mapping[str, float]) -> dict[str, float]:
    """`firing_rate`: the unweighted mean over spiking layers of spikes per neuron and step; {} without such layers."""
    return {"firing_rate": sum(rates.values()) / len(rates)} if rates else {}


@contextmanager
def _recording(layers: Mapping[str, nn.Module], totals: dict[str, list[float]]) -> Iterator[None]:
    """Appends the mean of every forward's spikes to `totals`, by layer."""

    def record(name: str, spikes: Tensor) -> None:
        totals.setdefault(name, []).append(float(spikes.mean(dtype=torch.float64)))

    handles = [
        module.register_forward_hook(lambda _module, _inputs, spikes, name=name: record(name, spikes))
        for name, module in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
