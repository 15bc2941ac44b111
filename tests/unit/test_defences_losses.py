"""TRADES and MART against loops, and what an attack on a divergence sees."""

import dataclasses
import math
from functools import partial

import pytest
import torch
from torch import Tensor

from snnrobust.attacks.adaptive import APGD, TargetedAPGD
from snnrobust.attacks.base import Attack
from snnrobust.attacks.flips import TopFlips
from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.attacks.noise import UniformNoise
from snnrobust.attacks.sapgd import SAPGD
from snnrobust.attacks.square import Square
from snnrobust.attacks.thirdparty import TorchAttack
from snnrobust.data.dataset import Batch
from snnrobust.estimators.analog import Analog
from snnrobust.estimators.assg import ASSG
from snnrobust.estimators.ensemble import Ensemble
from snnrobust.estimators.pdsg import PDSG
from snnrobust.estimators.rate import BPTR, RateGradient
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.flips import Flips
from snnrobust.regularizers.base import Pass
from snnrobust.spiking.encoder import Poisson
from snnrobust.threat import L2, Linf
from snnrobust.training.defences.base import Moment
from snnrobust.training.defences.crafting import crafted
from snnrobust.training.defences.departure import (
    AT_RANDOM,
    Departure,
    Direction,
    departing,
    divergence,
    refuse_without_slope,
)
from snnrobust.training.defences.mart import Mart, mart_loss
from snnrobust.training.defences.trades import Trades, trades_loss
from tests.contracts.toys import assert_same, streams

EPS = 0.1
NEAR = ProjectedGradient(Linf(EPS), steps=4, start="normal", start_size=0.001)
NOW = Moment(1, 0.0)
DIRECTIONS: list[Direction] = ["clean_to_adversarial", "adversarial_to_clean"]


def softmax(z: Tensor) -> list[Tensor]:
    shares = [math.e ** (value - z.max()) for value in z]
    return [share / sum(shares) for share in shares]


def trades_by_loops(clean: Tensor, other: Tensor, y: Tensor, beta: float, kl: str) -> Tensor:
    total = torch.zeros((), dtype=clean.dtype)
    for z, w, label in zip(clean, other, y.tolist(), strict=True):
        p, q = softmax(z), softmax(w)
        first, second = (p, q) if kl == DIRECTIONS[0] else (q, p)
        far = sum(a * (a.log() - b.log()) for a, b in zip(first, second, strict=True))
        total = total - p[label].log() + beta * far
    return total / len(y)


def mart_by_loops(clean: Tensor, other: Tensor, y: Tensor, beta: float, constants: tuple[float, float]) -> Tensor:
    """With the constants of the published code, or without (1, 1)."""
    total = torch.zeros((), dtype=clean.dtype)
    for z, w, label in zip(clean, other, y.tolist(), strict=True):
        p, q = softmax(z), softmax(w)
        rival = max(share for j, share in enumerate(q) if j != label)
        far = sum(a * (a.log() - b.log()) for a, b in zip(p, q, strict=True))
        total = total - q[label].log() - (constants[0] - rival).log() + beta * far * (constants[1] - p[label])
    return total / len(y)


