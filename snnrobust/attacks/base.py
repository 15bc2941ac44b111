"""What an attack is, and what is guaranteed of every attack."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from snnrobust.attacks.guard import untouched
from snnrobust.attacks.losses import margin
from snnrobust.estimators.base import Estimator
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.randomness import isolated, key, per_sample
from snnrobust.spiking.classifier import Classifier
from snnrobust.threat import Threat

Search = Callable[[Classifier, int], Sequence[Tensor]]


class Attack(ABC):
    """Changes inputs so that a model errs. Subclasses are frozen dataclasses that implement `search` alone.

    Calling an attack runs its search with the model in eval mode and frozen, differentiated by the attack's estimator,
    then enforces the result: inside `threat` and the model's bounds, finite, detached. The model (mode, parameters,
    buffers, gradients) and the caller's random streams are left as they were, also after an exception.
    """

    threat: Threat | None
    """The budget; None for perturbations that have none (bounds still hold), such as Gaussian noise."""
    seed: int
    estimator: Estimator = TRAINED
    """How the model is differentiated. Attacks that follow a gradient make it a setting."""
    restarts: int = 1
    """Independent searches; per sample the result of the largest margin is kept. A setting where searches draw."""
    adversarial: ClassVar[bool] = True
    """False for random perturbations, which are measured on all samples, also on misclassified ones."""
    black_box: ClassVar[bool] = False
    """True for attacks that see no gradient of the model."""
    space: ClassVar[Literal["input", "code"]] = "input"
    """What is perturbed: the input, or its code behind the encoder, which is no part of a worst case over inputs."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in ("threat", "seed"):
            if name not in cls.__dict__ and name not in inspect.get_annotations(cls):
                raise TypeError(f"{cls.__name__} must declare {name} (threat = None if it has no budget)")

    @abstractmethod
    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        """Candidates of the shape of `x`.

        Draws are keyed by `seed`, `restart` and `index` (`snnrobust.randomness`). Every forward is of the whole batch
        in its order: a stochastic model draws by position.
        """

    def __call__(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor | None = None) -> Tensor:
        """Adversarial inputs for `x` `[B, ...]` with labels `y` `[B]`; with an ensemble, each sample's worst.

        Args:
            model: the classifier under attack.
            x: inputs within `model.bounds`.
            y: true classes.
            index: `[B]`, the samples' positions in their split; the positions in the batch where not given.

        Raises:
            ValueError: if `x` leaves the model's bounds, or the estimator does not apply to the model.
        """
        found = [attack._one(model, x, y, index) for attack in self.variants().values()]
        if len(found) == 1 or not len(y):
            return found[0]
        return self._worst(model, y, _checked(model, x, index)[1], found, "members")

    def target(self, model: Classifier, x: Tensor, index: Tensor | None = None) -> tuple[Classifier, Tensor]:
        """What is attacked and judged: the model on its input, unless the attack lives elsewhere (`space`)."""
        return model, x

    def variants(self) -> Mapping[str, Self]:
        """This attack under each member of its estimator, by name (`""` for a single one).

        The first keeps the seed; the others draw their own starts, as further restarts would.
        """
        members = self.estimator.members()
        if not members:
            return {"": self}
        changes: list[dict[str, Any]] = [
            {"estimator": member} | ({"seed": key(self.seed, name) >> 32} if number else {})
            for number, (name, member) in enumerate(members.items())
        ]
        return {name: replace(self, **change) for name, change in zip(members, changes, strict=True)}  # type: ignore[type-var]

    def renewed(self, *words: object) -> Self:
        """The same attack with other draws, keyed by the seed and `words`."""
        return replace(self, seed=key(self.seed, *words) >> 32)  # type: ignore[type-var]

    def _one(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor | None) -> Tensor:
        x, index = _checked(model, x, index)
        if x.numel() == 0:
            return x.clone()

        def search(view: Classifier, restart: int) -> Sequence[Tensor]:
            return [self.search(view, x, y, index, restart)]

        return self._guarded(model, x, y, index, search)[0]

    def _guarded(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, search: Search) -> Sequence[Tensor]:
        """Runs a search as often as there are restarts, inside all guarantees; its results are treated one by one."""
        draws = ("attack", type(self).__name__, self.seed)
        best: list[Tensor] = []
        with untouched(model), isolated(*draws, int(index[0])), torch.enable_grad():
            for restart in range(self.restarts):
                with per_sample(index, *draws, restart), self.estimator.applied(model) as view:
                    found = [self._allowed(model, candidate.detach(), x) for candidate in search(view, restart)]
                if best:
                    pairs = zip(best, found, strict=True)
                    found = [self._worst(model, y, index, pair, "restart", restart) for pair in pairs]
                best = found
        return best

    def _worst(self, model: Classifier, y: Tensor, index: Tensor, found: Sequence[Tensor], *words: object) -> Tensor:
        """The worst candidate of each sample, for which a stochastic model draws anew, keyed by the sample."""
        draws = ("worst", type(self).__name__, self.seed, *words)
        with isolated(*draws, int(index[0])), per_sample(index, *draws):
            return _worst(model, y, found)

    def _allowed(self, model: Classifier, found: Tensor, x: Tensor) -> Tensor:
        # A search that met a non-finite gradient may return anything; the sample then counts as not attacked.
        found = torch.where(found.isfinite(), found, x)
        return model.bounds.clip(found) if self.threat is None else self.threat.project(found, x, model.bounds)


class Stepwise(Attack):
    """An attack whose results after fewer steps lie on the way: several lengths are one search, read several times."""

    threat: Threat | None
    seed: int
    steps: int

    @abstractmethod
    def family(self) -> Hashable:
        """Equal for attacks that differ in `steps` alone."""

    @abstractmethod
    def search_at(
        self, steps: Sequence[int], model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int
    ) -> list[Tensor]:
        """The candidates after each of `steps`, which increase."""

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        return self.search_at([self.steps], model, x, y, index, restart)[0]

    def read(
        self, steps: Sequence[int], model: Classifier, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Sequence[Tensor]:
        """What calls with each of `steps` (increasing) return, from one search. Not for ensembles."""
        x, index = _checked(model, x, index)
        if x.numel() == 0:
            return [x.clone() for _ in steps]

        def search(view: Classifier, restart: int) -> Sequence[Tensor]:
            return self.search_at(steps, view, x, y, index, restart)

        return self._guarded(model, x, y, index, search)


def _checked(model: Classifier, x: Tensor, index: Tensor | None) -> tuple[Tensor, Tensor]:
    low, high = model.bounds.low, model.bounds.high
    x = x.detach()
    if x.numel() and not bool(((x >= low) & (x <= high)).all()):
        raise ValueError(f"inputs must lie in [{low}, {high}], got [{float(x.min())}, {float(x.max())}]")
    return x, torch.arange(len(x)) if index is None else index


@torch.no_grad()
def _worst(model: Classifier, y: Tensor, found: Sequence[Tensor]) -> Tensor:
    """Per sample the candidate of the largest margin, the first among equals."""
    best, score = found[0], None
    with untouched(model):
        for candidate in found:
            value = margin(model(candidate), y)
            if score is None:
                best, score = candidate, value
                continue
            better = value > score
            best = torch.where(better.view(-1, *[1] * (best.dim() - 1)), candidate, best)
            score = torch.where(better, value, score)
    return best
