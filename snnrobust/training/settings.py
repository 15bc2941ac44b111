"""How long, how fast, by which optimizer, and which epoch is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import nn

from snnrobust.settings import Positive, PositiveInt, ShareBelowOne
from snnrobust.training.schedules import Cosine, Schedule
from snnrobust.training.validation import Validation

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class TrainingSettings:
    """Of the one training loop.

    Args:
        optimizer: called with the parameters.
        schedule: of the learning rate.
        validation: which epoch is kept, and when training stops early.
        epochs: passes over the training split.
        batch_size: samples per forward pass; a single sample left over at the end of an epoch is left out.
        accumulate: batches whose gradients are averaged for one step of the optimizer.
        clip: largest l_2 norm of the gradient of all parameters together; a longer one is shortened.
        ema: decay per step of an exponential moving average of weights and buffers, which is what is validated and
            kept; None: the weights themselves.
        precision: bfloat16: convolutions and linear layers of the training passes in bfloat16, membranes and weights
            in float32.
        auto_batch: where memory does not suffice, batches are learned from in smaller passes whose gradients are
            accumulated. What fits is the same run, bit for bit.
    """

    optimizer: MakeOptimizer = field(default_factory=lambda: partial(torch.optim.Adam, lr=0.005))
    schedule: Schedule = field(default_factory=Cosine)
    validation: Validation = field(default_factory=Validation)
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 64
    accumulate: PositiveInt = 1
    clip: Positive | None = None
    ema: ShareBelowOne | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    auto_batch: bool = False
