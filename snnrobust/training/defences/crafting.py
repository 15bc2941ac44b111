"""Adversarial inputs for a training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from snnrobust.attacks.base import Attack
from snnrobust.attacks.transfer import Transfer
from snnrobust.data.dataset import Batch
from snnrobust.estimators.strongest import Strongest
from snnrobust.randomness import isolated, per_sample
from snnrobust.spiking.classifier import Classifier, SpikingClassifier
from snnrobust.spiking.fuse import fused
from snnrobust.training.defences.base import Moment

Seen = Callable[[SpikingClassifier, Batch], tuple[Classifier, Tensor]]
"""From the network and a batch to what is attacked, and the labels of the batch there."""


def itself(network: SpikingClassifier, batch: Batch) -> tuple[Classifier, Tensor]:
    """The attack sees the network and the true classes."""
    return network, batch.y


def crafted(
    attack: Attack, model: SpikingClassifier, batch: Batch, moment: Moment, warmup: float = 0.0, seen: Seen = itself
) -> Tensor:
    """What an attack makes of a batch, `[B, ...]`, against the model in eval mode as it stands before the step.

    The attack runs on the fused copy of the network, which decides the same; the model is left as it was, also after
    an error. Draws are keyed by seed, sample and epoch, so that no epoch repeats the noise of another.

    Args:
        attack: one that `refuse` lets pass.
        model: whatever its mode is.
        batch: samples within the model's bounds.
        moment: of the training.
        warmup: epochs over which the budget rises linearly from 0 to that of the attack.
        seen: what the attack sees in the place of the network, such as a divergence from the clean output.
    """
    share = 1.0 if moment.elapsed >= warmup else moment.elapsed / warmup
    if share == 0.0:
        return batch.x
    if share < 1.0 and attack.threat is not None:
        attack = replace(attack, threat=attack.threat.scaled(share))  # type: ignore[type-var]
    renewed = attack.renewed("epoch", moment.epoch)
    draws = ("crafted", renewed.seed)
    with isolated(*draws, *batch.index[:1].tolist()), per_sample(batch.index, *draws):
        target, y = seen(fused(model), batch)
    return renewed(target, batch.x, y, batch.index)


def refuse(attack: Attack, warmup: float) -> None:
    """Passes silently if an attack can be part of a training.

    Raises:
        ValueError: if it looks at another model, perturbs codes, or leaves the choice of an estimator to an evaluation;
            or if there is a warm-up of a budget that it does not have.
    """
    if isinstance(attack, Transfer):
        raise ValueError("attack: got transfer, which sees another model; allowed: attacks on the one that is trained")
    if attack.space == "code":
        raise ValueError("attack: got one on codes, which no input need have; allowed: attacks on inputs")
    if isinstance(attack.estimator, Strongest):
        raise ValueError(
            "attack.estimator: got strongest, which is chosen for a trained model; allowed: any other estimator"
        )
    if warmup > 0 and attack.threat is None:
        raise ValueError(f"warmup: got {warmup:g}, but the attack has no budget that could rise; allowed: 0")
