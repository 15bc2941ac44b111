"""Starts that train are taken up as well; and no choice of a config file knows more than what is kept."""

import contextlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from snnrobust.config import build, compose
from snnrobust.conversion.harp import Harp
from snnrobust.conversion.hydra import Hydra
from snnrobust.data.dataset import Split, Splits
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.training.scores import Epoch
from snnrobust.yamls import groups
from tests.conftest import tiny
from tests.unit.interrupted import Disk, Killed
from tests.unit.test_pruning import ground
from tests.unit.test_pruning import settings as of_scores
from tests.unit.trained import same

KINDS = ("hydra", "harp")
SMALL = ("model.channels=[4]", "model.hidden=8", "device=cpu", "training=debug", "training.epochs=2")
CHOICES = [(group, choice) for group in ("neuron", "encoder", "regularizer", "defence") for choice in groups()[group]]


def begun(kind: str, disk: Disk) -> tuple[SpikingClassifier, Mapping[str, Any]]:
    training = of_scores(epochs=3, ema=0.5 if kind == "hydra" else None)
    kinds: dict[str, Any] = {"hydra": Hydra, "harp": partial(Harp, gamma=5)}
    start = kinds[kind](tiny(seed=1), training, 0.6)
    model = tiny(seed=2)
    return model, start.begin(model, ground(keeper=disk))


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_that_trains_is_taken_up(kind):
    model, record = begun(kind, Disk())
    disk = Disk()
    for epoch in (1, 2, 3):
        disk.dies_after = epoch
        with pytest.raises(Killed):
            begun(kind, disk)
    disk.dies_after = None
    again, said = begun(kind, disk)
    assert same(model.state_dict(), again.state_dict())
    assert said == record


def test_the_price_of_an_excess_that_is_gone_stays_what_it_was():
    """HARP raises it with every epoch until then: a process that takes the training up has to know of both."""
    disk = Disk()
    disk.dies_after = 2
    with pytest.raises(Killed):
        begun("harp", disk)
    state = disk.load()
    assert state is not None
    (price,) = {float(value) for name, value in state["model"].items() if name.endswith("price")}
    (met,) = {bool(value) for name, value in state["model"].items() if name.endswith("met")}
    assert (price, met) == (5.0, True)


def parts(group: str, choice: str, disk: Disk) -> list[Epoch]:
    """The epochs that a new process trains of the config, until it dies or all are over."""
    overrides = [f"{group}={choice}", *SMALL, "encoder.steps=1" if choice == "relu" else "encoder.steps=3"]
    overrides += ["dataset=digits_events"] if choice == "frames" else []
    overrides += [] if group == "regularizer" else ["regularizer=none"]
    experiment, _ = build(compose("config", overrides).config)
    train = experiment.load().train
    few = Split(train.values[:32], train.labels[:32], train.scale)
    epochs: list[Epoch] = []
    with contextlib.suppress(Killed):
        experiment.train(experiment.classifier(), Splits(few, few, few), epochs.append, keeper=disk)
    return epochs


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_no_choice_knows_more_than_what_is_kept(group, choice):
    disk = Disk()
    whole = parts(group, choice, disk)
    disk.content, disk.dies_after = None, 1
    assert parts(group, choice, disk) == whole[:1]
    disk.dies_after = None
    assert parts(group, choice, disk) == whole[1:]