def logits() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    clean, other = (3 * torch.randn(7, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    return clean.requires_grad_(), other.requires_grad_(), torch.randint(5, (7,), generator=generator)


def assert_same_with_gradients(one: Tensor, two: Tensor, inputs: tuple[Tensor, ...], rtol: float = 1e-10) -> None:
    torch.testing.assert_close(one, two, rtol=rtol, atol=0)
    pairs = zip(torch.autograd.grad(one, inputs), torch.autograd.grad(two, inputs), strict=True)
    for first, second in pairs:
        assert first.abs().max() > 0
        torch.testing.assert_close(first, second, rtol=100 * rtol, atol=rtol)


@pytest.mark.parametrize("kl", DIRECTIONS)
@pytest.mark.parametrize("beta", [0.5, 6.0])
def test_trades_equals_loops_with_a_gradient_through_both_outputs(kl, beta):
    clean, other, y = logits()
    expected = trades_by_loops(clean, other, y, beta, kl)
    assert_same_with_gradients(trades_loss(clean, other, y, beta, kl), expected, (clean, other))


def test_the_directions_of_the_divergence_differ():
    p, q = (torch.tensor([row]).log() for row in ([0.5, 0.5], [0.25, 0.75]))
    forward = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    backward = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert divergence(p, q, "clean_to_adversarial").tolist() == pytest.approx([forward], rel=1e-6)
    assert divergence(p, q, "adversarial_to_clean").tolist() == pytest.approx([backward], rel=1e-6)


@pytest.mark.parametrize("beta", [0.5, 4.0])
def test_mart_equals_loops(beta):
    clean, other, y = logits()
    expected = mart_by_loops(clean, other, y, beta, (1.0, 1.0))
    assert_same_with_gradients(mart_loss(clean, other, y, beta), expected, (clean, other))


def test_mart_differs_from_the_published_constants_by_as_much_as_these_are():
    clean, other, y = logits()
    published = mart_by_loops(clean / 3, other / 3, y, 4.0, (1.0001, 1.0000001))
    found = mart_loss(clean / 3, other / 3, y, 4.0)
    assert float(found.detach()) == pytest.approx(float(published.detach()), rel=1e-3)


@pytest.mark.parametrize("size", [0.0, 1e-6, 50.0, 1e4])
def test_losses_and_gradients_are_finite_for_any_logits(size):
    """Also where both outputs are equal, one class is certain, or the rival is."""
    clean = torch.tensor([[1.0, -1.0, 0.5], [1.0, 1.0, 1.0], [-1.0, 1.0, 0.0]]) * size
    other = torch.tensor([[-1.0, 1.0, 0.5], [1.0, 1.0, 1.0], [1.0, -1.0, 0.0]]) * size
    y = torch.tensor([0, 1, 2])
    for loss in (lambda a, b: mart_loss(a, b, y, 4.0), lambda a, b: trades_loss(a, b, y, 6.0)):
        inputs = clean.clone().requires_grad_(), other.clone().requires_grad_()
        value = loss(*inputs)
        assert value.isfinite()
        assert all(grad.isfinite().all() for grad in torch.autograd.grad(value, inputs))


@pytest.fixture
def batch(images) -> Batch:
    x, y = images
    return Batch(x, y, torch.arange(20, 20 + len(x)))


def distance(model, batch: Batch, found: Tensor) -> Tensor:
    with torch.no_grad():
        p, q = (model.eval()(x).double().log_softmax(1) for x in (batch.x, found))
    return divergence(p, q, "clean_to_adversarial")


def test_logits_of_the_departure_rise_with_the_divergence_and_never_decide_otherwise(classifier, batch):
    target, y = departing(classifier, batch, "clean_to_adversarial")
    assert isinstance(target, Departure)
    assert y.tolist() == [0] * len(batch.y)
    generator = torch.Generator().manual_seed(0)
    for size in (0.0, 1e-4, 0.1, 1.0):
        x = (batch.x + size * torch.randn(batch.x.shape, generator=generator)).clamp(0, 1)
        with torch.no_grad():
            z = target(x)
        expected = -1 / (1 + distance(classifier, batch, x))
        torch.testing.assert_close(z, torch.stack([torch.zeros_like(expected), expected], 1), atol=1e-12, rtol=0)
        assert (z.argmax(1) == 0).all()


def test_at_the_input_the_divergence_has_no_slope(classifier, batch):
    target, y = departing(classifier, batch, "adversarial_to_clean")
    x = batch.x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(torch.nn.functional.cross_entropy(target(x), y), x)
    assert slope.abs().max() < 1e-12


def test_only_whole_batches_have_a_departure(classifier, batch):
    target, _ = departing(classifier, batch, "clean_to_adversarial")
    with pytest.raises(ValueError, match="attack: it looks at 3 of 12 samples; allowed: whole batches"):
        target(batch.x[:3])


ATTACKS: dict[str, Attack] = {
    "pgd_near": NEAR,
    "pgd": dataclasses.replace(NEAR, start="uniform", start_size=None),
    "l2": ProjectedGradient(L2(1.0), steps=4, start="normal", start_size=0.001),
    "restarts": dataclasses.replace(NEAR, restarts=2),
    "margin": dataclasses.replace(NEAR, loss="margin", momentum=0.9),
    "rfgsm": ProjectedGradient(Linf(EPS), steps=1, step_size=EPS, start="sign", start_size=EPS / 2),
    "apgd": APGD(Linf(EPS), steps=6),
    "sapgd": SAPGD(Linf(EPS), steps=6),
    "square": Square(Linf(EPS), queries=40),
    **{
        estimator.__class__.__name__: dataclasses.replace(NEAR, estimator=estimator)
        for estimator in (RateGradient(), PDSG(), ASSG(), Analog())
    },
    "ensemble": dataclasses.replace(NEAR, estimator=Ensemble({"trained": TRAINED, "bptr": BPTR()})),
    **{f"torchattacks {name}": TorchAttack(name, L2(1.0) if name == "PGDL2" else Linf(EPS)) for name in AT_RANDOM},
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_depart_further_than_noise(make_tiny, batch, name):
    attack, model = ATTACKS[name], make_tiny()
    refuse_without_slope(attack)
    found = crafted(attack, model, batch, NOW, seen=partial(departing, kl="clean_to_adversarial"))
    assert attack.threat is not None
    assert float(attack.threat.excess(found, batch.x).max()) <= 1e-6
    noise = UniformNoise(Linf(EPS / 2) if isinstance(attack.threat, L2) else Linf(EPS))
    random = crafted(noise, model, batch, NOW)
    assert distance(model, batch, found).mean() > 1.2 * distance(model, batch, random).mean()


def test_the_clean_output_of_a_network_that_draws_is_drawn_apart(make_tiny, batch):
    model, drawn, seen = make_tiny(Poisson(3)), streams(), []

    def watching(network, batch):
        target, y = departing(network, batch, "clean_to_adversarial")
        assert isinstance(target, Departure)
        assert target.stochastic
        seen.append(target.clean)
        return target, y

    for epoch in (1, 1, 2):
        crafted(NEAR, model, batch, Moment(epoch, epoch - 1.0), seen=watching)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert_same(drawn, streams())


def step(defence, model, batch: Batch) -> tuple[Tensor, Pass, list[Tensor]]:
    """Also the inputs of all forwards of the model in training mode."""
    seen: list[Tensor] = []
    hook = model.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].detach()) if module.training else None
    )
    loss, at = defence.step(model.train(), batch, lambda x: Pass(batch.x, x, batch.y, batch.index, model(x)), NOW)
    hook.remove()
    return loss, at, seen


