"""How far the output of a network departs from that on the clean samples, for training on it and for attacking it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from snnrobust.attacks.adaptive import APGD, TargetedAPGD
from snnrobust.attacks.base import Attack
from snnrobust.attacks.flips import TopFlips
from snnrobust.attacks.flips_sda import SDA
from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.attacks.sapgd import SAPGD
from snnrobust.attacks.thirdparty import TorchAttack
from snnrobust.data.dataset import Batch
from snnrobust.spiking.classifier import Classifier, SpikingClassifier
from snnrobust.threat import Bounds

Direction = Literal["clean_to_adversarial", "adversarial_to_clean"]
"""`KL(clean || adversarial)`, as in the code of TRADES, or `KL(adversarial || clean)`, as in the text of CPAL 2025."""
AT_RANDOM = ("EOTPGD", "FFGSM", "PGD", "PGDL2", "RFGSM")
"""Attacks of torchattacks that begin at a random point and return what they find, misclassified or not."""


def divergence(clean: Tensor, other: Tensor, kl: Direction) -> Tensor:
    """`[B]`: the Kullback-Leibler divergence in nats, from log-probabilities `[B, K]`; finite wherever these are."""
    p, q = (clean, other) if kl == "clean_to_adversarial" else (other, clean)
    return (p.exp() * (p - q)).sum(1)


class Departure(nn.Module):
    """A two-class problem by which an attack increases the divergence `D` of a network's output from a clean one.

    The logits are 0 and `-1 / (1 + D)`. With label 0 every loss of an attack, cross-entropy or margin, increases
    strictly with `D`; no sample ever counts as misclassified, so that no search ends early; and nothing saturates where
    `D` is 0. In double precision, since an attack begins where `D` is smaller than the rounding of single precision.

    Args:
        network: in eval mode.
        clean: its logits on the clean samples `[B, K]`, detached.
        kl: direction of the divergence.
    """

    clean: Tensor

    def __init__(self, network: SpikingClassifier, clean: Tensor, kl: Direction) -> None:
        super().__init__()
        self.network = network
        self.kl = kl
        self.register_buffer("clean", clean.double().log_softmax(1))

    @property
    def bounds(self) -> Bounds:
        """Those of the network."""
        return self.network.bounds

    @property
    def stochastic(self) -> bool:
        """Whether the network draws."""
        return self.network.stochastic

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 2]` for the whole batch in its order.

        Raises:
            ValueError: if `x` is of another length: which of its samples are which is then not known.
        """
        if len(x) != len(self.clean):
            raise ValueError(f"attack: it looks at {len(x)} of {len(self.clean)} samples; allowed: whole batches")
        distance = divergence(self.clean, self.network(x).double().log_softmax(1), self.kl)
        return torch.stack([torch.zeros_like(distance), -1 / (1 + distance)], 1)


def departing(network: SpikingClassifier, batch: Batch, kl: Direction) -> tuple[Classifier, Tensor]:
    """The two-class problem of a batch, and its labels: what an attack on the divergence sees (`crafting.Seen`)."""
    with torch.no_grad():
        clean = network(batch.x)
    return Departure(network, clean, kl), torch.zeros_like(batch.y)


def refuse_without_slope(attack: Attack) -> None:
    """Passes silently if an attack can increase a divergence, whose gradient at the clean input is exactly 0.

    Raises:
        ValueError: if its first step follows that gradient, or if it needs more than two classes.
    """
    if isinstance(attack, ProjectedGradient) and attack.start == "input":
        raise ValueError(
            "attack.start: got input, where the divergence from the clean output has no slope; "
            "allowed: normal, uniform, sign"
        )
    if isinstance(attack, TopFlips | SDA):
        raise ValueError(
            f"attack: {type(attack).__name__} follows the gradient at the input, where the divergence from the clean "
            "output has none; allowed: attacks that begin at a random point"
        )
    along_dlr = isinstance(attack, ProjectedGradient | APGD | SAPGD) and attack.loss == "dlr"
    if isinstance(attack, TargetedAPGD) or along_dlr:
        raise ValueError(
            "attack: targets and dlr are of three or more classes, a divergence is one number; allowed: "
            "loss=cross_entropy, which here stands for the divergence"
        )
    if isinstance(attack, TorchAttack) and attack.name not in AT_RANDOM:
        raise ValueError(
            f"attack.name: torchattacks.{attack.name} begins at the input, where the divergence from the clean output "
            f"has no slope, or returns misclassified samples alone; allowed: {', '.join(AT_RANDOM)}"
        )
