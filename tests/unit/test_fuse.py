"""The network as arranged for attacks."""

from functools import partial

import pytest
import torch
from spikingjelly.activation_based import layer
from torch import Tensor, nn

from snnrobust.estimators.surrogate import TRAINED
from snnrobust.randomness import isolated, per_sample
from snnrobust.spiking.classifier import Normalize, SpikingClassifier
from snnrobust.spiking.encoder import Direct, Encoder, Frames, Poisson
from snnrobust.spiking.fuse import fused
from snnrobust.spiking.neuron import IF
from snnrobust.spiking.surrogate import triangle
from snnrobust.threat import Bounds
from tests.contracts.toys import assert_same, state_of

NEURON = partial(IF, surrogate=triangle())
POOLS = {"avg": layer.AvgPool2d, "max": layer.MaxPool2d}


class Backbone(nn.Module):
    def __init__(self, features: nn.Module, entries: int) -> None:
        super().__init__()
        self.features = features
        self.out = nn.Sequential(layer.Flatten(step_mode="m"), layer.Linear(entries, 4, step_mode="m"))

    def forward(self, sequence: Tensor) -> Tensor:
        logits: Tensor = self.out(self.features(sequence))
        return logits


def conv(before: int, after: int, bias: bool) -> list[nn.Module]:
    """Convolution and batch norm, with statistics and weights of its own."""
    norm = layer.BatchNorm2d(after, step_mode="m")
    for content, low, high in (
        (norm.weight, 0.5, 2),
        (norm.bias, -1, 1),
        (norm.running_mean, -1, 1),
        (norm.running_var, 0.2, 3),
    ):
        nn.init.uniform_(content, low, high)
    return [layer.Conv2d(before, after, 3, padding=1, bias=bias, step_mode="m"), norm]


def network(
    encoder: Encoder | None = None, bias: bool = False, pool: str = "avg", channels: int = 1
) -> SpikingClassifier:
    with isolated("fuse", 0):
        pooling = POOLS[pool](2, step_mode="m")
        features = nn.Sequential(
            *conv(channels, 4, bias), NEURON(), pooling, *conv(4, 6, bias), NEURON(), pooling, *conv(6, 6, bias)
        )  # one layer of pooling, used twice; a convolution without a neuron
        normalize = Normalize((0.4,) * channels, (0.3,) * channels)
        return SpikingClassifier(Backbone(features, 24), encoder or Direct(5), normalize, Bounds()).eval()


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def in_double(model: SpikingClassifier) -> SpikingClassifier:
    """So that rounding moves no potential across its threshold."""
    return model.double()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("code", ["direct", "frames"])
def test_logits_and_gradient_are_the_same(bias, pool, code):
    model = in_double(network(Frames(5), bias, pool, 2) if code == "frames" else network(Direct(5), bias, pool))
    x = images(*((7, 5, 2, 8, 8) if code == "frames" else (7, 1, 8, 8))).double()
    found = []
    for one in (model, fused(model)):
        with TRAINED.applied(one) as view:
            at = x.clone().requires_grad_()
            logits = view(at)
            found.append((logits.detach(), torch.autograd.grad(logits.square().sum(), at)[0]))
    assert found[0][0].std() > 0.1
    for got, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-10)


def test_batch_norms_are_gone_and_weights_lie_channels_last():
    arranged = fused(network())
    assert not [module for module in arranged.modules() if isinstance(module, nn.BatchNorm2d)]
    weights = [module.weight for module in arranged.modules() if isinstance(module, nn.Conv2d)]
    assert len(weights) == 3
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_a_code_that_draws_is_drawn_at_every_step():
    model, x = in_double(network(Poisson(5))), images(6, 1, 8, 8).double()
    found = []
    for one in (model, fused(model)):
        with per_sample(torch.arange(6), "draws"), torch.no_grad():
            found.append(one(x))
    torch.testing.assert_close(found[1], found[0], atol=1e-10, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_is_shared_with_the_model_and_nothing_changes_in_it(dtype):
    model = network().train()
    before, x = state_of(model), images(6, 1, 8, 8)
    arranged = fused(model, dtype)
    own = {tensor.data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    assert not own & {tensor.data_ptr() for tensor in [*arranged.parameters(), *arranged.buffers()]}
    assert not any(module.training for module in arranged.modules())
    assert not any(parameter.requires_grad for parameter in arranged.parameters())
    with torch.no_grad(), TRAINED.applied(arranged) as view:
        view(x)
        for parameter in arranged.parameters():
            parameter.zero_()
    assert_same(before, state_of(model))


def test_half_precision_rounds_the_logits_only_a_little():
    model, x = network(), images(64, 1, 8, 8)
    with torch.no_grad(), TRAINED.applied(fused(model, torch.bfloat16)) as view:
        found, expected = view(x), model(x)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    assert (found.argmax(1) == expected.argmax(1)).float().mean() > 0.9
