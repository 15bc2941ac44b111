"""Small trainings: data with a visible rule, trainers with few settings of interest, and what they leave."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from snnrobust.data.dataset import Batch, Split
from snnrobust.regularizers.none import NoRegularizer
from snnrobust.training.course import Trained
from snnrobust.training.defences.none import NoDefence
from snnrobust.training.loop import Trainer
from snnrobust.training.scores import Epoch
from snnrobust.training.settings import TrainingSettings

ADAM, SGD = torch.optim.Adam, torch.optim.SGD


def data(number: int = 48, seed: int = 0) -> Split:
    """Random pixels; the brightest quarter of the image is the class."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(9, (number, 1, 8, 8), generator=generator)
    labels = torch.arange(number) % 4
    for picture, label in zip(values, labels.tolist(), strict=True):
        picture[0, 2 * label : 2 * label + 2] += 8
    return Split(values.to(torch.uint8), labels, 16)


def contradicted(split: Split) -> Split:
    """The same pictures with labels that contradict those of the training."""
    return Split(split.values, (split.labels + 2) % 4, split.scale)


def trainer(
    regularizer: Any = None, defence: Any = None, seed: int = 0, lr: float = 0.005, make: Any = ADAM, **settings: Any
) -> Trainer:
    """Three epochs of batches of 16, by an optimizer with its defaults unless settings say otherwise."""
    chosen = {"optimizer": partial(make, lr=lr), "epochs": 3, "batch_size": 16, **settings}
    return Trainer(TrainingSettings(**chosen), regularizer or NoRegularizer(), defence or NoDefence(), seed)


def train(
    run: Trainer, model: Any, train: Split | None = None, validation: Split | None = None
) -> tuple[Trained, list[Epoch]]:
    """The result, and what was reported of every epoch."""
    epochs: list[Epoch] = []
    trained = run(model, train or data(), validation or data(16, 1), epochs.append)
    return trained, epochs


def kept(run: Trainer, model: Any, validation: Split) -> tuple[Trained, list[tuple[Epoch, dict[str, Tensor]]]]:
    """The result, and for every epoch what was reported and the weights of the model."""
    states: list[tuple[Epoch, dict[str, Tensor]]] = []
    trained = run(model, data(), validation, lambda e: states.append((e, copy.deepcopy(model.state_dict()))))
    return trained, states


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Equal bits under equal names."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Altering(NoDefence):
    """Shows the network what a function makes of a batch."""

    def __init__(self, change: Callable[[Any, Batch], Tensor]) -> None:
        object.__setattr__(self, "change", change)

    change: Callable[[Any, Batch], Tensor]

    def step(self, model: Any, batch: Batch, look: Any, moment: Any) -> Any:
        changed = self.change(model, batch)
        return super().step(model, Batch(changed, batch.y, batch.index), look, moment)


class Watching(NoDefence):
    """Keeps the positions that every pass learns from, the mode of the model, the moments, and when steps were made."""

    def __init__(self) -> None:
        for name in ("passes", "modes", "moments", "steps"):
            object.__setattr__(self, name, [])

    passes: list[list[int]]
    modes: list[bool]
    moments: list[float]
    steps: list[int]

    def step(self, model: Any, batch: Batch, look: Any, moment: Any) -> Any:
        self.passes.append(batch.index.tolist())
        self.modes.append(model.training)
        self.moments.append(moment.elapsed)
        return super().step(model, batch, look, moment)

    def after_step(self, model: Any) -> None:
        assert not torch.is_grad_enabled()
        self.steps.append(len(self.passes))
