"""The weights of an analog network, and thresholds with which they make a spiking one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snnrobust.conversion.base import Ground, Start, copied, described
from snnrobust.conversion.biases import following
from snnrobust.conversion.calibration import Calibration, calibrated, estimate_statistics
from snnrobust.data.dataset import Split
from snnrobust.randomness import generator
from snnrobust.settings import Percentage, Positive, PositiveInt
from snnrobust.spiking.activation import ReLU
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.encoder import Encoder, Frames
from snnrobust.spiking.neuron import Neuron
from snnrobust.spiking.neurons.trainable_threshold import TrainableThreshold


@dataclass(frozen=True)
class Converted(Start):
    """Robust conversion (Özdenizci and Legenstein 2024, arXiv 2311.09266; sparse: Schmolli et al. 2025, arXiv
    2505.15833) of a network of ReLU, dense or sparse, into one of integrate-and-fire neurons with thresholds.

    Weights, biases and the affine part of batch norm are copied; absent connections stay absent. Thresholds are
    `scale` times a percentile of the currents, layer by layer (`calibrated`), but at least the neuron's `minimum`. The
    statistics of batch norm are estimated anew over batch and time, with the scaled thresholds and the steps of the
    encoder, so that the network works before it is trained.

    That is what becomes of threshold-dependent batch norm, `a V_th (x - mu) / sigma` (Zheng et al. 2021, arXiv
    2011.05280), which puts currents on the scale of a threshold that is given. Here the scale of the currents is given,
    by the affine part that the ANN learned, and the threshold follows; no further factor is applied.

    Spikes are 1 where the ANN has a current: what a layer sends is smaller by its threshold. Batch norm makes up for
    that in the layer behind; the biases of layers without it are scaled to fit (`following`).

    Args:
        source: the network of ReLU.
        steps: T_c, over which currents are measured, whatever the steps of the encoder.
        batches: mini-batches to measure on, of the training data, not augmented; all there are if these are fewer.
        batch_size: samples of each; the largest percentile among the mini-batches counts.
        percentile: of the currents of a layer, in percent.
        scale: of the thresholds.
    """

    source: SpikingClassifier
    steps: PositiveInt = 100
    batches: PositiveInt = 10
    batch_size: PositiveInt = 64
    percentile: Percentage = 99.7
    scale: Positive = 0.3

    def begin(self, model: SpikingClassifier, ground: Ground) -> Mapping[str, Any]:
        neurons = _neurons(model)
        _refuse_misfit(neurons, self.source)
        _refuse_other_frames(model.encoder, self.source.encoder)
        x = self._inputs(ground.train, ground.seed)
        copied(model, self.source)
        with following(model, self.source, x) as biases:
            levels = calibrated(model, neurons, x, Calibration(self.steps, self.batch_size, self.percentile))
            scaled = {name: max(self.scale * level.percentile, neurons[name].minimum) for name, level in levels.items()}
            for name, threshold in scaled.items():
                nn.init.constant_(neurons[name].threshold, threshold)
            estimate_statistics(model, x)
        return {
            "samples": len(x),
            "percentiles": {name: level.percentile for name, level in levels.items()},
            "thresholds": scaled,
            "at_minimum": [name for name, threshold in scaled.items() if threshold == neurons[name].minimum],
            "silent": [name for name, level in levels.items() if level.highest <= 0],
            "biases": biases,
            **described(model),
        }

    def _inputs(self, train: Split, seed: int) -> Tensor:
        """`[B, ...]`: the first samples in an order that depends on the seed alone."""
        order = torch.randperm(len(train), generator=generator("calibration", seed))
        chosen = order[: self.batches * self.batch_size]
        if len(chosen) < 2:
            raise ValueError(f"start.batches: got {len(chosen)} samples to measure on; allowed: at least 2")
        return train.batch(chosen).x


def _neurons(model: SpikingClassifier) -> dict[str, TrainableThreshold]:
    found = {name: m for name, m in model.named_modules() if isinstance(m, Neuron | ReLU)}
    for module in found.values():
        if not isinstance(module, TrainableThreshold):
            raise ValueError(f"neuron: got {type(module).__name__}; allowed with start=converted: trainable_threshold")
    return {name: m for name, m in found.items() if isinstance(m, TrainableThreshold)}


def _refuse_misfit(neurons: Mapping[str, TrainableThreshold], source: SpikingClassifier) -> None:
    if any(isinstance(module, Neuron) for module in source.modules()):
        raise ValueError("start.source: got a spiking network; allowed: runs with neuron=relu")
    analog = {name for name, module in source.named_modules() if isinstance(module, ReLU)}
    if analog != neurons.keys():
        name = min(analog ^ neurons.keys())
        raise ValueError(f"start.source: of another architecture (neurons at {name}); allowed: runs of the same model")


def _refuse_other_frames(own: Encoder, theirs: Encoder) -> None:
    """A recording is as many frames as the encoder has steps; the source is shown the same ones."""
    if isinstance(own, Frames) and isinstance(theirs, Frames) and own.steps != theirs.steps:
        raise ValueError(
            f"encoder.steps: got {own.steps}, and the source was trained on {theirs.steps} frames of each recording; "
            "allowed with events: the same"
        )
