"""The balls on hand-worked points, and how their random points are spread."""

import math

import pytest
import torch

from snnrobust.threat import L2, Bounds, Linf, Threat

BOUNDS = Bounds(0.0, 1.0)
WIDE = Bounds(-1e38, 1e38)


def test_bounds_have_a_width_and_clip():
    bounds = Bounds(-1.0, 3.0)
    assert bounds.width == 4
    assert bounds.clip(torch.tensor([-2.0, 0.5, 4.0])).tolist() == [-1.0, 0.5, 3.0]


def test_the_start_maps_the_unit_box_onto_the_ball_and_stays_inside_the_bounds():
    x = torch.tensor([[0.5, 0.5, 0.5, 0.0, 1.0]])
    unit = torch.tensor([[0.0, 0.5, 1.0, 0.0, 1.0]])
    assert Linf(0.25).start(x, unit, BOUNDS).tolist() == [[0.25, 0.5, 0.75, 0.0, 1.0]]


def test_ascent_is_the_sign_and_zero_stays_zero():
    gradient = torch.tensor([[-3.0, 0.0, 1e-30, math.nan, -math.inf]])
    assert Linf(0.1).ascend(gradient).tolist() == [[-1.0, 0.0, 1.0, 0.0, -1.0]]


def test_the_projection_is_the_nearest_point_of_ball_and_bounds():
    origin = torch.tensor([[0.5, 0.5, 0.125, 0.5]])
    x = torch.tensor([[2.0, 0.625, -1.0, 0.0]])
    assert Linf(0.25).project(x, origin, BOUNDS).tolist() == [[0.75, 0.625, 0.0, 0.25]]


def test_the_excess_is_per_sample_and_zero_inside():
    origin = torch.zeros(3, 1, 2)
    x = torch.tensor([[[0.25, 0.0]], [[0.5, -0.75]], [[0.0, 0.0]]])
    assert Linf(0.25).excess(x, origin).tolist() == [0.0, 0.5, 0.0]
    lengths = torch.tensor([[[0.75, 1.0]], [[0.5, 0.0]], [[0.0, 0.0]]])
    assert L2(0.5).excess(lengths, origin).tolist() == [0.75, 0.0, 0.0]


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        (Linf(0.2), Linf(0.1), True),
        (Linf(0.1), Linf(0.1), True),
        (Linf(0.1), Linf(0.2), False),
        (L2(2.0), L2(1.0), True),
        (L2(1.0), L2(2.0), False),
        (Linf(0.2), L2(0.2), True),
        (Linf(0.2), L2(0.3), False),
        (L2(5.0), Linf(0.1), False),  # (0.1, ..., 0.1) is as long as it has entries
    ],
)
def test_what_a_ball_contains(outer, inner, expected):
    assert outer.contains(inner) is expected


@pytest.mark.parametrize("threat", [Linf(0.3), L2(0.3)])
def test_the_size_is_the_radius(threat):
    assert threat.size == 0.3


def test_the_l2_ascent_is_the_gradient_scaled_to_length_one():
    gradient = torch.tensor([[3.0, -4.0], [0.0, 0.0], [0.0, 1e-3]]).view(3, 1, 2)
    found = L2(0.1).ascend(gradient)
    torch.testing.assert_close(found.view(3, 2), torch.tensor([[0.6, -0.8], [0.0, 0.0], [0.0, 1.0]]))


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-25, 1e25, 1e38])
def test_the_l2_ascent_neither_over_nor_underflows(scale):
    gradient = scale * torch.tensor([[3.0, -3.0]])
    torch.testing.assert_close(L2(0.1).ascend(gradient), torch.tensor([[1.0, -1.0]]) / 2**0.5)


def test_the_l2_ascent_of_entries_that_are_not_finite():
    gradient = torch.tensor([[math.nan, 3.0, 4.0], [math.inf, 1.0, -math.inf], [math.nan, math.nan, math.nan]])
    half = 2**-0.5
    expected = torch.tensor([[0.0, 0.6, 0.8], [half, 0.0, -half], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(L2(0.1).ascend(gradient), expected)


def test_the_l2_projection_shortens_to_the_ball_then_clips():
    origin = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.9, 0.5]])
    x = torch.tensor([[3.5, 4.5], [0.625, 0.25], [1.9, 0.5]])
    expected = torch.tensor([[0.8, 0.9], [0.625, 0.25], [1.0, 0.5]])
    torch.testing.assert_close(L2(0.5).project(x, origin, BOUNDS), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threat", [Linf(0.2), L2(0.7), L2(0.0)])
def test_projections_are_idempotent_and_leave_what_is_inside(threat: Threat, dtype):
    generator = torch.Generator().manual_seed(0)
    origin = (2 * torch.rand(1000, 3, 4, 4, generator=generator, dtype=dtype) - 0.5).clamp(0, 1)
    origin[500:] = origin[500:].clamp(0.3, 0.7)
    x = origin + 0.5 * torch.randn(1000, 3, 4, 4, generator=generator, dtype=dtype)
    once = threat.project(x, origin, BOUNDS)
    assert once.min() >= 0
    assert once.max() <= 1
    assert threat.excess(once, origin).max() <= torch.finfo(dtype).eps
    assert torch.equal(threat.project(once, origin, BOUNDS), once)
    inside = BOUNDS.clip(origin + 0.99 * (once - origin))
    assert torch.equal(threat.project(inside, origin, BOUNDS), inside)


@pytest.mark.parametrize("shape", [(1,), (2,), (3, 5), (2, 16, 16)])
def test_random_points_of_the_l2_ball_are_uniform(shape):
    """The length to the power of the dimension is uniform, and every half space through the centre has half of them."""
    number, dimension = 4000, math.prod(shape)
    unit = torch.rand(number, *shape, generator=torch.Generator().manual_seed(1))
    found = L2(2.0).start(torch.zeros(number, *shape), unit, WIDE).flatten(1)
    share = (found.double().norm(dim=1) / 2) ** dimension
    assert share.max() <= 1 + 1e-3
    quantiles = share.sort().values - (torch.arange(number) + 0.5) / number
    assert quantiles.abs().max() < 1.63 / number**0.5  # Kolmogorov and Smirnov, 1 %
    for half in (found[:, 0], found[:, -1], found.sum(1)):
        assert float((half > 0).double().mean()) == pytest.approx(0.5, abs=4 * 0.5 / number**0.5)
    # Cov = radius^2 / (d + 2) in every direction.
    assert float(found.square().sum(1).mean()) == pytest.approx(4 * dimension / (dimension + 2), rel=0.05)


def test_extreme_draws_give_points_of_the_ball():
    x = torch.full((3, 4), 0.5)
    unit = torch.tensor([[0.0] * 4, [1 - 2.0**-24] * 4, [0.5] * 4])
    found = L2(0.3).start(x, unit, BOUNDS)
    assert found.isfinite().all()
    assert L2(0.3).excess(found, x).max() <= 1e-6
    assert torch.equal(found[2], x[2])
