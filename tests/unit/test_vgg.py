"""The VGG networks of the papers: sizes, shapes, refusals."""

from functools import partial
from math import prod
from typing import Literal

import pytest
import torch
from torch import nn

from snnrobust.config import compose
from snnrobust.models.vgg import VGG
from snnrobust.schema import ConfigError
from snnrobust.spiking.neuron import IF
from snnrobust.spiking.surrogate import triangle

NEURON = partial(IF, surrogate=triangle())


@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize(("shape", "entries"), [((1, 8, 8), 8 * 2 * 2), ((2, 9, 5), 8 * 2 * 1)])
def test_logits_have_one_row_per_step_and_sample(pool, shape, entries):
    model = VGG(shape, 7, NEURON, (4, "pool", 6, 8, "pool"), (16, 12), pool)
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert [(one.in_features, one.out_features) for one in linear] == [(entries, 16), (16, 12), (12, 7)]
    assert sum(isinstance(module, nn.MaxPool2d if pool == "max" else nn.AvgPool2d) for module in model.modules()) == 2
    for steps, batch in ((3, 5), (1, 1)):
        logits = model(torch.rand(steps, batch, *shape))
        assert logits.shape == (steps, batch, 7)
        assert logits.isfinite().all()


def test_layers_stand_as_planned():
    model = VGG((2, 8, 8), 4, NEURON, (4, "pool", 6), (16,), dropout=0.3)
    kinds = [nn.Conv2d, nn.BatchNorm2d, IF, nn.AvgPool2d, nn.Conv2d, nn.BatchNorm2d, IF]
    assert all(isinstance(one, kind) for one, kind in zip(model.features, kinds, strict=True))
    kinds = [nn.Flatten, nn.Linear, IF, nn.Dropout, nn.Linear]
    assert all(isinstance(one, kind) for one, kind in zip(model.classifier, kinds, strict=True))
    convolutions = [module for module in model.features if isinstance(module, nn.Conv2d)]
    assert [(one.in_channels, one.out_channels) for one in convolutions] == [(2, 4), (4, 6)]


def test_without_hidden_layers_the_convolutions_are_read_out():
    model = VGG((1, 8, 8), 3, NEURON, (4, "pool"), ())
    assert [type(one).__name__ for one in model.classifier] == ["Flatten", "Linear"]
    assert model(torch.rand(2, 5, 1, 8, 8)).shape == (2, 5, 3)


def test_the_average_head_sees_the_mean_of_each_channel():
    model = VGG((1, 8, 6), 3, NEURON, (4,), (), head="average").eval()
    x = 4 * torch.rand(2, 5, 1, 8, 6)
    means = model.features(x).mean((-2, -1))
    linear = model.classifier[-1]
    assert isinstance(linear, nn.Linear)
    assert means.any()
    torch.testing.assert_close(model(x), means @ linear.weight.T + linear.bias)


@pytest.mark.parametrize(
    ("bias", "expected"), [("all", (True, True)), ("linear", (False, True)), ("none", (False,) * 2)]
)
def test_biases_stand_where_they_are_asked_for(bias, expected):
    model = VGG((1, 8, 8), 3, NEURON, (4,), (5,), bias=bias)
    for kind, wanted in zip((nn.Conv2d, nn.Linear), expected, strict=True):
        assert {module.bias is not None for module in model.modules() if isinstance(module, kind)} == {wanted}


def test_dropout_is_drawn_anew_at_every_step_of_a_training_alone():
    model = VGG((1, 8, 8), 3, NEURON, (4,), (50,), dropout=0.5).train()
    drop = model.classifier[3]
    assert isinstance(drop, nn.Dropout)
    torch.manual_seed(0)
    kept = drop(torch.ones(4, 2, 50)) > 0
    assert len(kept.flatten(1).unique(dim=0)) == 4
    assert 0.4 < kept.float().mean() < 0.6
    assert torch.equal(drop.eval()(torch.ones(4, 2, 50)), torch.ones(4, 2, 50))
    with pytest.raises(ValueError, match=r"^model\.dropout: got 1\.0; allowed: less than 1$"):
        VGG((1, 8, 8), 3, NEURON, (4,), dropout=1.0)


def test_convolutions_begin_as_he_et_al_2015_say():
    """Of variance `2 / (9 channels out)`, without a bias."""
    torch.manual_seed(0)
    model = VGG((64, 8, 8), 4, NEURON, (128,), (4,))
    features = model.features[0]
    assert isinstance(features, nn.Conv2d)
    assert float(features.weight.detach().square().mean()) == pytest.approx(2 / (9 * 128), rel=0.02)
    biases = [module.bias for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(biases) == 3
    assert not any(bias is None or bias.any() for bias in biases)


@pytest.mark.parametrize("side", [8, 15])
def test_more_poolings_than_the_input_bears_are_refused(side):
    three: tuple[int | Literal["pool"], ...] = (2, "pool", "pool", "pool")
    assert prod(VGG((1, 16, side), 4, NEURON, three, (4,))(torch.rand(1, 2, 1, 16, side)).shape) == 8
    with pytest.raises(ValueError, match=rf"^model\.plan: got 4 poolings, each halving 16x{side}; allowed: fewer$"):
        VGG((1, 16, side), 4, NEURON, (*three, "pool"), (4,))


def test_dropout_is_not_taken_for_sparse_gradients():
    with pytest.raises(ConfigError, match=r"^regularizer: .* model\.dropout .*; allowed: regularizer=none, or"):
        compose("config", ["model=vgg5", "model.dropout=0.1"])
    assert compose("config", ["model=vgg5", "model.dropout=0.1", "regularizer.weight=0"])
    assert compose("config", ["model=vgg5", "model.dropout=0.1", "regularizer=none"])
