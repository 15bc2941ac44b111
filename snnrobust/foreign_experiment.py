"""The evaluation of a network that was made elsewhere, in plain Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from snnrobust.attacks.base import Attack
from snnrobust.attacks.guard import untouched
from snnrobust.data.dataset import DataSource, Splits
from snnrobust.estimators.base import Estimator
from snnrobust.evaluation.evaluator import Evaluator, Settings
from snnrobust.evaluation.ledger import Ledger
from snnrobust.evaluation.progress import Progress, silent
from snnrobust.evaluation.report import Report
from snnrobust.experiment import judged, paths, try_estimators
from snnrobust.foreign import Foreign, load_weights, verify
from snnrobust.randomness import isolated
from snnrobust.spiking.classifier import Classifier, SpikingClassifier
from snnrobust.threat import Threat


@dataclass(frozen=True)
class ForeignExperiment:
    """The evaluation of a network that was made elsewhere.

    Args:
        dataset: source of the data.
        network: makes the network.
        weights: file with its state dict; None if it loads its weights itself.
        stochastic: whether it draws at random in eval mode.
        threat: budget of the evaluation.
        attacks: by name.
        headline: metric names and the attacks that give them.
        estimator: whose gradient is measured.
        evaluation: how attacks are run and judged.
        seed: of weights that no file sets.
        device: where it runs.
    """

    dataset: DataSource
    network: Callable[[], nn.Module]
    weights: Path | None
    stochastic: bool
    threat: Threat
    attacks: Mapping[str, Attack]
    headline: Mapping[str, str]
    estimator: Estimator
    evaluation: Settings
    seed: int
    device: torch.device

    def load(self) -> Splits:
        """The data, on the device."""
        return self.dataset.load().to(self.device)

    def classifier(self) -> Foreign:
        """The network with its weights, as a classifier.

        Raises:
            ValueError: in one line, if it cannot be made, or the weights do not fit.
        """
        with isolated("weights", self.seed):
            network = self.network()
        if not isinstance(network, nn.Module):
            raise ValueError(f"model: got {type(network).__name__}; allowed: what makes a torch.nn.Module")
        if self.weights is not None:
            load_weights(network, self.weights)
        return Foreign(network, self.dataset.bounds, self.stochastic).to(self.device)

    def refuse_misfits(self, model: SpikingClassifier | Foreign) -> None:
        """Tries all estimators on the model.

        Raises:
            ValueError: in one line, if one does not apply to it.
        """
        try_estimators(paths("attacks", self.attacks), model)

    def cautions(self, model: Foreign, splits: Splits) -> list[str]:
        """See `foreign.verify`; tried on the first test batch."""
        batch = next(splits.test.batches(self.evaluation.batch_size))
        with untouched(model):
            return verify(model, batch.x, splits.test.labels)

    def evaluate(
        self, model: Classifier, splits: Splits, progress: Progress = silent, ledger: Ledger | None = None
    ) -> Report:
        """Runs the suite on the test data; what an attack has to choose, it chooses on the validation data.

        Batches that `ledger` has on record are not computed again.

        Raises:
            OutOfMemory: if memory does not suffice.
        """
        judge = Evaluator(self.attacks, self.threat, self.estimator, self.headline, self.evaluation)
        return judged(judge, model, splits, progress, ledger)
