"""Trainings that are killed and taken up again by other objects, as other processes would, from bytes alone."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from snnrobust.training.course import Trained
from snnrobust.training.keeping import FORGETFUL, Keeper
from snnrobust.training.loop import Advance, Trainer, silent
from snnrobust.training.scores import Epoch
from tests.unit.trained import data

Make = Callable[[], tuple[Trainer, Any]]
"""A trainer and its model, as a new process makes them."""


class Killed(BaseException):
    """What nobody catches."""


class Disk(Keeper):
    """Bytes that outlive a process.

    Args:
        dies_after: the process dies when it has saved the state after this epoch.
        dies_before: when it is about to.
    """

    def __init__(self) -> None:
        self.content: bytes | None = None
        self.dies_after: int | None = None
        self.dies_before: int | None = None

    def load(self) -> Mapping[str, Any] | None:
        if self.content is None:
            return None
        found: Mapping[str, Any] = torch.load(io.BytesIO(self.content), weights_only=True)
        return found

    def save(self, state: Mapping[str, Any]) -> None:
        if state["epochs"] == self.dies_before:
            raise Killed
        file = io.BytesIO()
        torch.save(dict(state), file)
        self.content = file.getvalue()
        if state["epochs"] == self.dies_after:
            raise Killed

    def __str__(self) -> str:
        return "the disk"


class Left:
    """What a training leaves: the epoch that was kept, the weights as they are in the end, and what was reported."""

    def __init__(self, trained: Trained, model: Any, epochs: list[Epoch]) -> None:
        self.trained = trained
        self.model: dict[str, Tensor] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.epochs = epochs


def uninterrupted(make: Make, keeper: Keeper = FORGETFUL) -> Left:
    run, model = make()
    epochs: list[Epoch] = []
    return Left(run(model, data(), data(16, 1), epochs.append, silent, keeper), model, epochs)


def killed_after(make: Make, disk: Disk, batches: int | None = None) -> list[Epoch]:
    """Runs a process that has to die, at the latest after so many batches; what it has reported until then."""
    run, model = make()
    epochs: list[Epoch] = []

    @contextmanager
    def progress(_name: str, _steps: int) -> Iterator[Advance]:
        done = 0

        def advance(_loss: float, _accuracy: float) -> None:
            nonlocal done
            done += 1
            if done == batches:
                raise Killed

        yield advance

    try:
        run(model, data(), data(16, 1), epochs.append, progress, disk)
    except Killed:
        return epochs
    raise AssertionError("the process did not die")


def assert_equal(first: Left, second: Left) -> None:
    """Bit for bit; of a training that was taken up, the epochs that its last process reported."""
    for name in first.model:
        assert torch.equal(first.model[name], second.model[name]), name
    for name in first.trained.state:
        assert torch.equal(first.trained.state[name], second.trained.state[name]), name
    assert first.model.keys() == second.model.keys()
    assert (first.trained.best, first.trained.epochs) == (second.trained.best, second.trained.epochs)
    assert second.epochs == first.epochs[len(first.epochs) - len(second.epochs) :]
