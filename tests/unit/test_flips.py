"""Flips of binary inputs: the threat on hand-worked points, and attacks on models whose answer is known."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.flips import Curve, within
from snnrobust.attacks.flips import RandomFlips, TopFlips, after_each, gain
from snnrobust.attacks.flips_reduction import importance_of, reduced
from snnrobust.attacks.flips_sda import SDA
from snnrobust.attacks.losses import margin
from snnrobust.flips import Flips, distance, flipped, largest
from snnrobust.spiking.encoder import Frames
from snnrobust.threat import Bounds, Linf
from tests.contracts.toys import Broken, Flat, Linear, Toy

BOUNDS = Bounds(0.0, 1.0)
ODD = Bounds(-0.3, 0.7)  # neither bound is exact, and low + high - low is not high
ENTRIES = 24


def binary(number: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.rand(number, *shape, generator=torch.Generator().manual_seed(seed)).round()


def two_classes(seed: int = 0, bias: float = 1.5) -> tuple[Linear, Tensor]:
    """A linear model of two classes with margin `w x - bias` for class 0, and `w` `[ENTRIES]`."""
    w = torch.randn(ENTRIES, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    weight = torch.stack([torch.zeros_like(w), w])
    return Linear(weight, torch.tensor([bias, 0.0], dtype=torch.double)), w


def fewest(model: Linear, w: Tensor, x: Tensor) -> list[int]:
    """Flips that a linear model needs: the largest contributions, until the margin is positive."""
    contributions = torch.where(x == 1, -w, w).clamp_min(0).sort(dim=1, descending=True).values
    reached = margin(model(x), torch.zeros(len(x), dtype=torch.long))[:, None] + contributions.cumsum(1)
    return ((reached <= 0).sum(1) + 1).tolist()


def correct(model: Linear, number: int = 64) -> Tensor:
    """Binary inputs that the model puts into class 0."""
    x = binary(number, ENTRIES).double()
    return x[model(x).argmax(1) == 0]


class Counting(Toy):
    """Remembers how many inputs every forward had; its own draws by position are for whoever claims `stochastic`."""

    def __init__(self, entries: int, stochastic: bool = False) -> None:
        super().__init__(entries)
        self.stochastic = stochastic
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return super().forward(x)


class FlatCounting(Counting, Flat):
    """The same with a margin that no flip changes."""


class Liar(Linear):
    """A linear model with the gradient of another one."""

    def __init__(self, weight: Tensor, pretended: Tensor, bias: Tensor) -> None:
        super().__init__(weight, bias)
        self.pretended = pretended

    def forward(self, x: Tensor) -> Tensor:
        told = x.flatten(1) @ self.pretended.T
        return told + (super().forward(x) - told).detach()


class Undecided(Linear):
    """A margin of -1 at all binary inputs, with a gradient that speaks for every flip, there and back."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * (1 - x))


# The threat.


def test_the_projection_keeps_the_largest_moves_past_the_middle_and_the_first_of_equals():
    origin = torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0]])
    x = torch.tensor([[0.375, 0.25, 0.875, 0.125, 5.0]])
    assert Flips(2).project(x, origin, BOUNDS).tolist() == [[0.0, 1.0, 1.0, 1.0, 1.0]]
    assert Flips(9).project(x, origin, BOUNDS).tolist() == [[0.0, 0.0, 1.0, 0.0, 1.0]]
    assert Flips(1).project(1 - origin, origin, BOUNDS).tolist() == [[1.0, 1.0, 0.0, 1.0, 0.0]]
    at_high = torch.tensor([[0.0, 3.0, 0.0, 3.0, 0.0]])  # already high: further up is no flip
    assert torch.equal(Flips(2).project(at_high, origin, BOUNDS), origin)


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_results_are_exactly_binary_whatever_the_bounds(dtype):
    low, high = torch.tensor([ODD.low, ODD.high], dtype=dtype)
    origin = torch.where(binary(3, 2, 5) > 0, high, low)
    unit = torch.rand(3, 2, 5, generator=torch.Generator().manual_seed(1)).to(dtype)
    for found in (Flips(4).start(origin, unit, ODD), Flips(4).project(unit - 0.3, origin, ODD)):
        assert found.dtype == dtype
        assert sorted(found.unique().tolist()) == [low, high]
    assert distance(Flips(4).start(origin, unit, ODD), origin).tolist() == [4, 4, 4]
    assert torch.equal(flipped(flipped(origin, unit > 0.5, ODD), unit > 0.5, ODD), origin)


