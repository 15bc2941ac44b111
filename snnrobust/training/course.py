"""One training under way: everything that changes in the course of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.training.averaging import averaged
from snnrobust.training.checkpoint import CheckpointError
from snnrobust.training.connectivity.base import Wiring
from snnrobust.training.defences.base import Defence
from snnrobust.training.memory import Room
from snnrobust.training.parallel import add_up_gradients, average_buffers
from snnrobust.training.scores import Epoch, Scores
from snnrobust.training.settings import TrainingSettings

REMEDY = "try a smaller training.optimizer.lr, or a smaller weight of what is added to the loss"


OTHER = (RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError)
"""What torch raises when a state is put into something else than it was taken from."""


class Diverged(Exception):
    """Training met a loss, a gradient or weights that are not finite: one line that says when."""


@dataclass(frozen=True)
class Trained:
    """The epoch that was best on validation data (the earlier one on a tie).

    Args:
        best: that epoch.
        state: its weights, on the CPU; of the average where there is one.
        epochs: how many were trained; fewer than asked for where training stopped early.
        micro_batch: samples per pass that memory had room for, where these were fewer than a batch has.
    """

    best: Epoch
    state: dict[str, Tensor]
    epochs: int
    micro_batch: int | None = None


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
        self.room = Room(model, settings.batch_size, settings.auto_batch)
        self.trained: Trained | None = None

    @property
    def epochs(self) -> int:
        """How many are over."""
        return self.trained.epochs if self.trained else 0

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

    def share(self, before: Sequence[Tensor], sharing: int) -> None:
        """Makes gradients and buffers those of all processes that train together, before a step.

        Args:
            before: the buffers before the passes of the step.
            sharing: how many processes had samples in them, the first ones.
        """
        add_up_gradients(self.model.parameters())
        average_buffers(self.model, before, sharing)

    def step(self, defence: Defence) -> None:
        """One step along the gradients that the parameters hold, and all that follows a step.

        Raises:
            Diverged: if the gradients are to be clipped and are not finite.
        """
        self.wiring.before_step()
        if self.settings.clip is not None:
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
            if not bool(norm.isfinite()):
                raise Diverged(f"gradient is not finite in epoch {self.epochs + 1}: {REMEDY}")
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
        value, before, micro = self.settings.validation.value, self.trained, self.room.micro_batch
        halved = micro if micro < self.room.batch_size else None
        if before is None or value(epoch) > value(before.best):
            self.trained = Trained(epoch, _state(self.result), epoch.epoch, halved)
        else:
            self.trained = Trained(before.best, before.state, epoch.epoch, halved)

    def state(self) -> dict[str, Any]:
        """All that changes in the course of a training, between two epochs: tensors and plain containers, not copied.

        Random streams are no part of it: they begin anew with every epoch.
        """
        assert self.trained is not None
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "wiring": self.wiring.state(),
            "best": asdict(self.trained.best),
            # What was kept last is what is there now.
            "kept": None if self.trained.best.epoch == self.trained.epochs else self.trained.state,
            "epochs": self.trained.epochs,
            "micro_batch": self.trained.micro_batch,
        }

    def restore(self, state: Mapping[str, Any], where: str) -> None:
        """Takes up a training where `state` was taken.

        Args:
            state: of a course of the same settings.
            where: it was read, for messages.

        Raises:
            CheckpointError: in one line, if it was taken from another architecture.
        """
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.wiring.restore(state["wiring"])
            micro, kept = state["micro_batch"], state["kept"]
            kept = _state(self.result) if kept is None else dict(kept)
            self.trained = Trained(_epoch(state["best"]), kept, state["epochs"], micro)
            self.room.micro_batch = micro or self.room.batch_size
        except OTHER as error:
            lines = [line.strip() for line in str(error).splitlines()] or [type(error).__name__]
            reason = lines[1] if len(lines) > 1 else lines[0]
            raise CheckpointError(
                f"{where}: a training of another architecture ({reason[:200]}); force=true trains from the beginning"
            ) from error


def _epoch(content: Mapping[str, Any]) -> Epoch:
    scores = {split: Scores(**content[split]) for split in ("train", "validation")}
    return Epoch(**{**content, **scores})


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: copy.deepcopy(tensor.detach().cpu()) for name, tensor in model.state_dict().items()}
