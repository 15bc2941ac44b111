"""Biases on the scale of the currents that they are added to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.synapses import weighted


@contextmanager
def following(model: SpikingClassifier, source: SpikingClassifier, x: Tensor) -> Iterator[dict[str, float]]:
    """While open, forward passes of `x` give the linear layers of `model` biases that fit what arrives.

    Spikes are 1 where the ANN has a current, so that what comes through the weights is smaller by the threshold of the
    layer before, or by however much saturation adds to that. `b <- c b` of the source, with the least-squares
    `c = <W s, W a> / <W a, W a>` over samples and outputs, `W s` being averaged over time and `W a` what the source
    has in its place; at least 0, and 1 where the source has nothing. Published conversions are of networks without
    biases (arXiv 2311.09266) and know no such factor. A convolution of the zoo has batch norm behind it, which takes
    any bias out, and is left alone.

    Args:
        model: spiking, with the weights of `source`.
        source: the ANN.
        x: inputs within bounds, `[B, ...]`.

    Yields:
        `c` by layer, of the latest pass.
    """
    biased = {name: layer for name, layer in weighted(model) if isinstance(layer, nn.Linear) and layer.bias is not None}
    theirs = {name: layer for name, layer in weighted(source) if name in biased}
    arriving = _arriving(theirs, source, x)
    biases = {name: layer.bias for name, layer in theirs.items() if layer.bias is not None}
    factors: dict[str, float] = {}
    hooks = [
        layer.register_forward_hook(_fitting(factors, name, arriving[name], bias))
        for (name, layer), bias in zip(biased.items(), biases.values(), strict=True)
    ]
    try:
        yield factors
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _arriving(layers: Mapping[str, nn.Module], source: SpikingClassifier, x: Tensor) -> dict[str, Tensor]:
    """`W a` `[B, K]` of every layer, averaged over the steps of the source."""
    found: dict[str, Tensor] = {}

    def note(name: str) -> Callable[..., None]:
        def noting(layer: Any, _: Any, output: Tensor) -> None:
            found[name] = (output - layer.bias).mean(0)

        return noting

    hooks = [layer.register_forward_hook(note(name)) for name, layer in layers.items()]
    try:
        source(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _fitting(factors: dict[str, float], name: str, arriving: Tensor, bias: Tensor) -> Callable[..., Tensor]:
    def fit(layer: nn.Linear, _: Any, output: Tensor) -> Tensor:
        through = output - layer.bias
        square = arriving.square().sum()
        ratio = (through.mean(0) * arriving).sum().clamp_min(0) / square if bool(square > 0) else square + 1
        factors[name] = float(ratio)
        layer.bias.copy_(ratio * bias)
        return through + layer.bias

    return fit
