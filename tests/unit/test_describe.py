"""The description of a classifier: its layers in order, their shapes, and all parameters."""

import pytest
import torch

from snnrobust.cli import main
from snnrobust.config import build, compose
from snnrobust.describe import layers


def experiment_of(*overrides):
    experiment, _ = build(compose("config", ["tracker=none", "device=cpu", *overrides]).config)
    return experiment


def described(experiment):
    model = experiment.classifier()
    return model, list(layers(model, experiment.dataset.shape, experiment.device))


@pytest.fixture(scope="module")
def small():
    return described(experiment_of("model.channels=[4,6]", "model.hidden=5", "encoder.steps=3"))


def test_layers_come_in_the_order_in_which_they_run(small):
    _, found = small
    block = ["Conv2d", "BatchNorm2d", "LIF", "AvgPool2d"]
    assert [layer.kind for layer in found if layer.name.startswith("backbone.features")] == block * 2
    assert [layer.kind for layer in found][:2] == ["Normalize", "Direct"]
    assert [layer.name for layer in found][-1] == "backbone.classifier.3"


def test_shapes_are_those_of_the_outputs(small):
    _, found = small
    shapes = {layer.name: layer.shape for layer in found}
    assert shapes["normalize"] == (1, 1, 8, 8)
    assert shapes["encoder"] == (3, 1, 1, 8, 8)
    assert shapes["backbone.features.0"] == (3, 1, 4, 8, 8)
    assert shapes["backbone.features.7"] == (3, 1, 6, 2, 2)
    assert shapes["backbone.classifier.2"] == (3, 1, 5)
    assert shapes["backbone.classifier.3"] == (3, 1, 10)


def test_parameters_of_the_layers_add_up_to_those_of_the_model(small):
    model, found = small
    by_hand = 4 * 9 + 2 * 4 + 6 * 4 * 9 + 2 * 6 + (24 * 5 + 5) + (5 * 10 + 10)
    assert sum(layer.parameters for layer in found) == sum(p.numel() for p in model.parameters()) == by_hand


def test_describing_leaves_the_model_as_it_was(small):
    model, _ = small
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stream = torch.random.get_rng_state()
    list(layers(model, (1, 8, 8), torch.device("cpu")))
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), stream)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("dataset", ["digits", "digits_events", "mnist", "fashion_mnist"])
def test_no_dataset_is_read(dataset, tmp_path, capsys):
    root = [] if dataset == "digits" else [f"dataset.root={tmp_path}/absent"]
    assert main(["describe", f"dataset={dataset}", *root, "device=cpu"]) == 0
    out = capsys.readouterr().out
    model, _ = described(experiment_of(f"dataset={dataset}", *root))
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in out
    assert not list(tmp_path.iterdir())


def test_a_model_that_does_not_fit_its_data_is_one_line(capsys):
    assert main(["describe", "model.channels=[8,8,8,8,8]", "device=cpu"]) in (1, 2)
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1
    assert err[0].startswith("snnrobust: model.channels: got 5 blocks")