@pytest.mark.parametrize("kl", DIRECTIONS)
def test_trades_regularizes_the_clean_pass_and_learns_from_both(make_tiny, batch, kl):
    classifier = make_tiny()
    loss, at, seen = step(Trades(NEAR, beta=2.0, kl=kl), classifier, batch)
    clean, other = seen
    assert torch.equal(clean, batch.x)
    assert torch.equal(at.x, batch.x)
    increasing = {way: crafted(NEAR, make_tiny(), batch, NOW, seen=partial(departing, kl=way)) for way in DIRECTIONS}
    assert [way for way in DIRECTIONS if torch.equal(increasing[way], other)] == [kl]
    again = trades_loss(at.logits, classifier(other), batch.y, 2.0, kl)
    assert float(loss.detach()) == pytest.approx(float(again.detach()), rel=1e-5)


def test_mart_regularizes_the_adversarial_pass(classifier, batch):
    loss, at, seen = step(Mart(NEAR, beta=2.0), classifier, batch)
    other, clean = seen
    assert torch.equal(clean, batch.x)
    assert torch.equal(at.x, other)
    assert 0 < (other - batch.x).abs().max() <= EPS + 1e-6
    again = mart_loss(classifier(batch.x), at.logits, batch.y, 2.0)
    assert float(loss.detach()) == pytest.approx(float(again.detach()), rel=1e-5)


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (dataclasses.replace(NEAR, start="input"), "attack.start: got input, .* allowed: normal, uniform, sign"),
        (dataclasses.replace(NEAR, loss="dlr"), "three or more classes"),
        (TargetedAPGD(Linf(EPS)), "three or more classes"),
        (APGD(Linf(EPS), loss="dlr"), "three or more classes"),
        (TopFlips(Flips(3)), "TopFlips follows the gradient at the input"),
        (TorchAttack("FGSM", Linf(EPS)), "torchattacks.FGSM begins at the input"),
        (TorchAttack("APGD", Linf(EPS)), "or returns misclassified samples alone"),
    ],
)
def test_attacks_that_cannot_increase_a_divergence_are_refused(attack, words):
    with pytest.raises(ValueError, match=words):
        Trades(attack)
    Mart(attack)
