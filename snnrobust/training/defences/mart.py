"""MART: misclassification-aware adversarial training (Wang et al., ICLR 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from snnrobust.attacks.base import Attack
from snnrobust.data.dataset import Batch
from snnrobust.regularizers.base import Pass
from snnrobust.settings import NonNegative
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.training.defences.base import Defence, Look, Moment
from snnrobust.training.defences.crafting import crafted, refuse
from snnrobust.training.defences.departure import divergence


@dataclass(frozen=True)
class Mart(Defence):
    """`mean BCE(p', y) + beta mean KL(p || p') (1 - p_y)` with `p` on clean and `p'` on adversarial samples.

    `BCE(p', y) = -log p'_y - log(1 - max_{j != y} p'_j)`. The gradient flows through both outputs. The regularizer is
    added to the adversarial pass, whose classification is learned.

    Args:
        attack: makes the adversarial samples, in eval mode, against the cross-entropy.
        beta: weight of the divergence: 4 before the conversion of ANNs to spiking networks, 6 for sparse ANNs.
        warmup: epochs over which the budget of the attack rises linearly from 0.

    Raises:
        ValueError: if the attack can be no part of a training.
    """

    attack: Attack
    beta: NonNegative = 4.0
    warmup: NonNegative = 0.0

    def __post_init__(self) -> None:
        refuse(self.attack, self.warmup)

    def step(self, model: SpikingClassifier, batch: Batch, look: Look, moment: Moment) -> tuple[Tensor, Pass]:
        at = look(crafted(self.attack, model, batch, moment, self.warmup))
        return mart_loss(model(batch.x), at.logits, batch.y, self.beta), at


def mart_loss(clean: Tensor, other: Tensor, y: Tensor, beta: float) -> Tensor:
    """The loss, a scalar, from the logits `[B, K]` on clean and on adversarial samples and the true classes `[B]`.

    As the paper writes it, finite for any finite logits. The published code adds constants against infinities
    (`1.0001 - p`, `log(p + 1e-12)`), by which the second term ends at 9.2 and loses its slope there; this one does not.
    """
    p, q = clean.log_softmax(1), other.log_softmax(1)
    rival = other.scatter(1, y[:, None], -torch.inf).argmax(1, keepdim=True)
    # log(1 - q_rival) = logsumexp over all other classes: no difference of almost equal numbers.
    margin = F.cross_entropy(other, y, reduction="none") - q.scatter(1, rival, -torch.inf).logsumexp(1)
    hard = -torch.expm1(p.gather(1, y[:, None]).squeeze(1))
    return (margin + beta * divergence(p, q, "clean_to_adversarial") * hard).mean()
