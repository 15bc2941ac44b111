"""The l_inf ball on hand-worked points."""

import pytest
import torch

from snnrobust.threat import Bounds, Linf

BOUNDS = Bounds(0.0, 1.0)


def test_bounds_have_a_width_and_clip():
    bounds = Bounds(-1.0, 3.0)
    assert bounds.width == 4
    assert bounds.clip(torch.tensor([-2.0, 0.5, 4.0])).tolist() == [-1.0, 0.5, 3.0]


def test_the_start_maps_the_unit_box_onto_the_ball_and_stays_inside_the_bounds():
    x = torch.tensor([[0.5, 0.5, 0.5, 0.0, 1.0]])
    unit = torch.tensor([[0.0, 0.5, 1.0, 0.0, 1.0]])
    assert Linf(0.25).start(x, unit, BOUNDS).tolist() == [[0.25, 0.5, 0.75, 0.0, 1.0]]


def test_ascent_is_the_sign_and_zero_stays_zero():
    assert Linf(0.1).ascend(torch.tensor([[-3.0, 0.0, 1e-30]])).tolist() == [[-1.0, 0.0, 1.0]]


def test_the_projection_is_the_nearest_point_of_ball_and_bounds():
    origin = torch.tensor([[0.5, 0.5, 0.125, 0.5]])
    x = torch.tensor([[2.0, 0.625, -1.0, 0.0]])
    assert Linf(0.25).project(x, origin, BOUNDS).tolist() == [[0.75, 0.625, 0.0, 0.25]]


def test_the_excess_is_per_sample_and_zero_inside():
    origin = torch.zeros(3, 1, 2)
    x = torch.tensor([[[0.25, 0.0]], [[0.5, -0.75]], [[0.0, 0.0]]])
    assert Linf(0.25).excess(x, origin).tolist() == [0.0, 0.5, 0.0]


@pytest.mark.parametrize(("outer", "inner", "expected"), [(0.2, 0.1, True), (0.1, 0.1, True), (0.1, 0.2, False)])
def test_a_ball_contains_smaller_balls(outer, inner, expected):
    assert Linf(outer).contains(Linf(inner)) is expected


def test_the_size_is_the_radius():
    assert Linf(0.3).size == 0.3
