"""Neurons against SpikingJelly's, against numbers worked by hand, and against the written recursion."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import neuron as reference
from torch import Tensor, nn

from snnrobust.estimators.surrogate import TRAINED
from snnrobust.spiking.neuron import IF, LIF, Neuron
from snnrobust.spiking.neurons.plif import PLIF
from snnrobust.spiking.surrogate import atan, exponential, gaussian, rectangle, sigmoid, straight_through, triangle

BOTH = (False, True)
SURROGATES = {
    "triangle": triangle(),
    "sigmoid": sigmoid(),
    "atan": atan(),
    "rectangle": rectangle(1.5),
    "exponential": exponential(),
    "gaussian": gaussian(),
    "straight_through": straight_through(),
}


def spikes_and_gradient(layer: nn.Module, current: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """With respect to the current; of one step `[1, ...]`, that is repeated, to this step."""
    current = current.detach().requires_grad_()
    spikes = layer(current.expand_as(weight))
    return spikes.detach(), torch.autograd.grad((spikes * weight).sum(), current)[0]


def under_a_rule(neuron: Neuron) -> Neuron:
    """With the rule of the trained gradient, as during attacks; in our own autograd function."""
    neuron.rule = TRAINED.rule()
    return neuron


def draws(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    current, weight = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return (2 * current).to(dtype), weight.to(dtype)


REST = {"hard": 0.0, "soft": None}
"""What SpikingJelly calls the resets."""


def lifs(detach: bool, decay_input: bool, tau: float, reset: Any, surrogate: str) -> tuple[LIF, nn.Module]:
    """Ours and SpikingJelly's stateful one."""
    stateful = reference.LIFNode(
        surrogate_function=SURROGATES[surrogate].spike, v_threshold=0.75, v_reset=REST[reset], step_mode="m",
        tau=tau, decay_input=decay_input, detach_reset=detach,
    )  # fmt: skip
    return LIF(SURROGATES[surrogate], tau, 0.75, decay_input, detach, reset), stateful


def plifs(detach: bool, decay_input: bool, tau: float, reset: Any, surrogate: str) -> tuple[PLIF, nn.Module]:
    stateful = reference.ParametricLIFNode(
        surrogate_function=SURROGATES[surrogate].spike, v_threshold=0.75, v_reset=REST[reset], step_mode="m",
        init_tau=tau, decay_input=decay_input, detach_reset=detach,
    )  # fmt: skip
    return PLIF(SURROGATES[surrogate], tau, 0.75, decay_input, detach, reset), stateful


def ifs(detach: bool, reset: Any, surrogate: str) -> tuple[IF, nn.Module]:
    stateful = reference.IFNode(
        surrogate_function=SURROGATES[surrogate].spike, v_threshold=0.75, v_reset=REST[reset], step_mode="m",
        detach_reset=detach,
    )  # fmt: skip
    return IF(SURROGATES[surrogate], 0.75, detach, reset), stateful


SOME = ("triangle", "sigmoid", "rectangle")
"""A derivative that the kernels compute and SpikingJelly has; one that only it has; one that only they have."""
PAIRS: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    *((lifs, args) for args in product(BOTH, BOTH, (2.0, 3.7), ["hard"], SURROGATES)),
    *((ifs, args) for args in product(BOTH, ["hard"], SURROGATES)),
    *((lifs, args) for args in product(BOTH, BOTH, [3.7], ["soft"], SOME)),
    *((ifs, args) for args in product(BOTH, ["soft"], SOME)),
    *((plifs, args) for args in product(BOTH, BOTH, [3.7], REST, SOME)),
]
every_pair = pytest.mark.parametrize(("pair", "args"), PAIRS, ids=[f"{f.__name__}-{args}" for f, args in PAIRS])


@every_pair
def test_neurons_equal_the_stateful_ones(pair, args):
    neuron, stateful = pair(*args)
    current, weight = draws((7, 5, 3, 4))
    spikes, gradient = spikes_and_gradient(neuron, current, weight)
    expected, expected_gradient = spikes_and_gradient(stateful, current, weight)
    assert 0.05 < spikes.mean() < 0.95
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("args", [*product(BOTH, BOTH, (1.3, 3.7), REST, SOME)], ids=str)
def test_the_learned_time_constant_has_the_gradient_of_the_stateful_one(args):
    found = []
    for layer in plifs(*args):
        current, weight = draws((7, 5, 3))
        layer.double()
        assert float(1 / layer.get_parameter("w").detach().sigmoid()) == pytest.approx(args[2])
        (layer(current) * weight).sum().backward()
        found.append(layer.get_parameter("w").grad)
    assert found[0] != 0
    torch.testing.assert_close(*found, rtol=1e-9, atol=0)


@every_pair
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 2e-5), (torch.float64, 1e-12)], ids=["float32", "float64"])
def test_the_trained_gradient_is_that_of_the_operators(pair, args, dtype, atol):
    """Contiguous, channels-last, and equal at every step; the spikes bit for bit."""
    neuron = pair(*args)[0].to(dtype)
    current, weight = draws((6, 2, 3, 4, 5), dtype)
    last = current.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (6, 2))
    for given in (current, last, current[:1], last[:1]):
        neuron.rule = None
        expected, expected_gradient = spikes_and_gradient(neuron, given, weight)
        spikes, gradient = spikes_and_gradient(under_a_rule(neuron), given, weight)
        assert torch.equal(spikes, expected)
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient, expected_gradient, atol=atol, rtol=atol)


CURRENT = [0.5, 0.5, 0.5, 0.75, 1.0, -0.5, 0.5, 1.25, 0.375]