def test_the_excess_counts_flips_beyond_the_budget():
    origin = torch.zeros(3, 1, 2, 2)
    x = torch.tensor([[1.0, 1, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]]).view(3, 1, 2, 2)
    assert Flips(2).excess(x, origin).tolist() == [2.0, 0.0, 0.0]


def test_ascent_is_along_the_largest_entry_alone():
    g = torch.tensor([[1.0, -3.0, 3.0], [0.0, 0.0, 0.0], [torch.nan, -1.0, 0.5], [1.0, 2.0, -torch.inf]])
    assert Flips(2).ascend(g).tolist() == [[0, -1, 0], [0, 0, 0], [0, -1, 0], [0, 0, -1]]


def test_a_budget_contains_smaller_budgets_of_its_kind():
    assert Flips(3).contains(Flips(3))
    assert not Flips(3).contains(Flips(4))
    assert not Flips(3).contains(Linf(0.1))
    assert not Linf(1.0).contains(Flips(1))
    assert Flips(3).size == 3


def test_ties_are_broken_by_position():
    assert largest(torch.tensor([[1.0, 2.0, 2.0, 2.0]]), 2).tolist() == [[False, True, True, False]]
    assert largest(torch.tensor([[1.0, 2.0]]), 5).all()


@pytest.mark.parametrize("attack", [SDA(Flips(2)), TopFlips(Flips(2)), RandomFlips(Flips(2))])
def test_inputs_that_are_not_binary_are_refused(attack):
    x = binary(2, 3, 4)
    x[1, 2, 3] = 0.25
    with pytest.raises(ValueError, match=r"consist of 0\.0 and 1\.0, got 0\.25; allowed: .*digits_events_binary"):
        attack(Toy(12), x, torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("kind", [SDA, TopFlips, RandomFlips])
def test_threats_of_another_kind_are_refused(kind):
    with pytest.raises(ValueError, match=r"threat: got Linf for \w+; allowed: snnrobust\.flips\.Flips"):
        kind(Linf(0.1))


# Flips chosen at once.


def test_a_flip_gains_where_it_follows_the_gradient():
    g = torch.tensor([[2.0, 2.0, -1.0, -1.0, torch.nan, 0.0]])
    at = torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0, 1.0]])
    assert gain(g, at, BOUNDS).tolist() == [[2, 0, 0, 1, 0, 0]]


@pytest.mark.parametrize("steps", [1, 3])
def test_top_flips_of_a_linear_model_are_the_largest_contributions(steps):
    model, w = two_classes(bias=50.0)  # out of reach
    x = correct(model)
    found = TopFlips(Flips(4), steps=steps)(model, x, torch.zeros(len(x), dtype=torch.long))
    assert torch.equal(found != x, largest(torch.where(x == 1, -w, w), 4))


def test_top_flips_stops_at_a_misclassified_sample_and_flips_nothing_useless():
    model, w = two_classes()
    x = correct(model)
    y = torch.zeros(len(x), dtype=torch.long)
    found = TopFlips(Flips(ENTRIES), steps=ENTRIES)(model, x, y)
    assert distance(found, x).tolist() == fewest(model, w, x)
    hopeless = two_classes(bias=99.0)[0]
    everything = TopFlips(Flips(ENTRIES))(hopeless, x, y)
    assert torch.equal(everything, (w > 0).double().expand_as(x))  # each entry where it helps most, flipped or not


