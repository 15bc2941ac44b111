"""Every estimator against three steps of one neuron in plain numbers, and what is particular to rules of layers."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from snnrobust.attacks.gradient import gradient
from snnrobust.estimators.analog import Analog
from snnrobust.estimators.assg import ASSG
from snnrobust.estimators.base import Estimator, repeating
from snnrobust.estimators.hart import HART
from snnrobust.estimators.mixed import Mixed
from snnrobust.estimators.pdsg import PDSG, spread
from snnrobust.estimators.rate import BPTR, RateGradient
from snnrobust.estimators.surrogate import TRAINED, Surrogate
from snnrobust.spiking.classifier import Classifier
from snnrobust.spiking.neuron import IF, LIF, Neuron
from snnrobust.spiking.surrogate import atan, exponential, gaussian, rectangle, sigmoid, straight_through, triangle
from snnrobust.threat import Bounds

WEIGHT = [1.0, -2.0, 3.0]


class One(nn.Module):
    """One neuron per sample: currents `[B, T]` (or `[B, 1]`, repeated) to the logit `sum_t weight_t s_t`, `[B, 1]`."""

    bounds = Bounds(-10, 10)
    stochastic = False

    def __init__(self, neuron: Neuron, weight: Sequence[float] = WEIGHT) -> None:
        super().__init__()
        self.neuron = neuron
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.neuron(x.T.unsqueeze(2).expand(len(self.weight), len(x), 1))
        return (torch.tensor(self.weight, dtype=x.dtype).view(-1, 1, 1) * spikes).sum(0)


def slope_at(view: Classifier, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(view(x).sum(), x)[0]


@dataclass(frozen=True)
class Neuronal:
    """Three steps of one neuron in plain numbers."""

    current: Sequence[float]
    leak: float
    gain: float
    threshold: float
    detach: bool

    @property
    def potentials(self) -> list[float]:
        found, v = [], 0.0
        for i in self.current:
            u = self.leak * v + self.gain * i
            found.append(u)
            v = 0.0 if u >= self.threshold else u
        return found

    @property
    def q(self) -> list[float]:
        return [u - self.threshold for u in self.potentials]

    def through_time(self, slopes: Sequence[float]) -> list[float]:
        found, dv = [0.0, 0.0, 0.0], 0.0
        for t in (2, 1, 0):
            u, g = self.potentials[t], slopes[t]
            s = 1.0 if u >= self.threshold else 0.0
            du = WEIGHT[t] * g + dv * ((1 - s) - (0.0 if self.detach else u * g))
            found[t] = self.gain * du
            dv = self.leak * du
        return found


def tent(q: float, width: float = 1.0) -> float:
    return max(0.0, width - abs(q)) / width**2


def bell(q: float, mean: float, deviation: float) -> float:
    return math.exp(-(((q - mean) / deviation) ** 2) / 2) / (math.sqrt(2 * math.pi) * deviation)


def lorentz(q: float, alpha: float) -> float:
    return (alpha / 2) / (1 + (math.pi * alpha * q / 2) ** 2)


def bptr(n: Neuronal) -> list[float]:
    fired = any(u >= n.threshold for u in n.potentials)
    return [n.gain * w * fired for w in WEIGHT]


def rate(n: Neuronal) -> list[float]:
    scale = n.gain / n.threshold
    mean = scale * sum(n.current) / 3
    if 0 <= mean < 1 - n.leak:
        slope = 0.2
    elif 1 - n.leak <= mean < 2:
        slope = (1 - 0.2 + 0.2 * n.leak) / (1 + n.leak)
    else:
        slope = 0.0
    return [w * slope * scale for w in WEIGHT]


def hart(n: Neuronal, width: float) -> list[float]:
    mean = sum(w * tent(q, width) for w, q in zip(WEIGHT, n.q, strict=True)) / 3
    return [n.gain * mean] * 3


def pdsg(n: Neuronal) -> list[float]:
    u = n.potentials
    sigma = [1.0, *(statistics.stdev(u[:t]) or 1.0 for t in (2, 3))]
    return n.through_time([bell(q, s / 2, s) for q, s in zip(n.q, sigma, strict=True)])


def assg(n: Neuronal, gradients: int = 1) -> list[float]:
    sharpness, slopes = 2 / math.pi * math.tan(math.pi * 0.43), []
    for q in n.q:
        m, d = 1.0, 0.0
        for _ in range(gradients):
            m = 0.9 * m + 0.1 * abs(q)
            d = 0.9 * d + 0.1 * abs(abs(q) - m)
        slopes.append(lorentz(q, sharpness / (m + 1.5 * d + 1e-4)))
    return n.through_time(slopes)


def relu(n: Neuronal) -> list[float]:
    return [w * n.gain / n.threshold * (i > 0) for w, i in zip(WEIGHT, n.current, strict=True)]


def clip(n: Neuronal) -> list[float]:
    scale = n.gain / n.threshold
    return [w * scale * (0 <= i * scale <= 1) for w, i in zip(WEIGHT, n.current, strict=True)]


def shaped(formula: Callable[[float], float], n: Neuronal) -> list[float]:
    return n.through_time([formula(q) for q in n.q])


ORACLES: dict[str, tuple[Estimator, Callable[[Neuronal], list[float]]]] = {
    "trained": (TRAINED, partial(shaped, partial(tent, width=0.9))),
    "triangle": (Surrogate(triangle(2.0)), partial(shaped, partial(tent, width=2.0))),
    "sigmoid": (
        Surrogate(sigmoid()),
        partial(shaped, lambda q: 4 * math.exp(-4 * q) / (1 + math.exp(-4 * q)) ** 2),
    ),
    "atan": (Surrogate(atan(3.0)), partial(shaped, partial(lorentz, alpha=3.0))),
    "exponential": (Surrogate(exponential(0.3, 2.0)), partial(shaped, lambda q: 0.3 * math.exp(-2 * abs(q)))),
    "rectangle": (Surrogate(rectangle(0.5)), partial(shaped, lambda q: 2.0 * (abs(q) < 0.25))),
    "gaussian": (Surrogate(gaussian()), partial(shaped, partial(bell, mean=0.0, deviation=0.5))),
    "straight_through": (Surrogate(straight_through()), partial(shaped, lambda q: 1.0)),
    "bptr": (BPTR(), bptr),
    "rate": (RateGradient(), rate),
    "hart": (HART(1.4), partial(hart, width=1.4)),
    "pdsg": (PDSG(), pdsg),
    "assg": (ASSG(), assg),
    "analog": (Analog(), relu),
    "analog clip": (Analog("clip"), clip),
    "mixed": (
        Mixed({"hart": HART(1.4), "rate": RateGradient()}),
        lambda n: [(a + b) / 2 for a, b in zip(hart(n, 1.4), rate(n), strict=True)],
    ),
}
CURRENTS = [[0.75, 0.875, 1.5], [0.25, -0.5, 0.125], [1.25, 0.5, 0.375], [0.5, 0.5, 0.75], [3.0, 2.5, 2.0]]
NEURONS: dict[str, tuple[Callable[..., Neuron], float, float, float]] = {
    "lif": (partial(LIF, tau=2.0, threshold=0.8), 0.5, 1.0, 0.8),
    "decayed": (partial(LIF, tau=2.5, threshold=0.4, decay_input=True), 0.6, 0.4, 0.4),
    "if": (partial(IF, threshold=1.25), 1.0, 1.0, 1.25),
}
every_oracle = pytest.mark.parametrize("name", ORACLES)
every_neuron = pytest.mark.parametrize(("kind", "detach"), [*product(NEURONS, (False, True))])


def neuron_of(kind: str, detach: bool) -> Neuron:
    return NEURONS[kind][0](surrogate=triangle(0.9), detach_reset=detach)


def neuronal(current: Sequence[float], kind: str, detach: bool) -> Neuronal:
    _, leak, gain, threshold = NEURONS[kind]
    return Neuronal(current, leak, gain, threshold, detach)


@every_oracle
@every_neuron
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=["float32", "float64"])
def test_three_steps_of_one_neuron(name, kind, detach, dtype, atol):
    """In the compiled kernels and in the plain code; currents that vary, and currents that do not."""
    estimator, formula = ORACLES[name]
    model = One(neuron_of(kind, detach))
    x = torch.tensor(CURRENTS, dtype=dtype)
    with estimator.applied(model) as view:
        found = slope_at(view, x)
    expected = [formula(neuronal(current, kind, detach)) for current in CURRENTS]
    assert found.tolist() == [pytest.approx(row, abs=atol) for row in expected]
    with estimator.applied(model) as view:
        summed = slope_at(view, x[:, :1])
    sums = [sum(formula(neuronal(current[:1] * 3, kind, detach))) for current in CURRENTS]
    assert summed.flatten().tolist() == pytest.approx(sums, abs=3 * atol)


@pytest.mark.parametrize("leak", [1.0, 0.99, 0.9, 0.5])
@pytest.mark.parametrize("gamma", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("threshold", [1.0, 0.3])
def test_the_rate_rises_by_one(leak, gamma, threshold):
    """The slope over the current integrates to 1, whatever the leak, the threshold and the scale of the input."""
    neurons: list[IF | LIF] = [IF(triangle(), threshold)]
    if leak < 1:
        neurons = [LIF(triangle(), 1 / (1 - leak), threshold, decay_input) for decay_input in (False, True)]
    for neuron in neurons:
        end = 3 * threshold / neuron.dynamics.gain
        current = torch.linspace(-end, end, 200_001, dtype=torch.float64)
        with RateGradient(gamma).applied(One(neuron, [1.0])) as view:
            slope = slope_at(view, current.unsqueeze(1))
        assert float(torch.trapezoid(slope.flatten(), current)) == pytest.approx(1, abs=2e-4)


def test_the_pieces_of_the_rate_are_closed_below_and_open_above():
    """At 0 and without leak the slope is 0.5, not 0.2 + 0.5; at 2 it has ended."""
    x = torch.tensor([[-1e-6], [0.0], [1.0], [2.0 - 1e-6], [2.0]])
    with RateGradient().applied(One(IF(triangle()), [1.0])) as view:
        assert slope_at(view, x).flatten().tolist() == [0, 0.5, 0.5, 0.5, 0]
    with RateGradient().applied(One(LIF(triangle()), [1.0])) as view:
        steep = pytest.approx((1 - 0.2 + 0.1) / 1.5)
        assert slope_at(view, torch.tensor([[0.0], [0.49], [0.5]])).flatten().tolist() == [
            pytest.approx(0.2), pytest.approx(0.2), steep
        ]  # fmt: skip


def random_currents(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype) - 0.5


def test_hart_is_the_same_at_every_step():
    with HART().applied(One(LIF(triangle()))) as view:
        found = slope_at(view, random_currents(20, 3))
    assert torch.equal(found, found[:, :1].expand_as(found))
    assert (found != 0).any()


def test_bptr_passes_where_a_neuron_fired_and_nowhere_else():
    model, x = One(LIF(triangle())), random_currents(50, 3)
    fired = model.neuron(x.T.unsqueeze(2)).amax(0).flatten() > 0
    assert 0.2 < fired.double().mean() < 0.8
    with BPTR().applied(model) as view:
        assert torch.equal(slope_at(view, x), fired.unsqueeze(1) * torch.tensor(WEIGHT, dtype=x.dtype))


def naive_spread(u: Tensor, batch: bool) -> Tensor:
    """By stacking the past anew at every step, sample by sample, channel by channel."""
    sigma = torch.ones_like(u)
    space = u.dim() > 3
    for t, n, c in product(range(u.shape[0]), range(u.shape[1]), range(u.shape[2])):
        past = u[: t + 1] if batch else u[: t + 1, n : n + 1]
        values = past[:, :, c] if space or batch else past
        if values.numel() > 1 and values.std() > 1e-9:
            sigma[t, n, c] = values.std()
    return sigma


@pytest.mark.parametrize("shape", [(4, 3, 2, 5, 3), (4, 3, 6), (1, 1, 1), (3, 1, 1), (2, 2, 2, 1, 1), (3, 2, 2, 7)])
@pytest.mark.parametrize("over", ["sample", "batch"])
def test_the_spread_is_that_of_all_potentials_up_to_the_step(shape, over):
    u = random_currents(*shape)
    found = spread(u, over).expand_as(u)
    torch.testing.assert_close(found, naive_spread(u, over == "batch"), atol=1e-12, rtol=0)
    torch.testing.assert_close(spread(100 + u.float(), over).expand_as(u), found.float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("value", [0.0, 0.1, 17.3])
def test_potentials_without_spread_count_as_one(value):
    assert torch.equal(spread(torch.full((3, 2, 4, 3, 3), value), "sample"), torch.ones(3, 2, 4, 1, 1))


def test_the_published_spread_makes_samples_depend_on_each_other():
    model, x = One(LIF(triangle())), random_currents(6, 3)
    cases: list[tuple[Literal["sample", "batch"], bool]] = [("sample", True), ("batch", False)]
    for over, alone in cases:
        with PDSG(over).applied(model) as view:
            whole, part = slope_at(view, x)[:2], slope_at(view, x[:2])
        assert torch.allclose(whole, part, atol=1e-12) == alone


def test_the_sharpness_of_assg_is_that_of_the_paper():
    assert ASSG(a=0.435).sharpness == pytest.approx(3.0741, abs=5e-5)
    assert 2 / math.pi * math.atan(math.pi / 2 * ASSG(a=0.435).sharpness) == pytest.approx(0.87)
    with pytest.raises(ValueError, match=r"^a: got 0\.5; allowed: above 0 and below 0\.5$"):
        ASSG(a=0.5)


def test_the_share_of_assg_within_its_width_is_2a():
    """All samples remember q = 0.5; then, without a further update, the derivative is scanned."""
    m = 0.9 + 0.1 * 0.5
    width = m + 1.5 * 0.1 * abs(0.5 - m)
    q = torch.linspace(-width, width, 20_001, dtype=torch.float64)
    with ASSG(a=0.435).applied(One(IF(triangle()), [1.0])) as view:
        slope_at(view, torch.full_like(q, 1.5).unsqueeze(1))
        with repeating(1):
            slope = slope_at(view, (1 + q).unsqueeze(1)).flatten()
    assert float(torch.trapezoid(slope, q)) == pytest.approx(0.87, abs=1e-4)


def test_the_memory_of_assg_is_updated_once_per_gradient_and_begins_anew():
    kind, detach, x = "lif", False, torch.tensor(CURRENTS, dtype=torch.float64)
    model = One(neuron_of(kind, detach))
    rows = [neuronal(current, kind, detach) for current in CURRENTS]
    first, second = ([pytest.approx(assg(row, n), abs=1e-12) for row in rows] for n in (1, 2))
    for _ in range(2):
        with ASSG().applied(model) as view:
            view(x)  # a forward without a gradient
            assert slope_at(view, x).tolist() == first
            for number in (1, 2):
                with repeating(number):
                    assert slope_at(view, x).tolist() == first
            assert slope_at(view, x).tolist() == second
            assert slope_at(view, x[:3]).tolist() == first[:3]  # another batch


def test_a_gradient_over_several_samples_counts_once():
    model, x, y = One(LIF(triangle())), random_currents(6, 3), torch.zeros(6, dtype=torch.long)
    with ASSG().applied(model) as view:
        once = [gradient(view, x, y, lambda z, y: z.sum(1))[0] for _ in range(2)]
    with ASSG().applied(model) as view:
        thrice = [gradient(view, x, y, lambda z, y: z.sum(1), samples=3)[0] for _ in range(2)]
    torch.testing.assert_close(torch.stack(thrice), torch.stack(once), atol=1e-12, rtol=0)
    assert not torch.equal(once[0], once[1])


def test_a_mixture_keeps_the_memories_of_its_members():
    model, x = One(LIF(triangle())), random_currents(6, 3)
    with ASSG().applied(model) as alone, Mixed({"it": ASSG(), "again": ASSG(rho=1.5)}).applied(model) as mixed:
        for _ in range(3):
            torch.testing.assert_close(slope_at(mixed, x), slope_at(alone, x), atol=1e-12, rtol=0)
