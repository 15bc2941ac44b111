"""What an attack is, and what is guaranteed of every attack."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from snnrobust.attacks.guard import untouched
from snnrobust.randomness import isolated
from snnrobust.spiking.classifier import Classifier
from snnrobust.threat import Threat


class Attack(ABC):
    """Changes inputs so that a model errs. Subclasses are frozen dataclasses that implement `search` alone.

    Calling an attack runs its search with the model in eval mode and frozen, then enforces the result: inside
    `threat` and the model's bounds, finite, detached. The model (mode, parameters, buffers, gradients) and the
    caller's random streams are left as they were, also after an exception.
    """

    threat: Threat | None
    """The budget; None for perturbations that have none (bounds still hold), such as Gaussian noise."""
    seed: int

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in ("threat", "seed"):
            if name not in cls.__dict__ and name not in inspect.get_annotations(cls):
                raise TypeError(f"{cls.__name__} must declare {name} (threat = None if it has no budget)")

    @abstractmethod
    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        """Candidates of the shape of `x`. Draws are keyed by `seed` and `index` (`snnrobust.randomness`)."""

    def __call__(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor | None = None) -> Tensor:
        """Adversarial inputs for `x` `[B, ...]` with labels `y` `[B]`.

        Args:
            model: the classifier under attack.
            x: inputs within `model.bounds`.
            y: true classes.
            index: `[B]`, the samples' positions in their split; the positions in the batch where not given.

        Raises:
            ValueError: if `x` leaves the model's bounds.
        """
        low, high = model.bounds.low, model.bounds.high
        x = x.detach()
        if x.numel() == 0:
            return x.clone()
        if not bool(((x >= low) & (x <= high)).all()):
            raise ValueError(f"inputs must lie in [{low}, {high}], got [{float(x.min())}, {float(x.max())}]")
        index = torch.arange(len(x)) if index is None else index
        draws = ("attack", type(self).__name__, self.seed, int(index[0]))
        with untouched(model), isolated(*draws), torch.enable_grad():
            found = self.search(model, x, y, index).detach()
        # A search that met a non-finite gradient may return anything; the sample then counts as not attacked.
        found = torch.where(found.isfinite(), found, x)
        return model.bounds.clip(found) if self.threat is None else self.threat.project(found, x, model.bounds)