def test_top_flips_of_a_later_round_are_other_ones():
    model = Undecided(torch.tensor([[0.0, 0, 0], [3, 2, 1]]), torch.tensor([1.0, 0.0]))
    x, y = torch.tensor([[0.0, 1, 0]]), torch.zeros(1, dtype=torch.long)
    assert TopFlips(Flips(2), steps=2)(model, x, y).tolist() == [[1, 0, 0]]


def test_random_flips_keep_the_worst_of_their_tries():
    model = Toy(ENTRIES).eval()
    x, y = binary(40, ENTRIES), torch.arange(40) % 4
    one, many = (margin(model(RandomFlips(Flips(3), restarts=n)(model, x, y)), y) for n in (1, 8))
    assert (many >= one).all()
    assert many.mean() > one.mean() + 0.1


@pytest.mark.parametrize("chunk", [1, 7, 15, 1000])
def test_single_flips_are_those_of_a_loop(chunk):
    model = Counting(ENTRIES).double().eval()
    at, y = binary(5, 2, 3, 4).double(), torch.arange(5) % 4
    entries = torch.stack([torch.randperm(ENTRIES, generator=torch.Generator().manual_seed(i))[:4] for i in range(5)])
    found = after_each(model, at, y, entries, chunk)
    assert max(model.sizes) <= max(chunk, 5)
    for b in range(5):
        for j in range(4):
            one = at[b : b + 1].clone()
            one.view(-1)[entries[b, j]] = 1 - one.view(-1)[entries[b, j]]
            torch.testing.assert_close(found[b, j], margin(model(one), y[b : b + 1])[0], rtol=0, atol=1e-12)


# The reduction.


def test_the_reduction_of_a_linear_model_finds_the_fewest_flips():
    model, w = two_classes()
    x = correct(model)
    y = torch.zeros(len(x), dtype=torch.long)
    contribution = torch.where(x == 1, -w, w)
    flips = contribution > 0
    for importance in (contribution, importance_of(model, x, y, flips, chunk=100)):
        few = reduced(model, x, y, flips, importance)
        assert few.sum(1).tolist() == fewest(model, w, x)
        assert torch.equal(few, few & largest(contribution.masked_fill(~flips, -torch.inf), int(few.sum(1).max())))


def test_the_importance_of_a_flip_is_what_the_margin_loses_without_it():
    model, w = two_classes()
    x = correct(model)
    contribution = torch.where(x == 1, -w, w)
    flips = (contribution > 0) & (torch.arange(ENTRIES) % 2 == 0)
    y = torch.zeros(len(x), dtype=torch.long)
    found = importance_of(model, x, y, flips, chunk=100)
    score = margin(model(flipped(x, flips, BOUNDS)), y)[:, None]
    torch.testing.assert_close((found + score)[flips], contribution[flips])
    assert (found[~flips] == 0).all()


class Parity(Toy):
    """Class 0, but class 1 where the number of ones is even and not zero: prefixes of flips are not alike."""

    def forward(self, x: Tensor) -> Tensor:
        ones = x.flatten(1).sum(1)
        adversarial = (ones % 2 == 0) & (ones > 0)
        return torch.stack([1 - 2 * adversarial.to(x.dtype), torch.zeros_like(ones)], 1)


def test_a_reduced_sample_is_misclassified_also_where_bisection_misleads():
    x = torch.zeros(12, ENTRIES)
    y = torch.zeros(12, dtype=torch.long)
    flips = torch.arange(ENTRIES) < 2 * torch.arange(1, 13)[:, None]
    model = Parity(ENTRIES)
    few = reduced(model, x, y, flips, torch.rand(12, ENTRIES, generator=torch.Generator().manual_seed(0)))
    assert (margin(model(flipped(x, few, BOUNDS)), y) > 0).all()
    assert not (few & ~flips).any()
    assert few.sum() < flips.sum()


# SDA.


