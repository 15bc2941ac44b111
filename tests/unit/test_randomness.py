"""Keyed streams, and global streams that are given back."""

import random

import numpy as np
import pytest
import torch

from snnrobust.randomness import (
    fresh,
    generator,
    hashed_integers,
    hashed_uniform,
    isolated,
    key,
    normal,
    per_sample,
    seed_all,
    uniform,
)


def draws() -> tuple[float, float, float]:
    return float(torch.rand(())), float(np.random.rand()), random.random()  # noqa: NPY002


def test_the_key_is_a_fixed_function_of_the_words():
    assert key("attack", "PGD", 0, 17) == 8226392866632233499  # the first 63 bits of the SHA-256
    assert key("a", 1) == key("a", "1")
    assert len({key("a"), key("b"), key("a", 0), key("a", 1)}) == 4


def test_the_key_is_a_seed_that_torch_takes():
    assert all(0 <= key(i) < 2**63 for i in range(100))


def test_equal_words_give_equal_generators():
    first, again, other = (torch.rand(5, generator=generator(*words)) for words in (("a", 1), ("a", 1), ("a", 2)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("draw", [uniform, normal])
def test_a_sample_meets_the_same_draws_in_any_batch(draw):
    index = torch.tensor([4, 9, 2])
    whole = draw(torch.zeros(3, 2, 5), index, "noise", 0)
    assert whole.shape == (3, 2, 5)
    assert torch.equal(draw(torch.zeros(1, 2, 5), index[2:], "noise", 0)[0], whole[2])
    assert len({float(row.sum()) for row in whole}) == 3
    assert not torch.equal(draw(torch.zeros(3, 2, 5), index, "noise", 1), whole)


@pytest.mark.parametrize("draw", [uniform, normal])
def test_keyed_draws_leave_the_global_stream_alone_and_take_the_dtype(draw):
    state = torch.get_rng_state()
    assert draw(torch.zeros(2, 3, dtype=torch.float64), torch.arange(2), 0).dtype == torch.float64
    assert torch.equal(torch.get_rng_state(), state)


def test_an_empty_batch_draws_nothing():
    assert uniform(torch.zeros(0, 3), torch.arange(0)).shape == (0, 3)


@pytest.mark.parametrize("batch", [0, 1])
def test_fresh_draws_are_new_at_every_call_and_belong_to_the_sample(batch):
    index = torch.tensor([4, 9, 2])

    def draw(index: torch.Tensor) -> list[torch.Tensor]:
        shape = (len(index), 5) if batch == 0 else (5, len(index))
        with per_sample(index, "encoder", 0):
            return [fresh(torch.zeros(*shape, dtype=torch.float64), batch) for _ in range(2)]

    state = torch.get_rng_state()
    first, second = draw(index)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.dtype == torch.float64
    assert not torch.equal(first, second)
    assert len({float(row.sum()) for row in first.unbind(batch)}) == 3
    alone = draw(index[2:])
    assert torch.equal(alone[0].squeeze(batch), first.select(batch, 2))
    assert torch.equal(alone[1].squeeze(batch), second.select(batch, 2))


def test_fresh_draws_come_from_the_global_stream_once_the_samples_are_closed():
    with pytest.raises(ZeroDivisionError), per_sample(torch.arange(3), "encoder"):
        _ = 1 / 0
    seed_all(5)
    expected = torch.rand(3, 2)
    seed_all(5)
    assert torch.equal(fresh(torch.zeros(3, 2)), expected)


def test_uniform_and_normal_have_their_moments():
    u, n = (draw(torch.zeros(20, 1000), torch.arange(20), "moments") for draw in (uniform, normal))
    assert u.min() >= 0
    assert u.max() < 1
    assert u.mean() == pytest.approx(0.5, abs=5 / np.sqrt(12 * 20000))
    assert n.mean() == pytest.approx(0, abs=5 / np.sqrt(20000))
    assert n.std() == pytest.approx(1, abs=0.03)


def test_isolated_gives_the_streams_back():
    seed_all(5)
    expected = draws()
    seed_all(5)
    with isolated("inside"):
        inside = draws()
    assert draws() == expected
    assert inside != expected


def test_isolated_gives_the_streams_back_after_an_error():
    seed_all(5)
    expected = draws()
    seed_all(5)
    with pytest.raises(ZeroDivisionError), isolated("inside"):
        _ = draws()[0] / 0
    assert draws() == expected


def test_isolated_draws_depend_on_the_words_alone():
    found = []
    for outer, words in ((1, ("a", 1)), (2, ("a", 1)), (1, ("a", 2))):
        seed_all(outer)
        with isolated(*words):
            found.append(draws())
    assert found[0] == found[1]
    assert all(a != b for a, b in zip(found[0], found[2], strict=True))


def reference_hash(index: int, draw: int, *parts: object) -> float:
    """SplitMix64 in Python's integers, which do not wrap around by themselves."""

    def mixed(state: int) -> int:
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
        return state ^ (state >> 31)

    golden = 0x9E3779B97F4A7C15
    own = mixed((key(*parts) + (index + 1) * golden) % 2**64)
    return (mixed((own + (draw + 1) * golden) % 2**64) >> 40) / 2**24


def test_the_hash_is_splitmix64():
    index = torch.tensor([0, 1, 2, 49_999, 2**40])
    found = hashed_uniform(index, 3, "augmentation", 0)
    assert found.dtype == torch.float32
    assert found.tolist() == [[reference_hash(i, k, "augmentation", 0) for k in range(3)] for i in index.tolist()]


def test_the_reference_hash_is_the_published_one():
    """The first number of the authors' generator from the seed 0."""
    golden = 0x9E3779B97F4A7C15
    state = (golden ^ (golden >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    assert state ^ (state >> 31) == 0xE220A8397B1DCDAF


def test_a_hash_belongs_to_the_sample_and_to_the_words():
    index = torch.tensor([4, 9, 2])
    whole = hashed_uniform(index, 4, "crop", 0)
    assert torch.equal(hashed_uniform(index[2:], 4, "crop", 0)[0], whole[2])
    assert torch.equal(hashed_uniform(index, 2, "crop", 0), whole[:, :2])
    assert len(whole.unique()) == 12
    assert not torch.isin(hashed_uniform(index, 4, "crop", 1), whole).any()
    assert hashed_uniform(index[:0], 4, "crop").shape == (0, 4)


def test_hashes_are_uniform_and_independent():
    """Chi-square over 64 cells, of each draw, of pairs of draws, of neighbours and of epochs; 5 sigma of 64 cells."""
    number = 64_000
    index = torch.arange(number)
    first, second = hashed_uniform(index, 2, "moments", 1).T
    other = hashed_uniform(index, 1, "moments", 2)[:, 0]
    pairs = {"draws": (first, second), "samples": (first[:-1], first[1:]), "streams": (first, other)}
    cells = {"one": (64 * first).long(), "two": (64 * second).long()}
    cells |= {name: 8 * (8 * a).long() + (8 * b).long() for name, (a, b) in pairs.items()}
    for name, cell in cells.items():
        counts = cell.bincount(minlength=64).double()
        chi = float(((counts - counts.mean()) ** 2 / counts.mean()).sum())
        assert abs(chi - 63) < 5 * np.sqrt(2 * 63), name
    assert first.min() >= 0
    assert first.max() < 1


def test_hashed_integers_take_every_value_in_turn():
    found = hashed_integers(torch.arange(9_000), (9, 1, 300), "places")
    counts = found[:, 0].bincount(minlength=9)
    assert len(counts) == 9
    assert int((counts - 1000).abs().max()) < 5 * np.sqrt(1000)
    assert not found[:, 1].any()
    assert [int(found[:, 2].min()), int(found[:, 2].max())] == [0, 299]
