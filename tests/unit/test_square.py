"""Square Attack: its schedule and shapes by hand, closed forms, what it asks and what it keeps, torchattacks."""

import math

import pytest
import torch
import torchattacks
from torch import Tensor, nn

from snnrobust.attacks.losses import margin
from snnrobust.attacks.square import Square, pyramids
from snnrobust.flips import Flips
from snnrobust.randomness import isolated
from snnrobust.threat import L2, Bounds, Linf
from tests.contracts.toys import Flat, Linear, Toy

THREATS = [Linf(0.1), L2(0.8)]


class Watched(nn.Module):
    """A classifier that keeps what it was asked."""

    stochastic = False

    def __init__(self, model: nn.Module, bounds: Bounds | None = None) -> None:
        super().__init__()
        self.model = model
        self.bounds = bounds or Bounds()
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x.detach().clone())
        return self.model(x)

    def margins(self, y: Tensor) -> Tensor:
        """`[queries, B]`."""
        with torch.no_grad():
            return torch.stack([margin(self.model(x), y) for x in self.asked])


def images(number: int = 8, shape: tuple[int, ...] = (2, 6, 6), low: float = 0.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = low + (1 - 2 * low) * torch.rand(number, *shape, generator=generator, dtype=torch.float64)
    return x, torch.arange(number) % 2


def linear(offset: float) -> Linear:
    """Two classes, of which the first is ahead by `offset` or more, for inputs of 72 entries."""
    weight = torch.randn(2, 72, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return Linear(weight, torch.tensor([offset, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("eps", [0.05, 0.5])
def test_on_a_linear_model_it_ends_at_the_closed_form(eps):
    model, (x, _) = linear(1e3), images()
    y = torch.zeros(len(x), dtype=torch.long)
    uphill = (model.weight[1] - model.weight[0]).sign().view(1, 2, 6, 6)
    found = Square(Linf(eps), queries=3000)(model, x, y)
    torch.testing.assert_close(found, (x + eps * uphill).clamp(0, 1), atol=1e-12, rtol=0)


def test_on_a_linear_model_it_comes_near_the_closed_form_of_l2():
    model, (x, _) = linear(1e3), images(low=0.4)
    y = torch.zeros(len(x), dtype=torch.long)
    best = 0.5 * (model.weight[1] - model.weight[0]).norm()
    with torch.no_grad():
        gain = margin(model(Square(L2(0.5), queries=3000)(model, x, y)), y) - margin(model(x), y)
        random = margin(model(Square(L2(0.5), queries=1)(model, x, y)), y) - margin(model(x), y)
    assert gain.max() <= best
    assert gain.min() > 0.6 * best
    assert random.max() < 0.3 * best


@pytest.mark.parametrize("threat", [Linf(0.01), L2(0.05)])
def test_it_keeps_the_first_point_that_fools_and_else_the_best(threat):
    model = Watched(Toy(72).double().eval())
    x, y = images(60)
    with torch.no_grad():
        y = torch.where(torch.arange(60) < 50, model.model(x).argmax(1), y)
    found = Square(threat, queries=150)(model, x, y)
    margins = model.margins(y)
    fooled = (margins > 0).any(0)
    misclassified = margins[0] > 0
    assert misclassified.any()
    assert (fooled & ~misclassified).any()
    assert (~fooled).any()
    chosen = torch.where(fooled, (margins > 0).int().argmax(0), 1 + margins[1:].argmax(0))
    expected = torch.stack(model.asked)[chosen, torch.arange(60)]
    assert torch.equal(found[misclassified], x[misclassified])
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("threat", THREATS)
def test_a_query_is_a_forward_and_none_is_made_when_all_is_done(threat):
    x, _ = images()
    y = torch.zeros(len(x), dtype=torch.long)
    safe, lost = Watched(linear(1e3)), Watched(linear(-1e3))
    Square(threat, queries=230)(safe, x, y)
    assert len(safe.asked) == 1 + 230
    assert torch.equal(Square(threat, queries=230)(lost, x, y), x)
    assert len(lost.asked) == 1
    soon = Watched(linear(0.0))
    Square(type(threat)(5.0 if isinstance(threat, L2) else 1.0), queries=500)(soon, x, y)
    assert len(soon.asked) < 300


@pytest.mark.parametrize("threat", THREATS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 3, 9), (3, 2, 4, 4), (1, 1, 1)])
def test_all_that_it_asks_lies_inside_threat_and_bounds(threat, shape):
    x, y = images(4, shape)
    model = Watched(Toy(math.prod(shape)).double().eval())
    Square(threat, queries=120)(model, x, y)
    for asked in model.asked:
        assert threat.excess(asked, x).max() <= 1e-12
        assert asked.min() >= 0
        assert asked.max() <= 1


def test_every_l_inf_query_changes_one_square_by_one_sign_a_channel():
    constant = Flat(72).double().eval()  # nothing raises its margin, so that every candidate starts from the first
    model = Watched(constant)
    x, _ = images(low=0.3)
    attack = Square(Linf(0.1), queries=400, p_init=0.4)
    with torch.no_grad():
        attack(model, x, constant(x).argmax(1))
    seen = torch.zeros(len(x), 6, 6, dtype=torch.bool)
    assert len(model.asked) == 401
    for query, asked in enumerate(model.asked[2:], 1):
        side = max(round(math.sqrt(attack.share(query) * 36)), 1)
        sign = (asked - x).sign()
        assert (sign.abs() == 1).all()
        changed = (asked != model.asked[1]).any(1)
        seen |= changed
        for number in range(len(x)):
            rows, columns = changed[number].nonzero().unbind(1)
            assert len(rows)  # no query is wasted on what is there already
            assert rows.max() - rows.min() < side
            assert columns.max() - columns.min() < side
        if side == 1:
            assert (changed.flatten(1).sum(1) == 1).all()
    assert seen.all()


def test_the_l_inf_start_is_vertical_stripes():
    model = Watched(linear(1e3))
    x, _ = images(40, low=0.3)
    Square(Linf(0.1), queries=1)(model, x, torch.zeros(40, dtype=torch.long))
    change = model.asked[1] - x
    assert torch.equal(change.sign(), change.sign()[:, :, :1].expand_as(change))
    torch.testing.assert_close(change.abs(), torch.full_like(x, 0.1), atol=1e-12, rtol=0)
    assert float(change.sign().mean()) == pytest.approx(0, abs=5 / (40 * 12) ** 0.5)


def test_l2_queries_use_the_whole_budget_where_the_bounds_are_far_away():
    """Unless a channel's new direction cancels its old one, which leaves its share to the next query."""
    model = Watched(linear(1e3), Bounds(-9.0, 9.0))
    x, _ = images()
    Square(L2(0.7), queries=300)(model, x, torch.zeros(len(x), dtype=torch.long))
    lengths = (torch.stack(model.asked[1:]) - x).flatten(2).norm(dim=2)
    assert lengths.max() <= 0.7 + 1e-12
    assert (lengths > 0.7 - 1e-9).double().mean() > 0.95


def test_an_l2_query_moves_the_change_of_one_square_into_another():
    constant = Flat(72).double().eval()
    model = Watched(constant)
    x, _ = images(low=0.4)
    with torch.no_grad():
        Square(L2(0.1), queries=200)(model, x, constant(x).argmax(1))
    start, *others = (asked - x for asked in model.asked[1:])
    assert len(others) == 199
    emptied = torch.stack([(start != 0) & (other == 0) for other in others]).flatten(2).any(2)
    assert emptied.double().mean() > 0.9
    for other in others[100:]:  # from here on squares are 3 wide, two of which hold 18 of the 36 pixels
        assert ((other - start).abs() > 1e-9).any(1).flatten(1).sum(1).max() <= 18


def test_a_pyramid_pair_by_hand():
    quarter, top = 0.25, 1.25
    pair = [[quarter, -quarter, -quarter], [top, -quarter, -top], [quarter, -quarter, -quarter]]
    expected = torch.tensor(pair, dtype=torch.float64)
    torch.testing.assert_close(pyramids(3), expected / expected.norm())
    assert pyramids(1).tolist() == [[-1.0]]
    for side in range(1, 10):
        assert float(pyramids(side).norm()) == pytest.approx(1)


def test_the_squares_shrink_as_in_the_paper():
    attack = Square(Linf(0.1), queries=10_000)
    halvings = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]
    assert attack.share(0) == attack.share(10) == 0.8
    for times, last in enumerate(halvings):
        assert attack.share(last) == 0.8 / 2**times
        assert attack.share(last + 1) == 0.8 / 2 ** (times + 1)
    short = Square(Linf(0.1), queries=1000, p_init=0.4)
    assert [short.share(query) for query in (1, 2, 5, 6, 999)] == [0.4, 0.2, 0.2, 0.1, 0.4 / 512]


def test_restarts_never_make_it_weaker(make_tiny):
    model, (x, _) = make_tiny().double(), images(30, (1, 8, 8))
    with torch.no_grad():
        y = model(x).argmax(1)
        scores = [margin(model(Square(Linf(0.05), queries=10, restarts=n)(model, x, y)), y) for n in (1, 2, 4)]
    assert (scores[1] >= scores[0]).all()
    assert (scores[2] >= scores[1]).all()
    assert (scores[2] > scores[0]).sum() > 10


@pytest.mark.parametrize(("norm", "threat"), [("Linf", Linf(0.04)), ("L2", L2(0.3))])
def test_it_breaks_as_many_as_that_of_torchattacks(norm, threat):
    """Of 200 samples, all classified correctly, after 100 queries: three points fewer at most."""
    model = Toy(64).eval()
    x = images(200, (1, 8, 8))[0].float()
    with torch.no_grad(), isolated("reference"):
        y = model(x).argmax(1)
        theirs = torchattacks.Square(model, norm=norm, eps=threat.eps, n_queries=100, seed=1)(x, y)
        ours, theirs = (
            (model(found).argmax(1) == y).double().mean() for found in (Square(threat, 100)(model, x, y), theirs)
        )
    assert 0.5 < theirs < 0.8
    assert ours <= theirs + 0.03


def test_other_threats_are_refused():
    with pytest.raises(ValueError, match=r"threat: got Flips; allowed: Linf, L2"):
        Square(Flips(3))