def test_sda_on_a_linear_model_needs_the_fewest_flips():
    model, w = two_classes()
    x = correct(model)
    y = torch.zeros(len(x), dtype=torch.long)
    one_by_one = SDA(Flips(ENTRIES), first=1, candidates=1)
    all_at_once = SDA(Flips(ENTRIES), first=ENTRIES, candidates=ENTRIES)
    for attack in (one_by_one, all_at_once):
        found = attack(model, x, y)
        assert (model(found).argmax(1) == 1).all()
        assert distance(found, x).tolist() == fewest(model, w, x)


def test_a_failure_has_the_flips_of_the_largest_effect_within_the_budget():
    x, y = binary(8, ENTRIES).double(), torch.zeros(8, dtype=torch.long)
    hopeless, w = two_classes(bias=99.0)
    contribution = torch.where(x == 1, -w, w)
    assert torch.equal(SDA(Flips(4), first=9, candidates=9)(hopeless, x, y) != x, largest(contribution, 4))
    model, _ = two_classes(bias=5.0)
    x = correct(model)
    needed = torch.tensor(fewest(model, w, x))
    x, y = x[needed > 2], torch.zeros(int((needed > 2).sum()), dtype=torch.long)
    assert len(x) > 8
    found = SDA(Flips(2), overshoot=99)(model, x, y)  # successes of the search, but not within the budget
    assert torch.equal(found != x, largest(torch.where(x == 1, -w, w), 2))


def test_entries_that_mislead_are_tried_once_and_left():
    w = torch.tensor([[0.0] * 4, [-1.0, -1.0, 0.4, 0.4]]).double()
    pretended = torch.tensor([[0.0] * 4, [9.0, 8.0, 1.0, 1.0]]).double()
    model = Liar(w, pretended, torch.tensor([0.5, 0.0]).double())
    x, y = torch.zeros(1, 4).double(), torch.zeros(1, dtype=torch.long)
    found = SDA(Flips(4), first=1, candidates=1, iterations=6)(model, x, y)
    assert found.tolist() == [[0, 0, 1, 1]]
    assert torch.equal(SDA(Flips(4), first=1, candidates=1, iterations=2)(model, x, y), x)
    assert (model(TopFlips(Flips(2))(model, x, y)).argmax(1) == 0).all()


@pytest.fixture
def frames(make_tiny):
    """A spiking classifier of event frames, and 24 binary samples with the labels that it gives them."""
    model = make_tiny(Frames(3), channels=2).double()
    x = (torch.rand(24, 3, 2, 8, 8, generator=torch.Generator().manual_seed(3)) < 0.2).double()
    with torch.no_grad():
        return model, x, model(x).argmax(1)


def test_sda_on_event_frames_is_binary_within_its_budget_and_the_better_the_more_it_reduces(frames):
    model, x, y = frames
    everything = Flips(x[0].numel())
    found = [SDA(everything, reductions=n)(model, x, y) for n in (1, 2, 4)]
    for one in found:
        assert ((one == 0) | (one == 1)).all()
        assert (model(one).argmax(1) != y).all()
    counts = [distance(one, x) for one in found]
    assert (counts[0] >= counts[1]).all()
    assert (counts[1] >= counts[2]).all()
    assert counts[2].sum() < counts[0].sum()
    budget = 3
    bounded = SDA(Flips(budget))(model, x, y)
    assert (distance(bounded, x) <= budget).all()
    broken = model(bounded).argmax(1) != y
    assert 0 < broken.sum() < len(x)
    assert (distance(bounded, x)[~broken] == budget).all()


def test_sda_needs_fewer_flips_than_the_same_number_chosen_at_once(frames):
    model, x, y = frames
    needed = distance(SDA(Flips(x[0].numel()))(model, x, y), x)
    never = x[0].numel()
    at_once = torch.full_like(needed, never)
    for count in range(40, 0, -1):
        at_once[model(TopFlips(Flips(count))(model, x, y)).argmax(1) != y] = count
    broken = at_once < never
    assert broken.sum() >= 8
    assert needed[broken].double().mean() < at_once[broken].double().mean()


