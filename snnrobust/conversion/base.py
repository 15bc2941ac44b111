"""What a start is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from snnrobust.data.augmentation import Augmentation
from snnrobust.data.dataset import Split
from snnrobust.regularizers.base import Regularizer
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.neuron import Neuron
from snnrobust.spiking.synapses import densities, sparsity, synapses
from snnrobust.training.defences.base import Defence
from snnrobust.training.keeping import FORGETFUL, Keeper
from snnrobust.training.loop import Progress, silent
from snnrobust.training.scores import Epoch


@dataclass(frozen=True)
class Ground:
    """What a start may use of the run that it is part of.

    Args:
        train: data to learn or to calibrate on.
        validation: data to choose by.
        augmentation: of the training data.
        regularizer: term of the loss.
        defence: how a training step is made.
        seed: of what is drawn.
        on_epoch: told about every epoch of a training that the start consists of.
        progress: where that is shown.
        keeper: where its state is kept; there is place for one.
    """

    train: Split
    validation: Split
    augmentation: Augmentation
    regularizer: Regularizer
    defence: Defence
    seed: int
    on_epoch: Callable[[Epoch], None]
    progress: Progress = silent
    keeper: Keeper = FORGETFUL


class Start(ABC):
    """What the weights of a network are before its training. Subclasses are frozen dataclasses.

    A subclass that needs another network has the field `source: SpikingClassifier`; its yaml says `source: ???`, and
    the command line gives a run. The source is in eval mode, on the device of the model, and is left as it was.
    """

    @abstractmethod
    def begin(self, model: SpikingClassifier, ground: Ground) -> Mapping[str, Any]:
        """Gives `model`, whose weights are random, what it begins with, in place.

        Returns:
            What there is to say of it, as JSON knows it; it is kept with the weights, under `start`.

        Raises:
            ValueError: in one line that begins with `start` or the setting, if the networks do not fit.
        """


def copied(model: SpikingClassifier, source: SpikingClassifier) -> None:
    """Puts parameters and buffers of one network into another of the same architecture, neurons apart.

    Parameters that only one of them has, such as learned thresholds, stay as they are.

    Raises:
        ValueError: in one line, if anything else differs in name or shape.
    """
    own, theirs = _of_layers(model), _of_layers(source)
    for name in own.keys() ^ theirs.keys():
        whose = "the source lacks it" if name in own else "the model lacks it"
        raise ValueError(f"start.source: of another architecture ({name}: {whose}); allowed: runs of the same model")
    for name, tensor in own.items():
        if tensor.shape != theirs[name].shape:
            shapes = f"{[*theirs[name].shape]} instead of {[*tensor.shape]}"
            raise ValueError(f"start.source: of another architecture ({name} is {shapes}); allowed: the same model")
    model.load_state_dict(theirs, strict=False)


def described(model: SpikingClassifier) -> dict[str, Any]:
    """What the record of a start says of the connections of a model."""
    weights = synapses(model)
    return {"sparsity": sparsity(weights), "densities": densities(weights)}


def _of_layers(model: SpikingClassifier) -> dict[str, Any]:
    """The state without that of neurons, and without what the dataset says."""
    neurons = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, Neuron))
    return {k: v for k, v in model.state_dict().items() if not k.startswith((*neurons, "normalize."))}
