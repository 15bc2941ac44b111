"""Orthogonal retraction and the simplex: closed forms, a brute-force minimum, and what stays as it is."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnrobust.attacks.noise import UniformNoise
from snnrobust.models.layers import BatchNorm2d, Conv2d, Linear
from snnrobust.models.residual import ConvexCombination
from snnrobust.threat import Linf
from snnrobust.training.defences.rat import Rat
from snnrobust.training.defences.retraction import MANY, make_convex, retract, retracted, simplex


def weights(*shape: int, size: float = 0.3) -> Tensor:
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def defect(weight: Tensor) -> float:
    rows = weight.detach().flatten(1)
    return float((rows @ rows.T - torch.eye(len(rows), dtype=rows.dtype)).square().sum())


@pytest.mark.parametrize("shape", [(5, 12), (12, 5), (7, 7), (1, 9), (9, 1)])
def test_the_formula_holds_by_way_of_either_gram_matrix(shape):
    w = weights(*shape)
    expected = 1.1 * w - 0.1 * (w @ w.T @ w)
    torch.testing.assert_close(retracted(w, 0.1), expected, rtol=1e-12, atol=1e-14)


def test_it_is_a_gradient_step_on_the_distance_from_orthogonality():
    w = weights(5, 12).requires_grad_()
    distance = (w @ w.T - torch.eye(5, dtype=w.dtype)).square().sum() / 4
    (slope,) = torch.autograd.grad(distance, w)
    torch.testing.assert_close(retracted(w.detach(), 0.1), w.detach() - 0.1 * slope, rtol=1e-12, atol=1e-14)


def test_rows_become_orthonormal():
    layer = nn.Conv2d(3, 8, 3, bias=False).double()
    before = [defect(layer.weight)]
    for _ in range(300):
        retract(layer, 0.05)
        before.append(defect(layer.weight))
    assert all(now < then for then, now in itertools.pairwise(before))
    assert before[-1] < 1e-6


def test_singular_vectors_stay_and_singular_values_move_by_the_cubic():
    w = weights(4, 6)
    values = torch.linalg.svdvals(w)
    after = torch.linalg.svdvals(retracted(w, 0.01))
    torch.testing.assert_close(after, values * (1.01 - 0.01 * values**2), rtol=1e-10, atol=0)


def test_what_is_no_weight_of_a_layer_stays():
    convolution, frozen = Conv2d(1, 4, 3), Linear(3, 3).requires_grad_(False)
    model = nn.Sequential(convolution, BatchNorm2d(4), nn.PReLU(), Linear(4, 3), frozen, ConvexCombination())
    convolution.weight.data = convolution.weight.data.to(memory_format=torch.channels_last)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    retract(model, 0.01)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"0.weight", "3.weight"}
    expected = retracted(before["0.weight"].flatten(1), 0.01).view_as(before["0.weight"])
    torch.testing.assert_close(convolution.weight.detach(), expected)


@pytest.mark.parametrize(("rows", "moved"), [(MANY - 1, MANY - 1), (MANY, 60), (301, 90)])
def test_of_many_rows_some_are_retracted_among_themselves(rows, moved):
    layer = nn.Linear(20, rows, bias=False)
    before = layer.weight.detach().clone()
    torch.manual_seed(4)
    retract(layer, 0.01)
    chosen = (layer.weight != before).any(1)
    assert int(chosen.sum()) == moved
    torch.testing.assert_close(layer.weight[chosen].detach(), retracted(before[chosen], 0.01))
    other = nn.Linear(20, rows, bias=False)
    other.weight.data.copy_(before)
    torch.manual_seed(4)
    retract(other, 0.01)
    assert torch.equal(layer.weight, other.weight)


def nearest(shares: Tensor) -> Tensor:
    """By trying every set of shares that are 0: of the points with sum 1 the nearest one without a negative share."""
    best, least = shares, torch.inf
    for kept in itertools.product([False, True], repeat=len(shares)):
        support = torch.tensor(kept)
        if not support.any():
            continue
        point = torch.where(support, shares - (shares[support].sum() - 1) / support.sum(), 0.0)
        gap = float((point - shares).square().sum())
        if (point >= 0).all() and gap < least:
            best, least = point, gap
    return best


@pytest.mark.parametrize("seed", range(20))
def test_the_simplex_point_is_the_nearest_one(seed):
    generator = torch.Generator().manual_seed(seed)
    shares = 2 * torch.randn(2 + seed % 4, generator=generator, dtype=torch.float64)
    found = simplex(shares)
    torch.testing.assert_close(found, nearest(shares), rtol=0, atol=1e-12)
    assert float(found.sum()) == pytest.approx(1)
    assert (found >= 0).all()


@pytest.mark.parametrize("shares", [[0.5, 0.5], [1.0, 0.0], [0.2, 0.3, 0.5]])
def test_points_of_the_simplex_stay(shares):
    assert simplex(torch.tensor(shares)).tolist() == pytest.approx(shares, abs=1e-7)


def shared(*values: float) -> ConvexCombination:
    module = ConvexCombination()
    module.shares.data = torch.tensor(values)
    return module


def test_shares_of_residual_sums_become_convex():
    first, layer, last = shared(0.9, 0.5), nn.Linear(2, 2), shared(1.5, -0.5)
    before = layer.weight.detach().clone()
    make_convex(nn.Sequential(first, layer, last))
    assert first.shares.tolist() == pytest.approx([0.7, 0.3])
    assert last.shares.tolist() == pytest.approx([1.0, 0.0])
    assert torch.equal(layer.weight, before)


def test_rat_does_both_after_a_step(classifier):
    shares = shared(0.9, 0.5)
    layer = classifier.backbone.classifier[1]
    expected = retracted(layer.weight.detach(), 0.002)
    model: Any = nn.Sequential(classifier, shares)
    Rat(UniformNoise(Linf(0.1)), beta=0.002).after_step(model)
    torch.testing.assert_close(layer.weight.detach(), expected)
    assert shares.shares.tolist() == pytest.approx([0.7, 0.3])
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_retraction_of_0_changes_nothing(classifier):
    before = [p.detach().clone() for p in classifier.parameters()]
    retract(classifier, 0.0)
    assert all(torch.equal(p, q) for p, q in zip(classifier.parameters(), before, strict=True))
