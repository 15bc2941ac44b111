"""The VGG-11 of the papers: sizes, shapes, refusals."""

from functools import partial
from math import prod

import pytest
import torch
from torch import nn

from snnrobust.models.vgg import VGG
from snnrobust.spiking.neuron import IF, Neuron
from snnrobust.spiking.surrogate import triangle

NEURON = partial(IF, surrogate=triangle())


@pytest.mark.parametrize(("classes", "parameters"), [(10, 61_377_034), (100, 61_745_764)])
def test_the_default_plan_has_the_parameters_of_the_papers(classes, parameters):
    with torch.device("meta"):  # weights without memory
        model = VGG((3, 32, 32), classes, NEURON)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert sum(isinstance(module, Neuron) for module in model.modules()) == 10


@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize(("shape", "entries"), [((1, 8, 8), 8 * 2 * 2), ((2, 9, 5), 8 * 2 * 1)])
def test_logits_have_one_row_per_step_and_sample(pool, shape, entries):
    model = VGG(shape, 7, NEURON, (4, "pool", 6, 8, "pool"), 16, pool)
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert [(one.in_features, one.out_features) for one in linear] == [(entries, 16), (16, 16), (16, 7)]
    assert sum(isinstance(module, nn.MaxPool2d if pool == "max" else nn.AvgPool2d) for module in model.modules()) == 2
    for steps, batch in ((3, 5), (1, 1)):
        logits = model(torch.rand(steps, batch, *shape))
        assert logits.shape == (steps, batch, 7)
        assert logits.isfinite().all()


def test_layers_stand_as_planned():
    model = VGG((2, 8, 8), 4, NEURON, (4, "pool", 6), 16)
    kinds = [nn.Conv2d, nn.BatchNorm2d, IF, nn.AvgPool2d, nn.Conv2d, nn.BatchNorm2d, IF]
    assert all(isinstance(one, kind) for one, kind in zip(model.features, kinds, strict=True))
    convolutions = [module for module in model.features if isinstance(module, nn.Conv2d)]
    assert [(one.in_channels, one.out_channels) for one in convolutions] == [(2, 4), (4, 6)]


def test_convolutions_begin_as_he_et_al_2015_say():
    """Of variance `2 / (9 channels out)`, without a bias."""
    torch.manual_seed(0)
    features = VGG((64, 8, 8), 4, NEURON, (128,), 4).features[0]
    assert isinstance(features, nn.Conv2d)
    assert features.bias is not None
    assert not features.bias.any()
    assert float(features.weight.detach().square().mean()) == pytest.approx(2 / (9 * 128), rel=0.02)


@pytest.mark.parametrize("side", [8, 15])
def test_more_poolings_than_the_input_bears_are_refused(side):
    assert prod(VGG((1, 16, side), 4, NEURON, (2, "pool", "pool", "pool"), 4)(torch.rand(1, 2, 1, 16, side)).shape) == 8
    with pytest.raises(ValueError, match=rf"^model\.plan: got 4 poolings, each halving 16x{side}; allowed: fewer$"):
        VGG((1, 16, side), 4, NEURON, (2, "pool", "pool", "pool", "pool"), 4)
