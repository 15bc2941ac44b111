"""Residual networks: equal to SpikingJelly's, and to the formulas of the papers written out."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model import sew_resnet, spiking_resnet
from torch import Tensor, nn
from torch.nn import functional as F

from snnrobust.models.cnn_dvs import CNNDVS
from snnrobust.models.residual import ConvexCombination, Place, Residual
from snnrobust.models.resnet import ResNet
from snnrobust.models.sew_resnet import SEWResNet
from snnrobust.models.spiking_resnet import SpikingResNet
from snnrobust.models.wide_resnet import PreActivation, WideResNet
from snnrobust.randomness import isolated
from snnrobust.spiking.neuron import IF, Neuron
from snnrobust.spiking.surrogate import atan

NEURON = partial(IF, surrogate=atan())
THEIRS = {"spiking_function": surrogate.ATan()}
CASES: list[tuple[Callable[..., nn.Module], Callable[..., nn.Module], tuple[int, ...], str, str]] = [
    (SEWResNet, partial(sew_resnet.sew_resnet18, cnf="ADD"), (2, 2, 2, 2), "basic", "max"),
    (SEWResNet, partial(sew_resnet.sew_resnet18, cnf="ADD"), (2, 2, 2, 2), "basic", "avg"),
    (SEWResNet, partial(sew_resnet.sew_resnet50, cnf="ADD"), (3, 4, 6, 3), "bottleneck", "max"),
    (SpikingResNet, spiking_resnet.spiking_resnet34, (3, 4, 6, 3), "basic", "max"),
    (SpikingResNet, spiking_resnet.spiking_resnet50, (3, 4, 6, 3), "bottleneck", "max"),
]


def shaken(model: nn.Module) -> nn.Module:
    """Batch norm with statistics and weights of its own, so that every layer fires and none is the identity."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 2)
            nn.init.uniform_(module.bias, -0.2, 0.6)
            assert module.running_mean is not None
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            assert module.running_var is not None
            nn.init.uniform_(module.running_var, 0.7, 1.3)
    return model.eval()


