"""Auto-PGD: it visits the points of torchattacks and returns the best of them; closed forms; the losses it follows."""

import pytest
import torch
import torchattacks
from torch import Tensor, nn

from snnrobust.attacks.adaptive import APGD, TargetedAPGD
from snnrobust.attacks.iterate import outermost
from snnrobust.attacks.losses import LOSSES, dlr, margin, targeted_dlr
from snnrobust.attacks.schedule import checkpoints
from snnrobust.randomness import normal, uniform
from snnrobust.spiking.encoder import Poisson
from snnrobust.threat import L2, Linf, Threat
from tests.contracts.toys import CLASSES, Flat, Linear, Toy, watched

INDEX = torch.arange(12)
DRAWS = {Linf: ("rand", uniform), L2: ("randn", normal)}


@pytest.fixture(params=["spiking", "tanh"])
def problem(request, make_tiny, images) -> tuple[nn.Module, Tensor, Tensor]:
    """A network, images, and the labels that it gives them; in double precision, so that no spike hangs on rounding."""
    x = images[0].double()
    model = (make_tiny() if request.param == "spiking" else Toy(64).eval()).double()
    with torch.no_grad():
        return model, x, model(x).argmax(1)


def as_published(kind, model: nn.Module, threat: Threat, value: Tensor, **settings):
    """torchattacks' attack, but that its first checkpoint compares the first step with the start.

    As it stands, it compares with a row of its table that is not filled yet and holds zeros. `value` `[B]` is the loss
    of the start.
    """

    attack = kind(model, norm=type(threat).__name__, eps=threat.size, **settings)
    check = attack.check_oscillation

    def with_start(x, j, k, y5, k3):
        if j == k - 1:
            x = x.copy()
            x[-1] = value.detach().numpy()
        return check(x, j, k, y5, k3)

    attack.check_oscillation = with_start
    return attack


def assert_same_until_wrong(model: nn.Module, y: Tensor, mine: list[Tensor], expected: list[Tensor]) -> None:
    """Each sample's points are equal up to its first misclassified one.

    Behind it the ratio of logits may be constant and its gradient rounding alone.
    """
    ours, theirs = torch.stack(mine), torch.stack(expected)
    with torch.no_grad():
        wrong = torch.stack([model(points).argmax(1) != y for points in theirs]).cumsum(0) > 0
    before = torch.cat([torch.ones_like(wrong[:1]), ~wrong[:-1]])
    torch.testing.assert_close(ours[before], theirs[before], atol=1e-6, rtol=0)


# Budgets are powers of two, since torchattacks keeps the step in single precision.
@pytest.mark.parametrize("threat", [Linf(1 / 16), Linf(1 / 4), L2(1.0), L2(2.0)], ids=str)
@pytest.mark.parametrize(("loss", "steps"), [("cross_entropy", 12), ("cross_entropy", 60), ("dlr", 60)])
def test_it_visits_the_points_of_torchattacks(problem, monkeypatch, threat, loss, steps):
    model, x, y = problem
    with watched(model) as mine:
        found = APGD(threat, loss=loss, steps=steps, seed=3).search(model, x, y, INDEX, 1)

    function, draw = DRAWS[type(threat)]
    value, draws = LOSSES[loss](model(mine[0]), y), draw(x, INDEX, "start", 3, 1)
    theirs = {"cross_entropy": "ce", "dlr": "dlr"}[loss]
    reference = as_published(torchattacks.APGD, model, threat, value, steps=steps, loss=theirs)
    monkeypatch.setattr(torch, function, lambda shape: draws)
    with watched(model) as expected:
        best, right, *_ = reference.attack_single_run(x, y)
    assert len(mine) == len(expected) == steps + 1
    assert_same_until_wrong(model, y, mine, expected)
    assert torch.equal(model(found).argmax(1) == y, right)
    torch.testing.assert_close(found[right], best[right].detach(), atol=1e-6, rtol=0)


def test_towards_each_target_it_visits_the_points_of_torchattacks(problem, monkeypatch):
    model, x, y = problem
    threat, steps = Linf(1 / 16), 30
    with watched(model) as mine:
        TargetedAPGD(threat, targets=2, steps=steps, seed=3).search(model, x, y, INDEX, 0)
    ranked = model(x).argsort(1, descending=True)
    for number in range(2):
        runs = mine[1 + number * (steps + 1) :][: steps + 1]
        value, draws = targeted_dlr(model(runs[0]), y, ranked[:, 1 + number]), uniform(x, INDEX, "start", 3, 0, number)
        reference = as_published(torchattacks.APGDT, model, threat, value, steps=steps, n_classes=CLASSES)
        reference.target_class = 2 + number
        with monkeypatch.context() as patch, watched(model) as expected:
            patch.setattr(torch, "rand", lambda shape, draws=draws: draws)
            reference.attack_single_run(x, y)
        assert_same_until_wrong(model, y, runs, expected[1:])  # the first is the input, for its ranking
    assert len(mine) == 1 + 2 * (steps + 1)


@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr"])
@pytest.mark.parametrize("threat", [Linf(0.05), L2(1.5)], ids=str)
def test_it_returns_the_best_point_that_it_visits(problem, threat, loss):
    model, x, y = problem
    with watched(model) as points:
        found = APGD(threat, loss=loss, steps=40).search(model, x, y, INDEX, 0)
    with torch.no_grad():
        z = torch.stack([model(at) for at in points])
        last = model(found)
    wrong, ever = (z.argmax(2) != y), (z.argmax(2) != y).any(0)
    assert torch.equal(last.argmax(1) != y, ever)
    margins = torch.stack([margin(at, y) for at in z]).where(wrong, -torch.inf).amax(0)
    values = torch.stack([LOSSES[loss](at, y) for at in z]).amax(0)
    torch.testing.assert_close(margin(last, y)[ever], margins[ever], atol=1e-12, rtol=0)
    torch.testing.assert_close(LOSSES[loss](last, y)[~ever], values[~ever], atol=1e-12, rtol=0)
    assert (LOSSES[loss](last, y) > LOSSES[loss](z[0], y)).float().mean() > 0.5


