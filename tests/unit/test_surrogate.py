"""Surrogate derivatives against their formulas in plain numbers, their integrals, and the spikes they differentiate."""

import math
from collections.abc import Callable

import pytest
import torch

from snnrobust.spiking.surrogate import (
    Surrogate,
    atan,
    exponential,
    gaussian,
    linear,
    rectangle,
    sigmoid,
    straight_through,
    triangle,
)

SHAPES: dict[str, tuple[Callable[..., Surrogate], Callable[..., float]]] = {
    "triangle": (triangle, lambda q, w: max(0.0, w - abs(q)) / w**2),
    "sigmoid": (sigmoid, lambda q, s: s * math.exp(-s * q) / (1 + math.exp(-s * q)) ** 2),
    "atan": (atan, lambda q, a: (a / 2) / (1 + (math.pi * a * q / 2) ** 2)),
    "linear": (linear, lambda q, h, w: h * max(0.0, 1 - abs(q) / w)),
    "exponential": (exponential, lambda q, h, d: h * math.exp(-d * abs(q))),
    "rectangle": (rectangle, lambda q, w: (abs(q) < w / 2) / w),
    "gaussian": (gaussian, lambda q, a: a / math.sqrt(2 * math.pi) * math.exp(-((a * q) ** 2) / 2)),
    "straight_through": (straight_through, lambda q: 1.0),
}
CASES = [
    *((name, (p,)) for name in ("triangle", "sigmoid", "atan", "rectangle", "gaussian") for p in (0.25, 1.0, 2.0, 4.0)),
    *(("exponential", (height, decay)) for height in (0.3, 1.0) for decay in (0.5, 1.0, 2.0)),
    *(("linear", (height, width)) for height in (0.3, 1.0) for width in (0.5, 1.0)),
    ("straight_through", ()),
]
every_case = pytest.mark.parametrize(("name", "parameters"), CASES)


@every_case
def test_the_derivative_follows_its_formula(name, parameters):
    build, formula = SHAPES[name]
    q = torch.linspace(-3, 3, 240, dtype=torch.float64)
    expected = [formula(float(entry), *parameters) for entry in q]
    assert build(*parameters).derivative(q).tolist() == pytest.approx(expected, abs=1e-12)


@every_case
def test_the_derivative_is_that_of_the_spike(name, parameters):
    """Which the network trains with; it is SpikingJelly's for some shapes."""
    surrogate = SHAPES[name][0](*parameters)
    q = torch.linspace(-3, 3, 240, dtype=torch.float64, requires_grad=True)
    weight = torch.linspace(-1, 2, 240, dtype=torch.float64)
    found = torch.autograd.grad((surrogate.spike(q) * weight).sum(), q)[0]
    torch.testing.assert_close(found, weight * surrogate.derivative(q.detach()), atol=1e-9, rtol=0)


@pytest.mark.parametrize(("name", "parameters"), [case for case in CASES if case[0] != "straight_through"])
def test_it_integrates_to_what_its_definition_says(name, parameters):
    # The substitution q = sinh(p) reaches far into the tails of atan. Rectangles have their edges on no grid point.
    p = torch.linspace(-16.0001, 16, 800_001, dtype=torch.float64)
    area = torch.trapezoid(SHAPES[name][0](*parameters).derivative(p.sinh()) * p.cosh(), p)
    integrals = {
        "exponential": lambda height, decay: 2 * height / decay,
        "linear": lambda height, width: height * width,
    }
    expected = integrals[name](*parameters) if name in integrals else 1.0
    assert float(area) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spikes_begin_at_the_threshold(name, dtype):
    q = torch.tensor([-1e-6, 0.0, 1e-6], dtype=dtype)
    spikes = SHAPES[name][0]().spike(q)
    assert spikes.tolist() == [0, 1, 1]
    assert spikes.dtype == dtype


@pytest.mark.parametrize("name", SHAPES)
def test_the_argument_is_not_written_to(name):
    q = torch.linspace(-2, 2, 9)
    before = q.clone()
    SHAPES[name][0]().derivative(q)
    assert torch.equal(q, before)


def test_equal_parameters_are_equal_surrogates():
    assert triangle(0.5) == triangle(0.5) != triangle(1.0) != rectangle(1.0)
    assert len({triangle(0.5), triangle(0.5), triangle(1.0)}) == 2
