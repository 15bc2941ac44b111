"""A few samples of the data with their gradients, to be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from snnrobust.attacks.base import Attack
from snnrobust.data.dataset import Batch, Split
from snnrobust.estimators.base import Estimator
from snnrobust.evaluation.gradients import members
from snnrobust.evaluation.measures import input_gradient
from snnrobust.randomness import per_sample
from snnrobust.spiking.classifier import Classifier

MOST_SAMPLES, MOST_ESTIMATORS = 5, 4


@dataclass(frozen=True)
class Examples:
    """Samples, their input gradients, and what an attack adds to them.

    Args:
        batch: the first sample of each of the first classes, S of them.
        predicted: `[S]`, the model's answers.
        gradients: by estimator, `[S, ...]`.
        perturbation: `[S, ...]`; None without an attack.
        attacked: `[S]`, the model's answers under it.
    """

    batch: Batch
    predicted: Tensor
    gradients: Mapping[str, Tensor]
    perturbation: Tensor | None = None
    attacked: Tensor | None = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """`index`, `label` and `predicted` `[S]`; `input` and `gradient/NAME` `[S, ...]`; and, of an attack,
        `perturbation` `[S, ...]` and `attacked` `[S]`."""
        tensors = {
            "index": self.batch.index,
            "label": self.batch.y,
            "predicted": self.predicted,
            "input": self.batch.x,
            **{f"gradient/{name}": gradient for name, gradient in self.gradients.items()},
        }
        if self.perturbation is not None and self.attacked is not None:
            tensors |= {"perturbation": self.perturbation, "attacked": self.attacked}
        return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def examples(
    model: Classifier, attacked: Classifier, data: Split, estimator: Estimator, attack: Attack | None, seed: int
) -> Examples:
    """Differentiates and attacks one sample of each of the first classes.

    Args:
        model: the network itself, which is differentiated and asked.
        attacked: the network that attacks are run on.
        data: where the samples come from.
        estimator: of an ensemble, the first members are used.
        attack: on inputs; under an ensemble, the worst per sample.
        seed: of a stochastic model's draws.
    """
    batch = data.batch(_one_per_class(data.labels))
    gradients = {}
    for name, one in islice(members(estimator).items(), MOST_ESTIMATORS):
        with per_sample(batch.index, "examples", seed):
            gradients[name] = input_gradient(model, batch.x, batch.y, one)
    predicted = _answers(model, batch.x, batch.index, seed)
    if attack is None:
        return Examples(batch, predicted, gradients)
    found = attack(attacked, batch.x, batch.y, batch.index)
    return Examples(batch, predicted, gradients, found - batch.x, _answers(model, found, batch.index, seed))


@torch.no_grad()
def _answers(model: Classifier, x: Tensor, index: Tensor, seed: int) -> Tensor:
    with per_sample(index, "examples", seed):
        return model(x).argmax(1)


def _one_per_class(labels: Tensor) -> Tensor:
    """Positions of the first sample of each of the first classes."""
    first = [(labels == label).nonzero()[0] for label in labels.unique()[:MOST_SAMPLES]]
    return torch.cat(first).cpu()
