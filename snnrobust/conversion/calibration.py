"""Thresholds and statistics of batch norm, from how a network with the weights of an ANN responds to data.

A threshold depends on the spikes of all layers before, hence on their thresholds. Published code runs the network once
per layer, up to that layer, which costs `O(L^2)` evaluations of layers. Here one pass sets them all: a layer of neurons
measures what arrives, takes its threshold, and only then fires.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from snnrobust.conversion.percentile import percentile
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.neurons.trainable_threshold import TrainableThreshold


@dataclass(frozen=True)
class Level:
    """The currents that arrive at one layer of neurons.

    Args:
        percentile: largest over the mini-batches.
        highest: of all entries.
    """

    percentile: float
    highest: float


@dataclass(frozen=True)
class Calibration:
    """How currents are measured.

    Args:
        steps: T_c, over which they are.
        batch_size: samples whose currents have one percentile together.
        percent: which one, in (0, 100].
    """

    steps: int
    batch_size: int
    percent: float


@torch.no_grad()
def calibrated(
    model: SpikingClassifier, neurons: Mapping[str, TrainableThreshold], x: Tensor, how: Calibration
) -> dict[str, Level]:
    """Gives every layer the percentile of its currents as its threshold, in a single pass, in place.

    The percentile is that of all entries and steps of a mini-batch, and the largest over the mini-batches counts
    (Özdenizci and Legenstein 2024, arXiv 2311.09266), but at least the neuron's `minimum`. Batch norm
    uses the mean and variance of all of `x` and all steps; nothing is dropped. A layer's level is its own: it is made
    of the currents of this layer alone.

    Memory: all samples are in one layer at a time, at all steps. Where it is widest, with C channels of H x W, about
    three tensors of `4 T_c B C H W` bytes exist at once, and one more in a residual block; 16.8 GB each for
    64 x 32 x 32 with the published 100 steps and 640 samples. It is linear in `how.steps` and in the samples.

    Args:
        model: whose running statistics are left as those of this pass.
        neurons: its layers of neurons, by name.
        x: inputs within bounds, `[B, ...]`.
        how: see there.

    Returns:
        Levels by name, in the order in which the layers run.

    Raises:
        ValueError: in one line, if currents are not finite, or the memory does not suffice.
    """
    levels: dict[str, Level] = {}
    hooks = [n.register_forward_pre_hook(_measuring(levels, name, n, how)) for name, n in neurons.items()]
    try:
        with _of_this_batch(model), _enough_memory(how):
            model.backbone(shown(model, x, how.steps))
    finally:
        for hook in hooks:
            hook.remove()
    return levels


@torch.no_grad()
def estimate_statistics(model: SpikingClassifier, x: Tensor) -> None:
    """Running statistics of batch norm are those of `x` over batch and time, estimated from scratch, in place.

    In one pass with the thresholds as they are, with the steps that the network has: every layer sees what it sees in
    eval mode later. Momentum and modes are as before.
    """
    with _of_this_batch(model):
        model(x)


def shown(model: SpikingClassifier, x: Tensor, steps: int) -> Tensor:
    """What the backbone sees in so many steps, `[steps, B, C, H, W]`: the code of `x` again and again.

    A constant code stays constant, and takes no memory. Spikes that are drawn are drawn anew every time; a recording of
    events is played from its beginning again, and membranes go on.
    """
    seen = x if model.encoder.raw else model.normalize(x)
    code: Tensor = model.encoder(seen)
    if not model.encoder.stochastic and (len(code) == 1 or code.stride(0) == 0):
        return code[:1].expand(steps, *code.shape[1:])
    again = [model.encoder(seen) for _ in range(-(-steps // len(code)) - 1)]
    return torch.cat([code, *again])[:steps]


def level(current: Tensor, how: Calibration) -> Level:
    """Of the currents `[T, B, ...]` of one layer; those that are equal at all steps are looked at once."""
    constant = len(current) > 1 and current.stride(0) == 0
    distinct = current[:1] if constant else current
    copies = len(current) if constant else 1
    found = [percentile(part, how.percent, copies) for part in distinct.split(how.batch_size, dim=1)]
    return Level(float(torch.stack(found).amax()), float(distinct.amax()))


def _measuring(
    levels: dict[str, Level], name: str, neuron: TrainableThreshold, how: Calibration
) -> Callable[[Any, tuple[Tensor]], None]:
    def measure(_: Any, currents: tuple[Tensor]) -> None:
        (current,) = currents
        levels[name] = found = level(current, how)
        if not math.isfinite(found.highest):
            raise ValueError(f"start.source: the currents of {name} are not finite; allowed: a training that converged")
        neuron.threshold.fill_(max(found.percentile, neuron.minimum))

    return measure


@contextmanager
def _of_this_batch(model: SpikingClassifier) -> Iterator[None]:
    """Eval mode but for batch norm, which uses the statistics of what passes, and takes them as the running ones."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
            norm.momentum = 1.0
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


@contextmanager
def _enough_memory(how: Calibration) -> Iterator[None]:
    remedy = (
        f"start.steps: got {how.steps}, for which the memory does not suffice; allowed: fewer, or fewer start.batches"
    )
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ValueError(remedy) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise ValueError(remedy) from error