def spikes_of(neuron: Neuron, current: list[float]) -> list[float]:
    spikes: list[float] = neuron(torch.tensor(current).view(-1, 1)).flatten().tolist()
    return spikes


def test_lif_on_nine_steps_by_hand():
    # u = 0.5 0.75 0.875 1.1875* 1.0* -0.5 0.25 1.375* 0.375, with v = u / 2 carried over and 0 after a spike (*)
    assert spikes_of(LIF(triangle()), CURRENT) == [0, 0, 0, 1, 1, 0, 0, 1, 0]


def test_lif_with_decayed_input_on_nine_steps_by_hand():
    # u = 0.25 0.375 0.4375 0.59375 0.796875 0.1484.. 0.324.. 0.787.. 0.581..: no spike; with twice the current:
    # u = 0.5 0.75 0.875 1.1875* 1.0* -0.5 0.25 1.375* 0.375
    neuron = LIF(triangle(), decay_input=True)
    assert spikes_of(neuron, CURRENT) == [0] * 9
    assert spikes_of(neuron, [2 * i for i in CURRENT]) == [0, 0, 0, 1, 1, 0, 0, 1, 0]


def test_if_on_nine_steps_by_hand():
    # u = 0.5 1.0* 0.5 1.25* 1.0* -0.5 0.0 1.25* 0.375
    assert spikes_of(IF(triangle()), CURRENT) == [0, 1, 0, 1, 1, 0, 0, 1, 0]


def test_soft_reset_on_nine_steps_by_hand():
    # u = 0.5 1.0* 0.5 1.25* 1.25* -0.25 0.25 1.5* 0.875, the threshold subtracted after a spike
    assert spikes_of(IF(triangle(), reset="soft"), CURRENT) == [0, 1, 0, 1, 1, 0, 0, 1, 0]
    # u = 0.5 0.75 0.875 1.1875* 1.09375* -0.453125 0.2734375 1.38671875* 0.568359375, half of it carried over
    assert spikes_of(LIF(triangle(), reset="soft"), CURRENT) == [0, 0, 0, 1, 1, 0, 0, 1, 0]


def recursion(current: list[float], weight: list[float], leak: float, detach: bool) -> list[float]:
    """`dL/di` for `L = sum_t weight_t s_t`: hard reset to 0, threshold 1, triangle of width 1; plain numbers."""
    membranes, spikes, v = [], [], 0.0
    for i in current:
        u = leak * v + i
        s = 1.0 if u >= 1 else 0.0
        v = (1 - s) * u
        membranes.append(u)
        spikes.append(s)
    gradient, dv = [0.0] * len(current), 0.0
    for t in reversed(range(len(current))):
        u, s = membranes[t], spikes[t]
        g = max(0.0, 1 - abs(u - 1))
        du = weight[t] * g + dv * ((1 - s) - (0.0 if detach else u * g))
        gradient[t] = du
        dv = leak * du
    return gradient


THREE = [0.75, 0.75, 0.5]
"""Leak 1/2: u = 0.75, 1.125 (a spike), 0.5."""
BY_HAND = {
    # g = 0.75, 0.875, 0.5 and L = s_1 + 2 s_2 + 3 s_3.
    # du_3 = 1.5; du_2 = 1.75 + 0.75 (0 - 1.125 * 0.875) = 1.01171875 (1.75 detached);
    # du_1 = 0.75 + du_2 / 2 (1 - 0.75 * 0.75) = 0.75 + 0.21875 du_2 (0.75 + du_2 / 2 detached)
    False: [0.75 + 0.21875 * 1.01171875, 1.01171875, 1.5],
    True: [1.625, 1.75, 1.5],
}


@pytest.mark.parametrize(("detach", "dtype"), [*product(BOTH, (torch.float32, torch.float64))])
def test_three_steps_have_the_gradient_worked_by_hand(detach, dtype):
    weight = [1.0, 2.0, 3.0]
    assert recursion(THREE, weight, 0.5, detach) == pytest.approx(BY_HAND[detach], abs=1e-15)
    neuron = LIF(triangle(), detach_reset=detach)
    given = [torch.tensor(numbers, dtype=dtype).view(-1, 1) for numbers in (THREE, weight)]
    for layer in (neuron, under_a_rule(neuron)):
        spikes, gradient = spikes_and_gradient(layer, *given)
        assert spikes.flatten().tolist() == [0, 1, 0]
        assert gradient.flatten().tolist() == pytest.approx(BY_HAND[detach], abs=1e-6)


@pytest.mark.parametrize(("detach", "leak"), [*product(BOTH, (1.0, 0.5, 0.2))])
def test_the_gradient_follows_the_recursion(detach, leak):
    generator = torch.Generator().manual_seed(2)
    current, weight = 1.5 * torch.rand(2, 12, 1, generator=generator, dtype=torch.float64)
    shared = {"surrogate": triangle(), "detach_reset": detach}
    neuron = IF(**shared) if leak == 1 else LIF(tau=1 / (1 - leak), **shared)
    expected = recursion(current.flatten().tolist(), weight.flatten().tolist(), leak, detach)
    for layer in (neuron, under_a_rule(neuron)):
        _, gradient = spikes_and_gradient(layer, current, weight)
        assert gradient.flatten().tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("neuron", [LIF(triangle()), IF(triangle()), under_a_rule(LIF(triangle()))])
def test_a_second_call_starts_at_rest(neuron):
    current = torch.full((3, 2, 4), 0.4)
    assert torch.equal(neuron(current), neuron(current))
