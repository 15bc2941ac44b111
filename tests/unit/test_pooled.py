"""Neurons and the average pooling behind them as one kernel, against one after the other."""

from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snnrobust.estimators.assg import ASSG
from snnrobust.estimators.base import LayerEstimator
from snnrobust.estimators.hart import HART
from snnrobust.estimators.pdsg import PDSG
from snnrobust.estimators.rate import BPTR, RateGradient
from snnrobust.estimators.surrogate import TRAINED, Surrogate
from snnrobust.models.layers import AvgPool2d, Conv2d, Flatten, MaxPool2d
from snnrobust.spiking import kernels
from snnrobust.spiking.classifier import Normalize, SpikingClassifier
from snnrobust.spiking.dynamics import IntegrateAndFire, ParametricLeak
from snnrobust.spiking.encoder import Direct
from snnrobust.spiking.fuse import fused
from snnrobust.spiking.neuron import IF, LIF, Neuron
from snnrobust.spiking.neurons.plif import PLIF
from snnrobust.spiking.neurons.recurrent import Recurrent
from snnrobust.spiking.pooled import Chain, Pooled
from snnrobust.spiking.recording import recorded
from snnrobust.spiking.surrogate import sigmoid, triangle
from snnrobust.threat import Bounds

DYNAMICS = [
    IntegrateAndFire(0.7),
    IntegrateAndFire(1.0, 3.7, decay_input=True),
    IntegrateAndFire(0.3, 2.0, detach_reset=True),
    IntegrateAndFire(0.3, 3.7, reset="soft"),
    ParametricLeak(torch.tensor(0.27), 0.7, False, False, "hard"),
]
SHAPES = [(1, 1, 1, 2, 2), (4, 3, 5, 4, 6), (3, 2, 17, 8, 2)]
every_case = pytest.mark.parametrize(
    ("dynamics", "shape", "dtype"), [*product(DYNAMICS, SHAPES, [torch.float32, torch.bfloat16])], ids=str
)


def draws(*shape: int, number: int = 0) -> Tensor:
    return 1.2 * torch.randn(*shape, generator=torch.Generator().manual_seed(number))


def places(x: Tensor) -> list[Tensor]:
    """The same values in other places of the memory."""
    last = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    return [x, last, x.transpose(0, 1).contiguous().transpose(0, 1), torch.stack([x, x], -1)[..., 0]]


def pool(spikes: Tensor) -> Tensor:
    return F.avg_pool2d(spikes.flatten(0, 1), 2).unflatten(0, spikes.shape[:2])


def spread(grad: Tensor) -> Tensor:
    """The gradient of `pool`."""
    return grad.repeat_interleave(2, 3).repeat_interleave(2, 4) / 4


@every_case
@pytest.mark.parametrize("constant", [False, True])
def test_pooled_spikes_are_those_of_the_neurons_pooled(dynamics, shape, dtype, constant):
    current = draws(1 if constant else shape[0], *shape[1:]).to(dtype)
    u, spikes = kernels.fire(current, shape[0], dynamics)
    assert 0 < spikes.float().mean() < 1 or spikes.numel() < 10
    for given in places(current):
        found = kernels.fire_pooled(given, shape[0], dynamics)
        assert torch.equal(found[0], u)
        assert torch.equal(found[1], pool(spikes))
        assert found[1].dtype == dtype


@every_case
@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("surrogate", [triangle(), sigmoid()], ids=["inline", "given"])
def test_the_gradient_of_pooled_spikes_is_spread_over_them(dynamics, shape, dtype, summed, surrogate):
    u, pooled = kernels.fire_pooled(draws(*shape).to(dtype), shape[0], dynamics)
    slope = None if surrogate.name in kernels.INLINE else surrogate.derivative(u - dynamics.threshold)
    grad = draws(*pooled.shape, number=1).to(dtype)
    expected = kernels.through_time(spread(grad), u, dynamics, surrogate, slope, summed)
    assert expected.any()
    for given in places(grad):
        assert torch.equal(kernels.through_time(given, u, dynamics, surrogate, slope, summed), expected)


RULES: list[LayerEstimator] = [
    TRAINED, Surrogate(sigmoid()), BPTR(), RateGradient(), HART(), PDSG(), ASSG(),
]  # fmt: skip


NEURONS = [LIF(triangle()), IF(triangle(), 0.7, reset="soft"), PLIF(triangle(), 3.0), Recurrent(triangle())]


