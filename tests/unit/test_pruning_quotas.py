"""How many connections each layer keeps, and which: exact counts, oracles by brute force, and what cannot be."""

import random

import pytest
import torch

from snnrobust.conversion.masks import strongest
from snnrobust.conversion.quotas import apportioned, remaining

SIZES = [288, 18432, 32768, 1280, 7]


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.333, 0.5, 0.9, 0.95, 0.99, 0.9995])
def test_the_number_that_stays_is_the_share_of_all(sparsity):
    total = sum(SIZES)
    kept = remaining(sparsity, SIZES, SIZES)
    assert abs(kept - (1 - sparsity) * total) <= 0.5
    counts = apportioned(SIZES, SIZES, kept)
    assert sum(counts) == kept
    assert all(1 <= count <= size for count, size in zip(counts, SIZES, strict=True))
    if (1 - sparsity) * min(SIZES) >= 1:
        assert all(abs(count - kept * size / total) < 1 for count, size in zip(counts, SIZES, strict=True))


def test_counts_by_hand():
    assert apportioned([1, 1, 1], [10, 10, 10], 10) == [4, 3, 3]  # equal remainders: the earlier one
    assert apportioned([4, 4, 2], [4, 4, 2], 5) == [2, 2, 1]
    assert apportioned([5, 3, 2], [100, 100, 100], 9) == [4, 3, 2]  # 4.5, 2.7, 1.8
    assert apportioned([10, 1], [4, 10], 8) == [4, 4]  # the first is full and passes the rest on
    assert apportioned([100, 100, 1], [100, 100, 1], 10) == [5, 4, 1]  # the last keeps its only one
    assert apportioned([3, 5], [0, 5], 2) == [0, 2]
    assert apportioned([3, 5], [3, 5], 8) == [3, 5]


def test_any_shares_and_room_give_the_exact_number_within_bounds():
    draw = random.Random(0)
    for _ in range(300):
        sizes = [draw.choice([0, 1, 2, 10, 1000, 10**6]) for _ in range(draw.randint(1, 9))]
        ideal = [10 ** draw.uniform(-6, 6) for _ in sizes]
        total = draw.randint(sum(size > 0 for size in sizes), sum(sizes))
        counts = apportioned(ideal, sizes, total)
        assert sum(counts) == total
        assert all(min(1, size) <= count <= size for count, size in zip(counts, sizes, strict=True))
        for a, first in enumerate(counts):  # what has room on both sides is in proportion
            for b, second in enumerate(counts):
                if 1 < first < sizes[a] and 1 < second < sizes[b]:
                    assert (first - 1) / ideal[a] <= (second + 1) / ideal[b] * (1 + 1e-9)


def test_no_sparsity_takes_nothing_away_from_a_sparse_network_either():
    assert remaining(0.0, [10, 10], [10, 3]) == 13


@pytest.mark.parametrize(
    ("sparsity", "sizes", "there", "line"),
    [
        (0.9, [10, 10, 10], [10, 10, 10], None),
        (0.95, [10, 10, 10], [10, 10, 10], "got 0.95, which leaves 2 of 30 connections for 3 layers; allowed: what"),
        (0.5, [10, 10], [4, 4], "got 0.5; allowed: at least 0.6, the sparsity of the source, or 0 for the source"),
        (0.9, [10], [0], "start.source: has no connections"),
        (0.9, [], [], "start.source: has no connections"),
    ],
)
def test_what_cannot_be_is_one_line(sparsity, sizes, there, line):
    if line is None:
        assert remaining(sparsity, sizes, there) == 3
        return
    with pytest.raises(ValueError, match=line) as error:
        remaining(sparsity, sizes, there)
    assert str(error.value).startswith("start.")
    assert "\n" not in str(error.value)


# --- which


@pytest.mark.parametrize("levels", [2, 5, 10**6])
@pytest.mark.parametrize("shape", [(1,), (7, 9), (4, 3, 3, 3)])
def test_the_strongest_are_those_of_a_stable_sort(levels, shape):
    importance = torch.randint(levels, shape, generator=torch.Generator().manual_seed(levels)).float()
    flat = importance.flatten().tolist()
    ranked = sorted(range(len(flat)), key=lambda i: -flat[i])  # stable: of equal ones the first
    for count in range(len(flat) + 1):
        found = strongest(importance, count)
        assert found.dtype == torch.bool
        assert found.shape == importance.shape
        assert {i for i, kept in enumerate(found.flatten().tolist()) if kept} == {*ranked[:count]}


def test_weights_in_another_layout_are_ranked_alike():
    importance = torch.rand(4, 3, 3, 3).round(decimals=1)
    laid = importance.contiguous(memory_format=torch.channels_last)
    assert torch.equal(strongest(laid, 50), strongest(importance, 50))
