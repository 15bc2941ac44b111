"""What the command line may say of the training of scores is checked as that of the training itself is."""

import pytest

from snnrobust.config import compose
from snnrobust.trainable import misfits


def found(**training):
    config = dict(compose("config", ["training=sgd"]).config)
    assert [*misfits(config)] == []
    start = {"_target_": "snnrobust.conversion.hydra.Hydra", "training": {**config["training"], **training}}
    return [*misfits(config | {"start": start})]


def test_settings_in_order_pass():
    assert found(epochs=3) == []


@pytest.mark.parametrize(
    ("training", "line"),
    [
        ({"optimizer": {"lr": -1.0}}, "start.training.optimizer.lr: got -1.0; allowed: greater than 0"),
        (
            {"optimizer": "adam"},
            "start.training.optimizer: got 'adam'; allowed: a choice of the group, such as "
            "training/optimizer@start.training.optimizer=adam",
        ),
        (
            {"validation": {"measure": "robust_accuracy", "attack": None}},
            "start.training.validation.attack: got null; allowed with start.training.validation.measure="
            "robust_accuracy: an attack, as training/validation=robust brings",
        ),
    ],
)
def test_settings_that_make_no_sense_are_one_line(training, line):
    assert found(**training) == [line]


def test_a_name_in_the_place_of_a_training_is_one_line():
    config = compose("config", []).config
    start = {"_target_": "snnrobust.conversion.hydra.Hydra", "training": "sgd"}
    line = "start.training: got 'sgd'; allowed: a choice of the group, by training@start.training=sgd"
    assert [*misfits({**config, "start": start})] == [line]