@pytest.mark.parametrize("estimator", RULES, ids=lambda estimator: type(estimator).__name__)
@pytest.mark.parametrize("sides", [(6, 4), (5, 4), (4, 7)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("neuron", NEURONS, ids=str)
def test_every_rule_differentiates_the_joined_layers_as_one_after_the_other(estimator, sides, dtype, neuron):
    """Also where the kernel does not apply: odd sides, double precision."""
    pooling = AvgPool2d(2)
    results = []
    for network, steps in product((nn.Sequential(neuron, pooling), Pooled(neuron, pooling)), (None, 5)):
        neuron.rule = estimator.rule()
        current = draws(*((5, 3, 2, *sides) if steps is None else (1, 3, 2, *sides))).to(dtype).requires_grad_()
        out = network(current if steps is None else current.expand(steps, -1, -1, -1, -1))
        weight = draws(*out.shape, number=1).to(dtype)
        results.append((out.detach(), torch.autograd.grad((out * weight).sum(), current)[0]))
    neuron.rule = None
    for (out, slope), (joined, joined_slope) in zip(results[:2], results[2:], strict=True):
        assert torch.equal(joined, out)
        assert slope.any()
        torch.testing.assert_close(joined_slope, slope, atol=1e-5 * float(slope.abs().max()), rtol=0)


POOLS = [
    (AvgPool2d(2), True),
    (AvgPool2d((2, 2), (2, 2)), True),
    (AvgPool2d(2, ceil_mode=True), True),
    (AvgPool2d(2, stride=1), False),
    (AvgPool2d((2, 1)), False),
    (AvgPool2d(2, padding=1), False),
    (AvgPool2d(2, divisor_override=3), False),
    (MaxPool2d(2), False),
]


@pytest.mark.parametrize(("pooling", "joined"), POOLS, ids=[str(pooling) for pooling, _ in POOLS])
@pytest.mark.parametrize("side", [6, 7])
def test_a_fused_network_joins_plain_pooling_alone_and_gives_the_same_logits(pooling, joined, side):
    torch.manual_seed(0)
    convolution = Conv2d(1, 3, 3, padding=1)
    backbone = nn.Sequential(convolution, LIF(triangle()), pooling, Flatten())
    model = SpikingClassifier(backbone, Direct(4), Normalize((0.5,), (0.2,)), Bounds()).eval()
    arranged, x = fused(model), torch.rand(3, 1, side, side)
    assert any(isinstance(module, Pooled) for module in arranged.modules()) == joined
    assert sum(isinstance(module, Neuron) for module in arranged.modules()) == 1
    with torch.no_grad(), TRAINED.applied(arranged) as view:
        assert view(x).any()
        torch.testing.assert_close(view(x), model(x), atol=1e-6, rtol=0)


# --- a chain of layers


FRESH = [
    partial(LIF, triangle()), partial(IF, triangle(), 0.7, reset="soft"), partial(PLIF, triangle(), 3.0),
    partial(Recurrent, triangle()),
]  # fmt: skip


def chains(neuron: Neuron) -> list[nn.Sequential]:
    """The same layers one after the other, and as a chain."""
    torch.manual_seed(0)
    first, second = Conv2d(1, 6, 3, padding=1), Conv2d(6, 6, 3, padding=1)
    with torch.no_grad():
        first.weight.mul_(4)
        second.weight.mul_(16)
    layers = [first, neuron, AvgPool2d(2), second, neuron, AvgPool2d(2)]
    return [nn.Sequential(*layers), Chain(*layers)]


def seen(network: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, gradient to the input, gradients to the parameters."""
    x = x.clone().requires_grad_()
    out = network(x)
    weight = draws(*out.shape, number=1).to(out)
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), [x, *network.parameters()])]


@pytest.mark.parametrize("sides", [(8, 8), (8, 12), (10, 8), (9, 7)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("neuron", FRESH, ids=lambda made: made.func.__name__)
def test_a_chain_computes_what_its_layers_do(neuron, sides, dtype):
    (plain, chain), x = chains(neuron()), draws(5, 3, 1, *sides).to(dtype)
    expected = seen(plain.to(dtype), x)
    assert all(values.any() for values in expected)
    for got, wanted in zip(seen(chain.to(dtype), x), expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=0)


def test_a_chain_joins_neurons_and_pooling_and_keeps_their_names(monkeypatch):
    plain, chain = chains(LIF(triangle()))
    assert plain.state_dict().keys() == chain.state_dict().keys()
    sizes, original = [], kernels.fire_pooled

    def noted(*args: Any) -> tuple[Tensor, Tensor]:
        sizes.append(args[0].shape[-2:])
        return original(*args)

    monkeypatch.setattr(kernels, "fire_pooled", noted)
    seen(chain, draws(5, 3, 1, 8, 8))
    assert sizes == [(8, 8), (4, 4)]


def test_layers_of_a_chain_that_are_watched_run_by_themselves():
    _, chain = chains(LIF(triangle()))
    x, sizes = draws(5, 3, 1, 8, 8), []
    expected = chain(x)
    handle = chain[1].register_forward_hook(lambda _module, _inputs, spikes: sizes.append(spikes.shape[-2:]))
    torch.testing.assert_close(chain(x), expected)
    assert sizes == [(8, 8), (4, 4)]  # the neuron stands in it twice
    handle.remove()
    with recorded(chain) as layers:
        torch.testing.assert_close(chain(x), expected)
    assert [tuple(layer.spikes.shape[-2:]) for layer in layers] == [(8, 8), (4, 4)]