def differentiated(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    logits = model(x)
    return logits.detach(), torch.autograd.grad(logits.mean(0).square().sum(), x)[0]


@pytest.mark.parametrize(("ours", "theirs", "blocks", "block", "pool"), CASES)
def test_logits_and_gradients_are_those_of_spikingjelly(ours, theirs, blocks, block, pool):
    with isolated("equal"):
        mine = shaken(ours((3, 20, 24), 5, NEURON, blocks=blocks, block=block, pool=pool).double())
        other: Any = theirs(spiking_neuron=neuron.IFNode, surrogate_function=surrogate.ATan(), num_classes=5).double()
    if pool == "avg":  # the factor of the paper on the gradient-sparsity trail
        other.maxpool = layer.AvgPool2d(3, 2, 1)
    functional.set_step_mode(other, "m")
    # Modules are registered in the same order, under other names.
    state = dict(zip(other.state_dict(), mine.state_dict().values(), strict=True))
    other.load_state_dict(state)
    other.eval()
    x = torch.rand(3, 2, 3, 20, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (logits, gradient), (expected, slope) = differentiated(mine, x), differentiated(other, x)
    assert expected.std() > 1e-3
    assert slope.abs().max() > 0
    torch.testing.assert_close(logits, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(gradient, slope, atol=1e-10, rtol=1e-8)


def steps(x: Tensor) -> Tensor:
    return x.flatten(0, 1)


def apply(module: nn.Module, x: Tensor) -> Tensor:
    """A layer without time, by torch's own functions."""
    if isinstance(module, nn.Conv2d):
        return F.conv2d(steps(x), module.weight, module.bias, module.stride, module.padding).unflatten(0, x.shape[:2])
    assert isinstance(module, nn.BatchNorm2d)
    shape = (-1, 1, 1)
    assert module.running_mean is not None
    assert module.running_var is not None
    scale = module.weight / (module.running_var + module.eps).sqrt()
    return (x - module.running_mean.view(shape)) * scale.view(shape) + module.bias.view(shape)


def chained(modules: list[nn.Module], x: Tensor) -> Tensor:
    for module in modules:
        x = module(x) if isinstance(module, Neuron) else apply(module, x)
    return x


@pytest.mark.parametrize(("after", "stride"), [(6, 1), (6, 2), (4, 1)])
def test_a_pre_activation_block_is_the_formula_of_the_papers(after, stride):
    """`c_0 shortcut + c_1 conv(fire(norm(conv(a))))`, `a = fire(norm(x))`; a shortcut with weights sees `a`."""
    torch.manual_seed(0)
    block = shaken(PreActivation(Place(4, after, stride, True), NEURON).double())
    assert isinstance(block, PreActivation)
    with torch.no_grad():
        block.join.shares.copy_(torch.tensor([0.3, 0.9]))
    x = 2 * torch.rand(3, 2, 4, 7, 7, dtype=torch.float64)
    (norm, fire), (conv1, norm2, fire2, conv2) = block.before, block.body
    a = chained([norm, fire], x)
    shortcut = x if block.shortcut is None else chained([block.shortcut], a)
    assert (block.shortcut is None) == (after == 4)
    h = chained([conv1, norm2, fire2, conv2], a)
    assert a.any()
    assert h.any()
    assert h.shape[-1] == (7 + stride - 1) // stride
    torch.testing.assert_close(block(x), 0.3 * shortcut + 0.9 * h)


@pytest.mark.parametrize("join", ["sum", "convex"])
def test_a_basic_block_is_the_formula_of_the_papers(join):
    """`fire(norm(conv(fire(norm(conv(x))))) + norm(conv1x1(x)))`."""
    torch.manual_seed(0)
    model = ResNet((2, 9, 9), 3, NEURON, (2,), (2,), 4, join, "first").double()
    shaken(model)
    first, second = model.blocks
    assert isinstance(first, Residual)
    assert isinstance(second, Residual)
    x = torch.rand(3, 2, 4, 9, 9, dtype=torch.float64)
    for block, strided in ((first, True), (second, False)):
        shortcut = chained([*block.shortcut.children()], x)
        shares = (1, 1) if join == "sum" else (0.5, 0.5)
        expected = block.out(shares[0] * shortcut + shares[1] * chained([*block.body.children()], x))
        assert expected.any()
        assert len([*block.shortcut.children()]) == (2 if strided else 0)
        assert torch.equal(block(x), expected)
        x = expected


def test_shares_begin_equal_and_learn():
    join = ConvexCombination()
    a, b = torch.tensor([2.0]), torch.tensor([6.0])
    join(a, b).sum().backward()
    assert join(a, b).item() == 4
    assert join.shares.grad is not None
    assert join.shares.grad.tolist() == [2, 6]


def test_the_hidden_layer_of_rga_has_batch_norm_and_no_neuron():
    model = ResNet((3, 20, 16), 5, NEURON, (1, 1), (1, 2), 4, "sum", "first", hidden=7)
    kinds = [nn.AvgPool2d, nn.Flatten, nn.Linear, nn.BatchNorm1d, nn.Linear]
    assert all(isinstance(one, kind) for one, kind in zip(model.classifier, kinds, strict=True))
    assert model.classifier[2].in_features == 8 * 5 * 4
    assert model(torch.rand(2, 3, 3, 20, 16)).shape == (2, 3, 5)


@pytest.mark.parametrize("side", [1, 2, 5, 8, 33])
@pytest.mark.parametrize(
    "make",
    [
        partial(WideResNet, blocks=(1, 1), width=2, stem=2),
        partial(ResNet, blocks=(1, 1), strides=(1, 2), width=2),
        partial(SEWResNet, blocks=(1, 1), width=2, stem_width=2),
        partial(SpikingResNet, blocks=(1, 1), block="bottleneck", width=2, stem_width=2, stem="cifar", pool="none"),
    ],
    ids=lambda make: make.func.__name__,
)
def test_pictures_of_any_size_are_averaged(make, side):
    model = make((2, side, side + 1), 3, NEURON)
    assert model(torch.rand(2, 4, 2, side, side + 1)).shape == (2, 4, 3)


@pytest.mark.parametrize("family", [SEWResNet, SpikingResNet])
def test_the_stem_is_the_one_that_was_asked_for(family):
    sizes = {}
    for stem in ("imagenet", "cifar"):
        for pool in ("max", "avg", "none"):
            model = family((3, 32, 32), 4, NEURON, (1,), width=4, stem=stem, stem_width=5, pool=pool)
            kinds = [type(module).__name__ for module in model.stem]
            assert kinds[:3] == ["Conv2d", "BatchNorm2d", "IF"]
            assert kinds[3:] == {"max": ["MaxPool2d"], "avg": ["AvgPool2d"], "none": []}[pool]
            sizes[stem, pool] = model.stem(torch.rand(1, 2, 3, 32, 32)).shape[2:]
    assert sizes["imagenet", "max"] == sizes["imagenet", "avg"] == (5, 8, 8)
    assert sizes["imagenet", "none"] == sizes["cifar", "max"] == sizes["cifar", "avg"] == (5, 16, 16)
    assert sizes["cifar", "none"] == (5, 32, 32)


def test_spikes_of_a_sew_block_add_up_to_integers():
    torch.manual_seed(0)
    model = shaken(SEWResNet((2, 8, 8), 3, NEURON, (3,), width=4, stem="cifar", stem_width=4, pool="none"))
    assert isinstance(model, SEWResNet)
    values = model.blocks(model.stem(4 * torch.rand(3, 4, 2, 8, 8))).unique().tolist()
    assert set(values) <= {0, 1, 2, 3, 4}
    assert max(values) > 1


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"^model\.strides: got 2 of them; allowed: one for each of 3 stages$"):
        ResNet((3, 32, 32), 10, NEURON, (1, 1, 1), (1, 2))
    small = r"^model\.strides: got 1x2 before the last 2x2 pooling; allowed: at least 2x2$"
    with pytest.raises(ValueError, match=small):
        ResNet((3, 3, 5), 10, NEURON, (1, 1), (2, 2), hidden=4)
    with pytest.raises(ValueError, match=r"^model: got 8x30; allowed: at least 9x9$"):
        CNNDVS((2, 8, 30), 10, NEURON)
    assert CNNDVS((2, 9, 9), 10, NEURON, (2, 2), 3)(torch.rand(1, 2, 2, 9, 9)).shape == (1, 2, 10)
