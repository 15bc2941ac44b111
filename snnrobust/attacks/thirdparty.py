"""Any attack of torchattacks, by name, on any classifier: the only file that imports torchattacks."""

from __future__ import annotations

import inspect
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from snnrobust.attacks.base import Attack
from snnrobust.estimators.base import Estimator
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.settings import NonNegativeInt
from snnrobust.spiking.classifier import Classifier
from snnrobust.threat import L2, Linf, Threat

Scalar = bool | int | float | str | None
BUDGET_NAMES = ("eps", "max_epsilon")
"""What constructors in torchattacks call the budget."""
L2_ATTACKS = ("PGDL2", "PGDRSL2")
FEWEST = {"APGDT": 4, "AutoAttack": 4}
"""Classes without which an attack raises an IndexError: its loss ranks the logits down to the fourth."""


class _ImagesInUnitBox(nn.Module):
    """A classifier as torchattacks expects it: 4-D inputs in [0, 1]. Time steps of event frames become channels."""

    def __init__(self, model: Classifier, shape: torch.Size) -> None:
        super().__init__()
        self.model = model
        self.shape = shape

    def fold(self, x: Tensor) -> Tensor:
        """`[B, ...]` within the model's bounds to `[B, C', H, W]` in [0, 1]."""
        unit = (x - self.model.bounds.low) / self.model.bounds.width
        return unit if unit.dim() == 4 else unit.flatten(1, -3)

    def unfold(self, images: Tensor) -> Tensor:
        return images.view(-1, *self.shape[1:]) * self.model.bounds.width + self.model.bounds.low

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(self.unfold(images))
        return logits


@dataclass(frozen=True)
class TorchAttack(Attack):
    """`torchattacks.<name>(model, **parameters)`, inside the guarantees of `Attack`.

    The budget of an l_inf or l_2 `threat` is passed on as `eps` (rescaled to the unit box) and its norm as `norm` to
    attacks that take them, the number of classes as `n_classes`; the result is projected into the threat whatever the
    attack does. An attack without a budget (CW, DeepFool, ...) is run as it is with `threat: null`, and is then no part
    of the worst case.

    Args:
        name: of the class in torchattacks, e.g. `APGD`, `AutoAttack`, `Square`.
        threat: norm and budget, or None.
        estimator: how the model is differentiated.
        parameters: of its constructor, e.g. `{steps: 20}`. `eps` and `norm` come from the threat.
        seed: of every random stream while it runs.

    Raises:
        ValueError: if torchattacks has no such attack, or the attack no such parameter.
    """

    name: str
    threat: Threat | None
    estimator: Estimator = TRAINED
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        allowed = self._accepted()
        if self.name in L2_ATTACKS and isinstance(self.threat, Linf):
            raise ValueError(f"name: the eps of torchattacks.{self.name} is an l_2 radius; allowed with an l_2 threat")
        in_linf = self.name not in L2_ATTACKS and "norm" not in allowed and bool(allowed & set(BUDGET_NAMES))
        if in_linf and isinstance(self.threat, L2):
            raise ValueError(
                f"name: the eps of torchattacks.{self.name} is an l_inf radius; allowed with an l_inf threat"
            )
        if self.threat is None and set(BUDGET_NAMES) & (allowed - set(self.parameters)):
            raise ValueError(f"threat: torchattacks.{self.name} takes a budget; null is for attacks without one")
        for given in self.parameters:
            if given not in allowed or (given in {*BUDGET_NAMES, "norm"} and self.threat is not None):
                names = sorted(allowed - {*BUDGET_NAMES, "norm"})
                raise ValueError(
                    f"parameters.{given}: torchattacks.{self.name} takes {', '.join(names)}; the budget is the threat's"
                )

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        images = _ImagesInUnitBox(model, x.shape).eval()
        attack = self._class()(images, **self._arguments(model, x))
        return images.unfold(attack(images.fold(x), y))

    def _class(self) -> Any:
        import torchattacks

        names = [n for n in torchattacks.__all__ if n not in {"LGV", "MultiAttack", "VANILA"}]
        if self.name not in names:
            lower = {n.lower(): n for n in names}
            close = get_close_matches(self.name.lower(), lower, n=1, cutoff=0.5)
            hint = f"; did you mean {lower[close[0]]}?" if close else f"; it has {', '.join(sorted(names))}"
            raise ValueError(f"name: torchattacks has no attack {self.name!r}{hint}")
        return getattr(torchattacks, self.name)

    def _accepted(self) -> set[str]:
        """Parameters of the constructor apart from the model."""
        return set(inspect.signature(self._class().__init__).parameters) - {"self", "model"}

    def _arguments(self, model: Classifier, x: Tensor) -> dict[str, Any]:
        accepted = self._accepted()
        arguments: dict[str, Any] = dict(self.parameters)
        if isinstance(self.threat, (Linf, L2)):
            arguments |= {name: self.threat.eps / model.bounds.width for name in accepted & set(BUDGET_NAMES)}
            if "norm" in accepted:
                arguments["norm"] = "L2" if isinstance(self.threat, L2) else "Linf"
        if "n_classes" in accepted and "n_classes" not in arguments:
            with torch.no_grad():
                classes = model(x[:1]).shape[1]
            if classes < FEWEST.get(self.name, 2):
                raise ValueError(f"torchattacks.{self.name} needs {FEWEST[self.name]} classes, the model has {classes}")
            arguments["n_classes"] = classes
        if "seed" in accepted:  # their defaults are a constant, which repeats the noise in every batch, or the clock
            arguments.setdefault("seed", random.getrandbits(31))
        return arguments
