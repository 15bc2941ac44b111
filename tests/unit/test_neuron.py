"""Neurons against SpikingJelly's stateful ones, against numbers worked by hand, and against the written recursion."""

import math
from itertools import product

import pytest
import torch
from spikingjelly.activation_based import neuron as reference

from snnrobust.spiking.neuron import IF, LIF, Neuron
from snnrobust.spiking.surrogate import atan, sigmoid, triangle

BOTH = (False, True)
SURROGATES = {"triangle": triangle, "sigmoid": sigmoid, "atan": atan}
DERIVATIVES = {
    "triangle": lambda q, w: max(0.0, w - abs(q)) / w**2,
    "sigmoid": lambda q, s: s * math.exp(-s * q) / (1 + math.exp(-s * q)) ** 2,
    "atan": lambda q, a: (a / 2) / (1 + (math.pi * a * q / 2) ** 2),
}


def slope(surrogate, q: torch.Tensor) -> torch.Tensor:
    q = q.clone().requires_grad_()
    return torch.autograd.grad(surrogate(q).sum(), q)[0]


def spikes_and_gradient(neuron, current, weight):
    current = current.clone().requires_grad_()
    spikes = neuron(current)
    return spikes.detach(), torch.autograd.grad((spikes * weight).sum(), current)[0]


def assert_like(neuron: Neuron, stateful: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    current = 2 * torch.randn(7, 5, 3, 4, generator=generator, dtype=torch.float64)
    weight = torch.randn(7, 5, 3, 4, generator=generator, dtype=torch.float64)
    spikes, gradient = spikes_and_gradient(neuron, current, weight)
    expected, expected_gradient = spikes_and_gradient(stateful, current, weight)
    assert 0.05 < spikes.mean() < 0.95
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("surrogate", "detach", "decay_input", "tau"), [*product(SURROGATES, BOTH, BOTH, (2.0, 1.25))])
def test_lif_equals_the_stateful_lif(surrogate, detach, decay_input, tau):
    settings = {"tau": tau, "decay_input": decay_input, "detach_reset": detach}
    derivative = SURROGATES[surrogate]()
    stateful = reference.LIFNode(
        surrogate_function=derivative, v_threshold=0.75, v_reset=0.0, step_mode="m", **settings
    )
    assert_like(LIF(surrogate=derivative, threshold=0.75, **settings), stateful)


@pytest.mark.parametrize(("surrogate", "detach"), [*product(SURROGATES, BOTH)])
def test_if_equals_the_stateful_if(surrogate, detach):
    derivative = SURROGATES[surrogate]()
    stateful = reference.IFNode(
        surrogate_function=derivative, v_threshold=0.75, v_reset=0.0, detach_reset=detach, step_mode="m"
    )
    assert_like(IF(surrogate=derivative, threshold=0.75, detach_reset=detach), stateful)


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


@pytest.mark.parametrize("detach", BOTH)
def test_three_steps_have_the_gradient_worked_by_hand(detach):
    weight = [1.0, 2.0, 3.0]
    assert recursion(THREE, weight, 0.5, detach) == pytest.approx(BY_HAND[detach], abs=1e-15)
    spikes, gradient = spikes_and_gradient(
        LIF(triangle(), detach_reset=detach), torch.tensor(THREE).view(-1, 1), torch.tensor(weight).view(-1, 1)
    )
    assert spikes.flatten().tolist() == [0, 1, 0]
    assert gradient.flatten().tolist() == pytest.approx(BY_HAND[detach], abs=1e-6)


@pytest.mark.parametrize(("detach", "leak"), [*product(BOTH, (1.0, 0.5, 0.2))])
def test_the_gradient_follows_the_recursion(detach, leak):
    generator = torch.Generator().manual_seed(2)
    current, weight = 1.5 * torch.rand(2, 12, 1, generator=generator, dtype=torch.float64)
    shared = {"surrogate": triangle(), "detach_reset": detach}
    neuron = IF(**shared) if leak == 1 else LIF(tau=1 / (1 - leak), **shared)
    expected = recursion(current.flatten().tolist(), weight.flatten().tolist(), leak, detach)
    _, gradient = spikes_and_gradient(neuron, current, weight)
    assert gradient.flatten().tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("name", "parameter"), [*product(SURROGATES, (0.5, 1.0, 2.0, 4.0))])
def test_surrogates_match_their_formulas(name, parameter):
    q = torch.linspace(-3, 3, 241, dtype=torch.float64)
    expected = [DERIVATIVES[name](float(entry), parameter) for entry in q]
    assert slope(SURROGATES[name](parameter), q).tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("name", "parameter"), [*product(SURROGATES, (0.5, 1.0, 2.0, 4.0))])
def test_surrogates_integrate_to_one(name, parameter):
    # The substitution q = sinh(p) reaches far into the tails of atan.
    p = torch.linspace(-16, 16, 400_001, dtype=torch.float64)
    area = torch.trapezoid(slope(SURROGATES[name](parameter), p.sinh()) * p.cosh(), p)
    assert float(area) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", SURROGATES)
def test_surrogates_fire_at_the_threshold_and_above(name):
    assert SURROGATES[name]()(torch.tensor([-1e-6, 0.0, 1e-6])).tolist() == [0, 1, 1]


@pytest.mark.parametrize("neuron", [LIF(triangle()), IF(triangle())])
def test_a_second_call_starts_at_rest(neuron):
    current = torch.full((3, 2, 4), 0.4)
    assert torch.equal(neuron(current), neuron(current))
