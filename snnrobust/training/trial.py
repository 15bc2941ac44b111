"""Tries an optimizer and a schedule before anything is spent on a training by them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from snnrobust.training.settings import TrainingSettings


def refuse_unusable(settings: TrainingSettings, model: nn.Module, device: torch.device) -> None:
    """Makes one step on parameters of a single entry each, and runs the schedule over all epochs.

    Args:
        settings: of the training.
        model: whose parameters are to be trained; they tell dimensions and types, and are not touched.
        device: on which they are trained.

    Raises:
        ValueError: in one line that begins with the setting, if torch refuses its values, or the optimizer asks for
            more than gradients, or the schedule for more than time.
    """
    shapes = [([1] * p.dim(), p.dtype) for p in model.parameters() if p.requires_grad]
    parameters = [nn.Parameter(torch.zeros(shape, dtype=dtype, device=device)) for shape, dtype in shapes]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    with _named("training.optimizer"):
        optimizer = settings.optimizer(parameters)
    with _named("training.schedule"):
        running = settings.schedule.start(optimizer, settings.epochs, 1)
    with _named("training.optimizer"):
        optimizer.step()
    with _named("training.schedule"):
        for _ in range(settings.epochs):
            running.step()


@contextmanager
def _named(setting: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, RuntimeError, AttributeError, AssertionError) as error:  # torch raises all of them
        raise ValueError(f"{setting}: {' '.join(str(error).split())}") from error