def test_checkpoints_are_those_of_the_paper():
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert checkpoints(1) == (1,)
    for steps in range(1, 300):
        period, count, expected = max(int(0.22 * steps), 1), 0, []
        for number in range(1, steps + 1):
            count += 1
            if count == period:
                expected.append(number)
                count, period = 0, max(period - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
        assert checkpoints(steps) == tuple(expected)


def linear() -> tuple[Linear, Tensor, Tensor, Tensor]:
    """Two classes, points away from the bounds, labels, and the direction that increases the margin."""
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(2, 20, generator=generator, dtype=torch.float64)
    x = 0.3 + 0.4 * torch.rand(8, 20, generator=generator, dtype=torch.float64)
    y = torch.arange(8) % 2
    return Linear(weight, torch.randn(2, generator=generator, dtype=torch.float64)), x, y, weight[1 - y] - weight[y]


ALL = [APGD, lambda threat: APGD(threat, loss="margin"), lambda threat: APGD(threat, loss="dlr"), TargetedAPGD]


@pytest.mark.parametrize("eps", [0.01, 0.1, 0.3, 0.9])
@pytest.mark.parametrize("make", ALL)
def test_on_a_linear_model_it_ends_at_the_corner(make, eps):
    model, x, y, up = linear()
    found = make(Linf(eps))(model, x, y)
    torch.testing.assert_close(found, (x + eps * up.sign()).clamp(0, 1), atol=1e-12, rtol=0)


@pytest.mark.parametrize("eps", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("make", ALL)
def test_on_a_linear_model_it_ends_at_the_edge_of_the_ball(make, eps):
    model, x, y, up = linear()
    found = make(L2(eps))(model, x, y)
    torch.testing.assert_close(found, x + eps * up / up.norm(dim=1, keepdim=True), atol=1e-6, rtol=0)


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)], ids=str)
@pytest.mark.parametrize("kind", [APGD, TargetedAPGD])
def test_without_a_gradient_it_stays_at_its_random_start(images, threat, kind):
    x, y = images
    model = Flat(64).eval()
    words = ("start", 7, 0, 0) if kind is TargetedAPGD else ("start", 7, 0)
    start = outermost(threat, x, INDEX, model.bounds, *words)
    assert torch.equal(kind(threat, seed=7)(model, x, y), start)
    assert not torch.equal(start, x)


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.1)], ids=str)
def test_a_start_is_as_far_away_as_allowed(threat):
    x = torch.full((5, 3, 4), 0.5, dtype=torch.float64)
    start = outermost(threat, x, torch.arange(5), Toy(12).bounds, "start")
    order = torch.inf if isinstance(threat, Linf) else 2
    torch.testing.assert_close((start - x).flatten(1).norm(order, dim=1), torch.full((5,), 0.1).double())
    assert len({tuple(sample.flatten().tolist()) for sample in start}) == 5


def test_of_a_stochastic_model_it_judges_the_average(make_tiny, images):
    """Gradients and decisions come from the same draws: one forward each, none besides."""
    x, y = images
    model = make_tiny(Poisson(3))
    with watched(model) as points:
        found = APGD(Linf(0.2), steps=10, samples=4).search(model, x, y, INDEX, 0)
    assert len(points) == 4 * 11
    visited = torch.stack(points)[::4]
    assert (visited == found).flatten(2).all(2).any(0).all()


def test_the_targeted_ratio_by_hand():
    y, target = torch.tensor([0]), torch.tensor([2])
    assert targeted_dlr(torch.tensor([[4.0, 3.0, 1.0, 0.0, -5.0]]), y, target).item() == pytest.approx(-3 / 3.5)
    assert targeted_dlr(torch.tensor([[4.0, 3.0, 1.0]]), y, target).item() == pytest.approx(-3 / 3)
    assert targeted_dlr(torch.tensor([[4.0, 3.5]]), y, torch.tensor([1])).item() == pytest.approx(-0.5)


def test_the_ratio_by_hand():
    y = torch.tensor([0])
    assert dlr(torch.tensor([[4.0, 3.0, 1.0, 0.0]]), y).item() == pytest.approx(-1 / 3)
    assert dlr(torch.tensor([[4.0, 3.0, 1.0, 0.0]]), torch.tensor([2])).item() == pytest.approx(1)
    assert dlr(torch.tensor([[4.0, 3.5]]), y).item() == pytest.approx(-0.5)


@pytest.mark.parametrize("loss", [dlr, lambda z, y: targeted_dlr(z, y, (y + 1) % z.shape[1])])
def test_ratios_do_not_change_with_the_scale_of_the_logits(loss):
    z, y = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.arange(20) % 5
    torch.testing.assert_close(loss(1e3 * z + 7, y), loss(z, y))


def test_targets_are_the_most_likely_wrong_classes():
    class Fixed(Toy):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[1.0, 4.0, 3.0, 2.0], [4.0, 1.0, 3.0, 2.0]]) + 0 * x.flatten(1).sum(1, keepdim=True)

    x, y = torch.full((2, 12), 0.5), torch.tensor([1, 1])
    tried = [target.tolist() for target in TargetedAPGD(Linf(0.1))._targets(Fixed(12), x, y)]
    assert tried == [[2, 0], [3, 2], [0, 3]]
    assert len(TargetedAPGD(Linf(0.1), targets=2)._targets(Fixed(12), x, y)) == 2
