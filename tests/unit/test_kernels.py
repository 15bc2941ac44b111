"""Compiled kernels against the plain dynamics."""

from itertools import product
from typing import Literal

import pytest
import torch
from torch import Tensor

from snnrobust.spiking import kernels
from snnrobust.spiking.dynamics import IntegrateAndFire, ParametricLeak
from snnrobust.spiking.machine import BLOCK
from snnrobust.spiking.surrogate import Surrogate, atan, rectangle, sigmoid, straight_through, triangle

RESETS: list[Literal["hard", "soft"]] = ["hard", "soft"]
DYNAMICS: list[kernels.Known] = [
    IntegrateAndFire(threshold, tau, decay_input, detach)
    for (tau, decay_input), threshold, detach in product(
        [(None, False), (2.0, False), (2.0, True), (3.7, False), (3.7, True)], [1.0, 0.3], [False, True]
    )
]
DYNAMICS += [
    IntegrateAndFire(0.3, tau, decay_input, detach, "soft")
    for (tau, decay_input), detach in product([(None, False), (3.7, False), (3.7, True)], [False, True])
]
DYNAMICS += [
    ParametricLeak(torch.tensor(0.27), 0.3, *flags, reset)
    for flags, reset in product([(False, False), (True, True)], RESETS)
]
SIZES = [1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5]
SURROGATES = [triangle(1.0), triangle(0.3), rectangle(0.5), straight_through(), atan(2.0), sigmoid(4.0)]
every_dynamics = pytest.mark.parametrize("dynamics", DYNAMICS, ids=str)


def draws(*shape: int, number: int = 0) -> Tensor:
    return 1.2 * torch.randn(*shape, generator=torch.Generator().manual_seed(number))


def through_time(
    grad: Tensor, u: Tensor, dynamics: kernels.Known, surrogate: Surrogate, summed: bool = False
) -> Tensor:
    """As `Trace.through_time` calls it."""
    inline = surrogate.name in kernels.INLINE
    slope = None if inline else surrogate.derivative(u - dynamics.threshold)
    return kernels.through_time(grad, u, dynamics, surrogate if inline else None, slope, summed)


def expected_through_time(grad: Tensor, u: Tensor, dynamics: kernels.Known, surrogate: Surrogate) -> Tensor:
    """In double precision, from the float32 potentials."""
    q = (u - dynamics.threshold).double()
    return dynamics.through_time(grad.double(), u.double(), surrogate.derivative(q))


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected, atol=1e-6 * max(1.0, float(expected.abs().max())), rtol=0)


@every_dynamics
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("steps", [1, 6])
def test_the_forward_pass_is_the_same_bit_for_bit(dynamics, size, steps):
    current = draws(steps, 1, size)
    u, s = kernels.fire(current, steps, dynamics)
    assert torch.equal(u, dynamics.potentials(current, steps))
    assert torch.equal(s, (u >= dynamics.threshold).float())
    constant = kernels.fire(current[:1], steps, dynamics)
    repeated = kernels.fire(current[:1].repeat(steps, 1, 1), steps, dynamics)
    assert all(torch.equal(*pair) for pair in zip(constant, repeated, strict=True))


@every_dynamics
@pytest.mark.parametrize("surrogate", SURROGATES, ids=[f"{s.name}{s.parameters}" for s in SURROGATES])
def test_the_backward_pass_is_the_same(dynamics, surrogate):
    for size, steps in ((1, 1), (BLOCK + 1, 5)):
        u, _ = kernels.fire(draws(steps, 1, size), steps, dynamics)
        grad = draws(steps, 1, size, number=1)
        assert_close(through_time(grad, u, dynamics, surrogate), expected_through_time(grad, u, dynamics, surrogate))


@pytest.mark.parametrize("size", SIZES)
def test_summed_over_time_is_the_sum_over_time(size):
    dynamics, steps = IntegrateAndFire(1.0, 3.7, decay_input=True), 5
    u, _ = kernels.fire(draws(1, 1, size), steps, dynamics)
    grad = draws(steps, 1, size, number=1)
    for surrogate in (triangle(), sigmoid()):
        summed = through_time(grad, u, dynamics, surrogate, summed=True)
        assert summed.shape == (1, 1, size)
        assert_close(summed, expected_through_time(grad, u, dynamics, surrogate).sum(0, keepdim=True))


def layouts(x: Tensor) -> dict[str, Tensor]:
    """The same values in other places of the memory."""
    steps, batch = x.shape[:2]
    last = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (steps, batch))
    return {
        "channels last": last,
        "batch first": x.transpose(0, 1).contiguous().transpose(0, 1),
        "with gaps": torch.stack([x, x], -1)[..., 0],
        "reversed": x.flip(0).flip(0).permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0),
    }


def test_the_place_in_memory_does_not_matter():
    dynamics, steps = IntegrateAndFire(1.0, 2.0), 4
    current, grad = draws(steps, 3, 5, 4, 2), draws(steps, 3, 5, 4, 2, number=1)
    expected, _ = kernels.fire(current, steps, dynamics)
    di = through_time(grad, expected, dynamics, sigmoid())
    for name, given in layouts(current).items():
        u, s = kernels.fire(given, steps, dynamics)
        assert torch.equal(u, expected), name
        assert s.stride() == u.stride(), name
        for weight in layouts(grad).values():
            assert torch.equal(through_time(weight, u, dynamics, sigmoid()), di), name
    assert (
        layouts(current)["channels last"].stride()
        == kernels.fire(layouts(current)["channels last"], 4, dynamics)[0].stride()
    )


def test_a_gradient_that_is_one_number_may_be_given_as_such():
    dynamics = IntegrateAndFire(1.0, 2.0)
    u, _ = kernels.fire(draws(4, 2, 9), 4, dynamics)
    found = through_time(torch.ones(()).expand(4, 2, 9), u, dynamics, triangle())
    assert torch.equal(found, through_time(torch.ones(4, 2, 9), u, dynamics, triangle()))


@every_dynamics
def test_half_precision_is_converted_and_nothing_else(dynamics):
    """Currents and gradients come in bfloat16; membranes are those of the converted currents in float32."""
    current, grad = draws(5, 1, BLOCK + 3).bfloat16(), draws(5, 1, BLOCK + 3, number=1).bfloat16()
    u, s = kernels.fire(current, 5, dynamics)
    expected, spikes = kernels.fire(current.float(), 5, dynamics)
    assert (u.dtype, s.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(u, expected)
    assert torch.equal(s, spikes.bfloat16())
    for surrogate, summed in product((triangle(), sigmoid()), (False, True)):
        found = through_time(grad, u, dynamics, surrogate, summed)
        assert torch.equal(found, through_time(grad.float(), u, dynamics, surrogate, summed).bfloat16())


def test_the_kernels_are_for_the_processor_and_its_types():
    dynamics = IntegrateAndFire(1.0)
    assert kernels.fits(dynamics, torch.zeros(2, 3))
    assert kernels.fits(dynamics, torch.zeros(2, 3, dtype=torch.bfloat16))
    assert not kernels.fits(dynamics, torch.zeros(2, 3, dtype=torch.float64))
    assert not kernels.fits(dynamics, torch.zeros(2, 0))
    assert not kernels.fits(dynamics, torch.zeros(2, 3, device="meta"))
