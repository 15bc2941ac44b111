"""What is measured on validation data after every epoch, and which epoch is kept by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from snnrobust.attacks.base import Attack
from snnrobust.attacks.guard import untouched
from snnrobust.data.dataset import Split, balanced
from snnrobust.evaluation.judge import Judge
from snnrobust.settings import PositiveInt
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.fuse import fused
from snnrobust.training.parallel import own
from snnrobust.training.scores import Epoch


@dataclass(frozen=True)
class Validation:
    """What decides after every epoch.

    Args:
        measure: `objective`: cross-entropy plus the weighted regularizer on clean samples (the lowest);
            `accuracy`: on clean samples (the highest); `robust_accuracy`: under `attack` (the highest). The earlier
            epoch wins a tie.
        attack: run on samples of the validation split after every epoch; None: none is run.
        samples: how many, at most; of all classes alike, the same in every epoch.
        patience: training stops after so many epochs without a better one; None: never.

    Raises:
        ValueError: if the measure is of an attack and there is none.
    """

    measure: Literal["objective", "accuracy", "robust_accuracy"] = "objective"
    attack: Attack | None = None
    samples: PositiveInt = 200
    patience: PositiveInt | None = None

    def __post_init__(self) -> None:
        if self.measure == "robust_accuracy" and self.attack is None:
            raise ValueError("validation.attack: got None; allowed with measure=robust_accuracy: an attack")

    def value(self, epoch: Epoch) -> float:
        """The measure of an epoch, the higher the better."""
        if self.measure == "objective":
            return -epoch.validation.loss
        if self.measure == "accuracy":
            return epoch.validation.accuracy
        assert epoch.robust_accuracy is not None
        return epoch.robust_accuracy


def robust_samples(model: SpikingClassifier, attack: Attack, data: Split, samples: int, batch_size: int) -> int:
    """How many of some samples `model` gets right, clean and attacked. The model is left as it was.

    The attack runs on the fused copy of the network; what it finds is judged on the network itself. Its draws are the
    same at every call, and so are the samples, of all classes alike: epochs differ by their weights alone. A stochastic
    model is judged by one draw. Of several processes that train together each counts its share of the batches.

    Args:
        model: in any mode; it is judged in eval mode.
        attack: any attack; of an ensemble of estimators, each sample's worst.
        data: the validation split.
        samples: how many of it, at most.
        batch_size: samples per forward.
    """
    right = 0
    with untouched(model):
        judge, network = Judge(model, 1, attack.seed), fused(model)
        for index in own(balanced(data.labels.cpu(), samples, seed=0).split(batch_size)):
            batch = data.batch(index)
            clean, _ = judge("clean", model, batch.x, batch.y, index)
            found = attack(*attack.target(network, batch.x, index), batch.y, index)
            target, _ = attack.target(model, batch.x, index)
            attacked, _ = judge("validation", target, found, batch.y, index)
            right += int((clean & attacked).sum())
    return right
