"""One gradient step of an attack: SpikingJelly under torchattacks, ours, and the floor without neurons."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torchattacks

from benchmarks.networks import STEPS, Case, analog, spikingjelly
from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.spiking.fuse import fused
from snnrobust.threat import Linf

EPS, NUMBER = 0.1, 4
"""Budget, and gradient steps per call."""


def attack_steps(case: Case) -> Mapping[str, Callable[[], object]]:
    """Calls of `NUMBER` steps each."""
    model, (x, y) = case.model(), case.data()
    ours = ProjectedGradient(threat=Linf(EPS), steps=NUMBER, start="input")
    size = 2.5 * EPS / NUMBER
    theirs = torchattacks.PGD(spikingjelly(model), eps=EPS, alpha=size, steps=NUMBER, random_start=False)
    quick, half = fused(model), fused(model, torch.bfloat16)
    floor, once = analog(model, STEPS), analog(model, 1)
    return {
        "SpikingJelly under torchattacks": lambda: theirs(x, y),
        "snnrobust, plain": lambda: ours(model, x, y),
        "snnrobust, fused": lambda: ours(quick, x, y),
        "snnrobust, fused, bfloat16": lambda: ours(half, x, y),
        f"ReLU for neurons, {STEPS} times the batch": lambda: ours(floor, x, y),
        "ReLU for neurons, one time step": lambda: ours(once, x, y),
    }
