"""SA-PGD: its steps, one sample at a time in plain arithmetic; closed form; gradients of any scale, and none."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from snnrobust.attacks.adaptive import APGD
from snnrobust.attacks.base import Attack
from snnrobust.attacks.iterate import outermost
from snnrobust.attacks.losses import cross_entropy
from snnrobust.attacks.sapgd import SAPGD
from snnrobust.threat import L2, Linf
from tests.contracts.toys import Flat, Linear, Toy, watched

EPS = 0.1


def walk(model, x: Tensor, y: Tensor, at: Tensor, steps: int, halvings: set[int], b1=0.5, b2=0.8) -> list[Tensor]:
    """Points of one sample `x` `[1, ...]` from its start, entry by entry."""
    size, m, w, points = EPS, [0.0] * x.numel(), [0.0] * x.numel(), [at]
    for number in range(1, steps + 1):
        variable = at.clone().requires_grad_()
        g = torch.autograd.grad(cross_entropy(model(variable), y).sum(), variable)[0].flatten().tolist()
        mean, square = math.fsum(map(abs, g)) / len(g), math.fsum(v * v for v in g) / len(g)
        entries = []
        for i, (value, natural) in enumerate(zip(at.flatten().tolist(), x.flatten().tolist(), strict=True)):
            m[i], w[i] = b1 * m[i] + g[i] / mean, b2 * w[i] + g[i] ** 2 / square
            move = min(max(size * m[i] / (math.sqrt(w[i]) + 1e-12), -size), size)
            entries.append(min(max(min(max(value + move, natural - EPS), natural + EPS), 0.0), 1.0))
        at = torch.tensor(entries, dtype=x.dtype).view_as(x)
        points.append(at)
        if number in halvings:
            size /= 2
    return points


def inputs(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    x = torch.rand(4, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return x, torch.arange(4)


@pytest.mark.parametrize("constants", [{}, {"momentum": 0.9, "square_momentum": 0.25}])
@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 2, 3, 2)], ids=["image", "events"])
def test_its_steps_are_those_of_the_formulas(shape, constants):
    x, y = inputs(shape)
    model = Toy(36).double().eval()
    with watched(model) as points:
        SAPGD(Linf(EPS), steps=20, **constants).search(model, x, y, torch.arange(4), 0)
    assert len(points) == 21
    # 20 steps: first 4, then one less each time, down to 1
    numbers = {4, 7, 9, *range(10, 21)}
    for i in range(4):
        one = [p[i : i + 1] for p in points]
        expected = walk(model, x[i : i + 1], y[i : i + 1], one[0], 20, numbers, *constants.values())
        torch.testing.assert_close(torch.cat(one), torch.cat(expected), atol=1e-9, rtol=0)
    assert (points[-1] - points[0]).abs().max() > EPS


def test_it_returns_the_last_wrong_point_else_that_of_the_largest_loss(make_tiny, images):
    x, model = images[0].double(), make_tiny().double()
    with torch.no_grad():
        y = model(x).argmax(1)
    with watched(model) as points:
        found = SAPGD(Linf(EPS), steps=40).search(model, x, y, torch.arange(12), 0)
    with torch.no_grad():
        z = torch.stack([model(at) for at in points])
        loss = cross_entropy(model(found), y)
    wrong = z.argmax(2) != y
    ever = wrong.any(0)
    assert 0 < ever.sum() < 12
    for i in range(12):
        if ever[i]:
            assert torch.equal(found[i], points[int(wrong[:, i].nonzero().max())][i])
        else:
            assert loss[i] == max(cross_entropy(at[i : i + 1], y[i : i + 1]).item() for at in z)


@pytest.mark.parametrize("eps", [0.01, 0.1, 0.3, 0.9])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr"])
def test_on_a_linear_model_it_ends_at_the_corner(eps, loss):
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(2, 20, generator=generator, dtype=torch.float64)
    x, y = torch.rand(8, 20, generator=generator, dtype=torch.float64), torch.arange(8) % 2
    model = Linear(weight, torch.randn(2, generator=generator, dtype=torch.float64))
    expected = (x + eps * (weight[1 - y] - weight[y]).sign()).clamp(0, 1)
    torch.testing.assert_close(SAPGD(Linf(eps), loss=loss)(model, x, y), expected, atol=1e-12, rtol=0)


def test_other_threats_are_refused():
    with pytest.raises(ValueError, match=r"^threat: .*allowed: linf, got L2\(eps=0\.5\)$"):
        SAPGD(L2(0.5))


def test_without_a_gradient_it_stays_at_its_random_start(images):
    x, y = images
    model = Flat(64).eval()
    start = outermost(Linf(EPS), x, torch.arange(12), model.bounds, "start", 7, 0)
    assert torch.equal(SAPGD(Linf(EPS), seed=7)(model, x, y), start)
    assert not torch.equal(start, x)


class _Times(torch.autograd.Function):
    """The identity, with a gradient multiplied by a factor per sample."""

    @staticmethod
    def forward(ctx, x: Tensor, factor: Tensor) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor.view(-1, *[1] * (grad.dim() - 1)), None


class Times(Toy):
    """The gradient of each sample is off by a factor."""

    factor = torch.ones(4)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(_Times.apply(x, self.factor.to(x)))


def test_where_the_gradient_ends_momentum_does_not_carry_on():
    x, y = inputs((1, 6, 6))
    model = Times(36).double().eval()

    def end(_: nn.Module, points: tuple[Tensor, ...]) -> None:
        model.factor = torch.tensor([1.0, float(len(visited) < 3), 1.0, 1.0])

    with watched(model) as visited:
        hook = model.register_forward_pre_hook(end)  # after the first, which counts this point as well
        SAPGD(Linf(EPS), steps=6).search(model, x, y, torch.arange(4), 0)
        hook.remove()
    stays = [torch.equal(now[1], then[1]) for then, now in pairwise(visited)]
    assert stays == [False, False, True, True, True, True]
    assert not any(torch.equal(now[0], then[0]) for then, now in pairwise(visited))


@pytest.mark.parametrize("attack", [SAPGD(Linf(EPS), steps=20), APGD(Linf(EPS), steps=20), APGD(L2(1.0), steps=20)])
@pytest.mark.parametrize("factor", [torch.nan, torch.inf, 0.0, 2.0**-120, 2.0**100])
def test_no_gradient_destroys_a_sample_or_its_neighbours(attack: Attack, factor):
    """In single precision, where squares of the last two factors are 0 and infinite: their scale does not matter."""
    x, y = inputs((1, 6, 6))
    x, model = x.float(), Times(36).eval()
    expected = attack(model, x, y)
    model.factor = torch.tensor([1.0, factor, 1.0, 1.0])
    found = attack(model, x, y)
    others = torch.tensor([0, 2, 3])
    assert torch.equal(found[others], expected[others])
    assert found.isfinite().all()
    if not math.isfinite(factor) or factor == 0:
        assert not torch.equal(found[1], x[1])  # a random start at the least
    else:
        torch.testing.assert_close(found[1], expected[1], atol=1e-5, rtol=0)
