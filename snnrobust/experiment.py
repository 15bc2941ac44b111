"""Experiments in plain Python: data, model, training, evaluation. No config files, no folders, no trackers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from snnrobust.attacks.base import Attack
from snnrobust.conversion.base import Ground, Start
from snnrobust.data.dataset import DataSource, Splits
from snnrobust.estimators.base import Estimator
from snnrobust.estimators.strongest import Strongest
from snnrobust.evaluation.evaluator import Evaluator, Settings
from snnrobust.evaluation.ledger import Ledger
from snnrobust.evaluation.progress import Progress, silent
from snnrobust.evaluation.report import Report
from snnrobust.foreign import Foreign
from snnrobust.randomness import isolated
from snnrobust.regularizers.base import Regularizer
from snnrobust.spiking.classifier import Classifier, Normalize, SpikingClassifier
from snnrobust.spiking.encoder import Encoder
from snnrobust.spiking.neuron import NeuronFactory
from snnrobust.threat import Threat
from snnrobust.training import loop
from snnrobust.training.connectivity.base import Connectivity, Free
from snnrobust.training.course import Trained
from snnrobust.training.defences.base import Defence
from snnrobust.training.imported import Imported
from snnrobust.training.keeping import FORGETFUL, Keeper
from snnrobust.training.loop import Trainer
from snnrobust.training.memory import spoken_of
from snnrobust.training.scores import Epoch
from snnrobust.training.settings import TrainingSettings
from snnrobust.training.trial import refuse_unusable
from snnrobust.training.untrained import Untrained


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one.

    Raises:
        ValueError: if the device does not exist.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: got {name}; allowed: cpu ({torch.cuda.device_count()} CUDA devices here)")
    return device


@dataclass(frozen=True)
class Experiment:
    """Everything that determines a result, as objects.

    Args:
        dataset: source of the data.
        encoder: input code.
        neuron: called once per spiking layer.
        model: called as `model(shape, classes, neuron)`, with the shape `(C, H, W)` of one time step.
        regularizer: term of the loss.
        defence: how training inputs are made.
        training: length and speed, or that the weights came from elsewhere, or that they stay as they begin.
        threat: budget of the evaluation.
        attacks: by name.
        headline: metric names and the attacks that give them.
        estimator: whose gradient is measured.
        evaluation: how attacks are run and judged.
        seed: of weights and batch order.
        device: where it runs.
        start: makes what the weights begin with; None: they begin at random.
        connectivity: which connections there are in training.
        reference: makes the network whose energy is compared with; None: there is no other one.
    """

    dataset: DataSource
    encoder: Encoder
    neuron: NeuronFactory
    model: Callable[..., nn.Module]
    regularizer: Regularizer
    defence: Defence
    training: TrainingSettings | Imported | Untrained
    threat: Threat
    attacks: Mapping[str, Attack]
    headline: Mapping[str, str]
    estimator: Estimator
    evaluation: Settings
    seed: int
    device: torch.device
    start: Callable[[], Start] | None = None
    connectivity: Connectivity = field(default_factory=Free)
    reference: Callable[[], SpikingClassifier] | None = None

    def load(self) -> Splits:
        """The data, on the device."""
        return self.dataset.load().to(self.device)

    def classifier(self) -> SpikingClassifier:
        """The untrained classifier; its weights depend on the seed alone."""
        return untrained(self.dataset, self.encoder, self.neuron, self.model, self.seed).to(self.device)

    def refuse_misfits(self, model: SpikingClassifier | Foreign) -> None:
        """Tries all estimators on the model, and the optimizer, before anything is spent on data and training.

        Raises:
            ValueError: in one line, if one does not apply to it.
        """
        attacks = paths("attacks", self.attacks) | paths("defence", vars(self.defence))
        attacks |= paths("regularizer", vars(self.regularizer))
        if isinstance(self.training, TrainingSettings):
            attacks |= paths("training.validation", vars(self.training.validation))
            refuse_unusable(self.training, model, self.device)
        try_estimators(attacks, model)

    def begin(
        self,
        model: SpikingClassifier,
        splits: Splits,
        on_epoch: Callable[[Epoch], None],
        progress: loop.Progress = loop.silent,
        keeper: Keeper = FORGETFUL,
    ) -> Mapping[str, Any]:
        """Gives `model` what it begins with, in place, and says what there is to say of that.

        A start that trains is taken up where `keeper` has it.

        Raises:
            ValueError: in one line, if that does not fit the model.
        """
        if self.start is None:
            return {}
        ground = Ground(
            train=splits.train,
            validation=splits.validation,
            augmentation=self.dataset.augmentation,
            regularizer=self.regularizer,
            defence=self.defence,
            seed=self.seed,
            on_epoch=on_epoch,
            progress=progress,
            keeper=keeper,
        )
        with isolated("start", self.seed):
            return self.start().begin(model, ground)

    def train(
        self,
        model: SpikingClassifier,
        splits: Splits,
        on_epoch: Callable[[Epoch], None],
        progress: loop.Progress = loop.silent,
        keeper: Keeper = FORGETFUL,
    ) -> Trained:
        """Trains `model` in place, from where `keeper` has it. The selected weights are in the result, not in the
        model."""
        assert isinstance(self.training, TrainingSettings)
        trainer = Trainer(
            settings=self.training,
            regularizer=self.regularizer,
            defence=self.defence,
            seed=self.seed,
            augmentation=self.dataset.augmentation,
            connectivity=self.connectivity,
        )
        return trainer(model, splits.train, splits.validation, on_epoch, progress, keeper)

    def evaluate(
        self, model: Classifier, splits: Splits, progress: Progress = silent, ledger: Ledger | None = None
    ) -> Report:
        """Runs the suite on the test data; what an attack has to choose, it chooses on the validation data.

        Batches that `ledger` has on record are not computed again.

        Raises:
            OutOfMemory: if memory does not suffice.
        """
        reference = None if self.reference is None else self.reference()
        judge = Evaluator(self.attacks, self.threat, self.estimator, self.headline, self.evaluation, reference)
        return judged(judge, model, splits, progress, ledger)


def untrained(
    dataset: DataSource, encoder: Encoder, neuron: NeuronFactory, model: Callable[..., nn.Module], seed: int
) -> SpikingClassifier:
    """A classifier for a dataset; its weights depend on the seed alone."""
    with isolated("weights", seed):
        backbone = model(shape=dataset.shape[-3:], classes=dataset.classes, neuron=neuron)
        classifier = SpikingClassifier(backbone, encoder, Normalize(dataset.mean, dataset.std), dataset.bounds)
        if any(is_lazy(parameter) for parameter in classifier.parameters()):
            _tell_shapes(classifier, dataset.shape)
        return classifier


def judged(judge: Evaluator, model: Classifier, splits: Splits, progress: Progress, ledger: Ledger | None) -> Report:
    """What a judge says of a model on the test data; what an attack has to choose, it chooses on the validation data.

    Raises:
        OutOfMemory: if memory does not suffice.
    """
    with spoken_of("evaluation.batch_size", judge.settings.batch_size, "a smaller one"):
        return judge(model, splits.test, progress, splits.validation, ledger)


def _tell_shapes(classifier: SpikingClassifier, shape: tuple[int, ...]) -> None:
    """One forward pass, for parameters whose shape follows from the input of their layer; nothing else changes."""
    with torch.no_grad():
        classifier.eval()(torch.zeros(1, *shape))
    classifier.train()


def paths(key: str, settings: Mapping[str, object]) -> dict[str, Attack]:
    """The attacks among some settings, by their path in the config."""
    return {f"{key}.{name}": value for name, value in settings.items() if isinstance(value, Attack)}


def try_estimators(attacks: Mapping[str, Attack], model: Classifier) -> None:
    """Raises a ValueError that names the attack if an estimator does not apply to the model."""
    for path, attack in attacks.items():
        if isinstance(attack.estimator, Strongest):
            continue  # leaves out what does not apply
        for variant in attack.variants().values():
            try:
                with variant.estimator.applied(model):
                    pass
            except ValueError as error:
                raise ValueError(f"{path}.{error}") from error
