"""One training under way: everything that changes in the course of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.training.averaging import averaged
from snnrobust.training.connectivity.base import Wiring
from snnrobust.training.defences.base import Defence
from snnrobust.training.scores import Epoch
from snnrobust.training.settings import TrainingSettings

REMEDY = "try a smaller training.optimizer.lr, or a smaller weight of what is added to the loss"


class Diverged(Exception):
    """Training met a loss, a gradient or weights that are not finite: one line that says when."""


@dataclass(frozen=True)
class Trained:
    """The epoch that was best on validation data (the earlier one on a tie).

    Args:
        best: that epoch.
        state: its weights, on the CPU; of the average where there is one.
        epochs: how many were trained; fewer than asked for where training stopped early.
    """

    best: Epoch
    state: dict[str, Tensor]
    epochs: int


class Course:
    """The model with its optimizer, schedule and average, how far it is, and the best epoch so far.

    Args:
        model: what is trained, in place.
        settings: of the training.
        batches: forward passes in each epoch.
        wiring: of the connections of the model.
    """

    def __init__(self, model: SpikingClassifier, settings: TrainingSettings, batches: int, wiring: Wiring) -> None:
        self.model = model
        self.settings = settings
        self.wiring = wiring
        self.optimizer = settings.optimizer(p for p in model.parameters() if p.requires_grad)
        self.schedule = settings.schedule.start(self.optimizer, settings.epochs, -(-batches // settings.accumulate))
        self.optimizer.zero_grad(set_to_none=True)
        self.average = None if settings.ema is None else averaged(model, settings.ema)
        self.trained: Trained | None = None

    @property
    def lr(self) -> float:
        """Of the first group of parameters, in the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def result(self) -> SpikingClassifier:
        """What is validated and kept: the average where there is one, otherwise the model itself."""
        if self.average is None:
            return self.model
        module = self.average.module
        assert isinstance(module, SpikingClassifier)
        return module

    @property
    def over(self) -> bool:
        """True after the last epoch, or after too many without a better one."""
        if self.trained is None:
            return False
        patience, epochs = self.settings.validation.patience, self.trained.epochs
        waited = epochs - self.trained.best.epoch
        return epochs == self.settings.epochs or (patience is not None and waited >= patience)

    def step(self, defence: Defence) -> None:
        """One step along the gradients that the parameters hold, and all that follows a step.

        Raises:
            Diverged: if the gradients are to be clipped and are not finite.
        """
        self.wiring.before_step()
        if self.settings.clip is not None:
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
            if not bool(norm.isfinite()):
                number = self.trained.epochs + 1 if self.trained else 1
                raise Diverged(f"gradient is not finite in epoch {number}: {REMEDY}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            defence.after_step(self.model)
            self.wiring.after_step(self.optimizer)
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.schedule.step()

    def keep(self, epoch: Epoch) -> None:
        """Takes note of an epoch that is over, and of the weights if it is the best so far."""
        value, before = self.settings.validation.value, self.trained
        if before is None or value(epoch) > value(before.best):
            self.trained = Trained(epoch, _state(self.result), epoch.epoch)
        else:
            self.trained = Trained(before.best, before.state, epoch.epoch)


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: copy.deepcopy(tensor.detach().cpu()) for name, tensor in model.state_dict().items()}
