"""Learns which connections stay: scores and quotas trained in the place of weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from snnrobust.conversion.base import Ground
from snnrobust.conversion.masks import prune
from snnrobust.conversion.scores import Quotas, Scored
from snnrobust.data.dataset import Batch
from snnrobust.regularizers.base import Pass
from snnrobust.schema import ConfigError
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.synapses import weighted
from snnrobust.training.course import Diverged, Trained
from snnrobust.training.defences.base import Defence, Look, Moment
from snnrobust.training.loop import Trainer
from snnrobust.training.memory import OutOfMemory
from snnrobust.training.settings import TrainingSettings
from snnrobust.training.trial import refuse_unusable

Its = TypeVar("Its", bound=Quotas)


def learn(
    model: SpikingClassifier,
    quotas: Callable[[list[str]], Its],
    settings: TrainingSettings,
    ground: Ground,
) -> tuple[Trained, Its]:
    """Prunes `model` in place by scores that minimise the loss of the run: its defence, its regularizer, its data.

    Nothing but scores and quotas is learned; running statistics of batch norm follow the network as it is masked. The
    weights that stay keep their bits. The epoch that is kept is that of `settings.validation`.

    Args:
        model: with weights; it is left as it was if anything goes wrong.
        quotas: makes them, from the names of the layers that have connections.
        settings: of the training of the scores.
        ground: what it learns on.

    Returns:
        The epoch that was kept, and the quotas as they were then.

    Raises:
        ValueError: in one line, if torch refuses settings of the training.
        Diverged: if the loss, the gradient or the scores become NaN or infinite.
    """
    scored = copy.deepcopy(model).requires_grad_(False)
    layers = {name: layer for name, layer in weighted(scored) if bool(layer.weight.any())}
    its = quotas([*layers]).to(next(scored.parameters()).device)
    for number, layer in enumerate(layers.values()):
        parametrize.register_parametrization(layer, "weight", Scored(layer.weight, its, number))
    trained = _trained(scored, its, settings, ground)
    scored.load_state_dict(trained.state)
    scored.eval()
    masks = {name: torch.ones_like(layer.weight, dtype=torch.bool) for name, layer in weighted(model)}
    prune(model, masks | {name: _mask(layer) for name, layer in layers.items()})
    _follow(model, scored)
    return trained, its


def _trained(scored: SpikingClassifier, quotas: Quotas, settings: TrainingSettings, ground: Ground) -> Trained:
    defence = _OfScores(ground.defence, quotas)
    trainer = Trainer(settings, ground.regularizer, defence, ground.seed, ground.augmentation)
    try:
        refuse_unusable(settings, scored, next(scored.parameters()).device)
        return trainer(scored, ground.train, ground.validation, ground.on_epoch, ground.progress, ground.keeper)
    except (ValueError, ConfigError, Diverged) as error:
        raise type(error)(_of_start(error)) from error
    except OutOfMemory as error:
        raise OutOfMemory(_of_start(error), error.batch_size) from error


def _of_start(error: Exception) -> str:
    return str(error).replace("training.", "start.training.")


def _mask(layer: nn.Module) -> Tensor:
    assert isinstance(layer.parametrizations, nn.ModuleDict)
    weight = layer.parametrizations["weight"]
    assert isinstance(weight, parametrize.ParametrizationList)
    scored = weight[0]
    assert isinstance(scored, Scored)
    return scored.mask(weight.original)


@torch.no_grad()
def _follow(model: nn.Module, scored: nn.Module) -> None:
    """Running statistics, which are no parameters, become those of the masked network."""
    state = scored.state_dict()
    for name, buffer in model.named_buffers():
        if name in state:
            buffer.copy_(state[name])


class _OfScores(Defence):
    """The loss of a defence with the penalty of quotas; what the defence does to weights after a step is left out."""

    def __init__(self, defence: Defence, quotas: Quotas) -> None:
        self.defence = defence
        self.quotas = quotas

    def step(self, model: SpikingClassifier, batch: Batch, look: Look, moment: Moment) -> tuple[Tensor, Pass]:
        loss, at = self.defence.step(model, batch, look, moment)
        return loss + self.quotas.penalty(moment), at