def test_samples_do_not_meet_their_neighbours(frames):
    """Also where one is finished before the search begins, and another never."""
    model, x, y = frames
    y = torch.where(torch.arange(len(y)) % 5 == 0, (y + 1) % 4, y)
    index = torch.arange(len(y)).flip(0) + 7
    for attack in (SDA(Flips(2)), SDA(Flips(200)), TopFlips(Flips(8), steps=3), RandomFlips(Flips(8))):
        whole = attack(model, x, y, index)
        apart = [attack(model, *part) for part in zip(x.split(1), y.split(1), index.split(1), strict=True)]
        assert torch.equal(torch.cat(apart), whole)
        if isinstance(attack, SDA):
            assert torch.equal(whole[::5], x[::5])  # misclassified from the start: no flip is needed


@pytest.mark.parametrize("kind", [Flat, Broken])
def test_without_a_gradient_entries_come_in_an_order_of_their_own(kind):
    model = kind(ENTRIES).eval()
    x, y = binary(4, ENTRIES), model(binary(4, ENTRIES)).argmax(1)
    first, second = (SDA(Flips(3), seed=seed)(model, x, y) != x for seed in (0, 1))
    assert not torch.equal(first, second)
    if kind is Flat:
        assert (first.sum(1) == 3).all()
        assert not torch.equal(first[0], first[1])
        assert torch.equal(TopFlips(Flips(3))(model, x, y), x)


def test_forwards_are_bounded_by_rounds_candidates_and_budget():
    x, y = binary(2, ENTRIES), torch.zeros(2, dtype=torch.long)

    def forwards(attack: SDA) -> list[int]:
        model = FlatCounting(ENTRIES).eval()
        y[:] = model(x).argmax(1)
        model.sizes.clear()
        attack(model, x, y)
        return model.sizes

    # A gradient at every point, and after it all candidates of both samples at once.
    rounds = SDA(Flips(ENTRIES), first=2, candidates=5, iterations=3)
    assert forwards(rounds) == [2, 4, 2, 8, 2, 10, 2]
    assert forwards(replace(rounds, chunk=4)) == [2, 4, 2, 4, 4, 2, 4, 4, 2, 2]
    # More than 2 x 2 flips after the third round.
    assert forwards(SDA(Flips(2), first=2, candidates=2, overshoot=2)) == [2, 4, 2, 4, 2, 4, 2]
    # No entry is left after two rounds, which the third one finds.
    assert forwards(SDA(Flips(ENTRIES), first=12, candidates=12)) == [2, 24, 2, 24, 2, 24, 2]


def test_finished_samples_leave_the_batch_unless_the_model_draws_by_position():
    x = binary(6, ENTRIES)
    sizes, found = {}, {}
    for stochastic in (False, True):
        model = Counting(ENTRIES, stochastic).eval()
        y = model(x).argmax(1)
        y[:3] = (y[:3] + 1) % 4  # misclassified from the start
        model.sizes.clear()
        found[stochastic] = SDA(Flips(9), candidates=1, chunk=1000 if stochastic else 1)(model, x, y)
        sizes[stochastic] = model.sizes
    assert torch.equal(found[True], found[False])  # this one only says that it draws
    assert set(sizes[True]) == {6}
    assert sizes[False][:2] == [6, 3]
    assert set(sizes[False]) <= {1, 2, 3, 6}


# The benchmark's figures.


def test_failures_stay_in_the_denominator():
    curve = Curve(torch.tensor([3, 7, 20, 50]), torch.tensor([True, True, True, False]))
    assert [within(curve, count) for count in (2, 3, 7, 19, 100)] == [0.0, 0.25, 0.5, 0.5, 0.75]
    assert (curve.median, curve.failures) == (7.0, 1)
    nothing = Curve(torch.tensor([5]), torch.tensor([False]))
    assert (within(nothing, 9), nothing.failures) == (0.0, 1)
    assert nothing.median != nothing.median
