"""Our own attacks: closed forms, torchattacks as a reference, restarts, averages, noise."""

from dataclasses import dataclass

import pytest
import torch
import torchattacks
from torch import Tensor

from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.attacks.guard import untouched
from snnrobust.attacks.losses import cross_entropy, margin
from snnrobust.attacks.noise import GaussianNoise, UniformNoise
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.encoder import Poisson
from snnrobust.threat import Linf
from tests.contracts.toys import Flat, Linear, Toy, assert_same, disturb, state_of


def linear(entries: int = 20, classes: int = 2) -> Linear:
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(classes, entries, generator=generator, dtype=torch.float64)
    return Linear(weight, torch.randn(classes, generator=generator, dtype=torch.float64))


def points(number: int = 8, entries: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(6)
    x = torch.rand(number, entries, generator=generator, dtype=torch.float64)
    return x, torch.arange(number) % 2


def test_the_margin_is_positive_exactly_where_the_sample_is_misclassified():
    z = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0], [-1.0, -3.0, -2.0]])
    y = torch.tensor([1, 2, 0])
    assert margin(z, y).tolist() == [-1.0, 1.0, -1.0]


def test_cross_entropy_is_per_sample():
    z = torch.tensor([[0.0, 0.0], [0.0, 100.0]])
    assert cross_entropy(z, torch.tensor([0, 1])).tolist() == pytest.approx([0.693147, 0.0], abs=1e-6)


@pytest.mark.parametrize("eps", [0.03, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
@pytest.mark.parametrize("settings", [{"steps": 10}, {"steps": 1, "random_start": False, "step_size": 1.0}])
def test_on_a_linear_model_it_ends_at_the_closed_form(eps, loss, settings):
    model, (x, y) = linear(), points()
    expected = (x + eps * (model.weight[1 - y] - model.weight[y]).sign()).clamp(0, 1)
    found = ProjectedGradient(Linf(eps), loss=loss, **settings)(model, x, y)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_the_default_step_is_two_and_a_half_budgets_over_the_steps():
    model, (x, y) = linear(), points()
    x = x.clamp(0.3, 0.7)
    found = ProjectedGradient(Linf(0.1), steps=5, random_start=False)
    default, given = found(model, x, y), ProjectedGradient(Linf(0.1), 5, 0.05, random_start=False)(model, x, y)
    assert torch.equal(default, given)
    small = ProjectedGradient(Linf(0.1), 2, 0.01, random_start=False)(model, x, y)
    assert (small - x).abs().max() == pytest.approx(0.02, abs=1e-12)


def on_both(make_tiny, images) -> tuple[SpikingClassifier, Tensor, Tensor]:
    """A spiking classifier in double precision, so that no spike hangs on the rounding of a sum."""
    x, y = images
    return make_tiny().double(), x.double(), y


@pytest.mark.parametrize("eps", [0.02, 0.1, 0.3])
def test_one_step_equals_fgsm_of_torchattacks(make_tiny, images, eps):
    model, x, y = on_both(make_tiny, images)
    expected = torchattacks.FGSM(model, eps=eps)(x, y)
    attack = ProjectedGradient(Linf(eps), steps=1, step_size=eps, random_start=False)
    assert not torch.equal(expected, x)
    torch.testing.assert_close(attack(model, x, y), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("eps", [0.02, 0.1, 0.3])
def test_pgd_without_random_start_equals_that_of_torchattacks(make_tiny, images, eps):
    model, x, y = on_both(make_tiny, images)
    expected = torchattacks.PGD(model, eps=eps, alpha=eps / 4, steps=7, random_start=False)(x, y)
    attack = ProjectedGradient(Linf(eps), steps=7, step_size=eps / 4, random_start=False)
    torch.testing.assert_close(attack(model, x, y), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_pgd_increases_its_loss(classifier, images, loss):
    losses = {"cross_entropy": cross_entropy, "margin": margin}
    x, y = images
    found = ProjectedGradient(Linf(0.2), loss=loss)(classifier, x, y)
    with torch.no_grad():
        before, after = (losses[loss](classifier(at), y) for at in (x, found))
    assert after.mean() > before.mean() + 0.05


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_restarts_never_make_it_weaker(make_tiny, images, loss):
    model, x, y = on_both(make_tiny, images)
    y = model(x).argmax(1)
    losses = {"cross_entropy": cross_entropy, "margin": margin}
    previous_loss, previous_wrong = torch.full((len(x),), -torch.inf), torch.zeros(len(x), dtype=torch.bool)
    improved = 0
    for restarts in (1, 2, 4, 8):
        found = ProjectedGradient(Linf(0.05), steps=2, restarts=restarts, loss=loss)(model, x, y)
        with torch.no_grad():
            logits = model(found)
        wrong, value = logits.argmax(1) != y, losses[loss](logits, y)
        assert (wrong | ~previous_wrong).all()
        assert ((value >= previous_loss - 1e-9) | wrong).all()
        improved += int((value > previous_loss).sum())
        previous_loss, previous_wrong = value, wrong
    assert improved > len(x)  # each sample counts once for the first restart


def test_restarts_start_at_different_points():
    x, y = torch.full((2, 64), 0.5), torch.tensor([0, 1])
    seen: list[Tensor] = []

    class Watched(Flat):
        def forward(self, x: Tensor) -> Tensor:
            if x.requires_grad:
                seen.append(x.detach())
            return super().forward(x)

    ProjectedGradient(Linf(0.1), steps=1, restarts=3)(Watched(64), x, y)
    assert len(seen) == 3
    assert len({tuple(start.flatten().tolist()) for start in seen}) == 3


@dataclass(frozen=True)
class Watching(Linf):
    """Keeps the gradients that it is asked to ascend."""

    gradients: tuple[list[Tensor], ...] = ([],)

    def ascend(self, gradient: Tensor) -> Tensor:
        self.gradients[0].append(gradient)
        return super().ascend(gradient)


def test_samples_are_averaged(make_tiny, images):
    """The gradient of a step is the mean of those of the spike trains that the forwards drew."""
    x, y = images[0].double(), images[1]
    model = make_tiny(Poisson(3)).double()
    drawn: list[Tensor] = []
    hook = model.encoder.register_forward_hook(lambda _m, _i, spikes: drawn.append(spikes.detach()))
    threat = Watching(0.1, ([],))
    ProjectedGradient(threat, steps=1, random_start=False, samples=4)(model, x, y)
    hook.remove()
    assert len(drawn) == 4
    assert not torch.equal(drawn[0], drawn[1])
    single = []
    for spikes in drawn:
        sequence = spikes.requires_grad_()
        loss = torch.nn.functional.cross_entropy(model.backbone(sequence).mean(0), y, reduction="sum")
        single.append(torch.autograd.grad(loss, sequence)[0].sum(0))
    assert not torch.allclose(single[0], single[1])
    (found,) = threat.gradients[0]
    torch.testing.assert_close(found, torch.stack(single).mean(0), atol=1e-12, rtol=0)


def test_uniform_noise_is_uniform_in_the_box():
    x = torch.full((50, 1, 20, 20), 0.5)
    found = UniformNoise(Linf(0.1))(Toy(400), x, torch.zeros(50, dtype=torch.long)) - x
    assert found.min() == pytest.approx(-0.1, abs=1e-4)
    assert found.max() == pytest.approx(0.1, abs=1e-4)
    deviation = 0.2 / 12**0.5
    assert abs(float(found.mean())) < 5 * deviation / found.numel() ** 0.5
    assert found.std() == pytest.approx(deviation, rel=0.02)
    shares = torch.histc(found, 10, -0.1, 0.1) / found.numel()
    assert (shares - 0.1).abs().max() < 0.01


def test_gaussian_noise_has_its_standard_deviation_and_is_clipped():
    x = torch.full((50, 1, 20, 20), 0.5)
    y = torch.zeros(50, dtype=torch.long)
    found = GaussianNoise(0.05)(Toy(400), x, y) - x
    assert found.mean() == pytest.approx(0, abs=5 * 0.05 / found.numel() ** 0.5)
    assert found.std() == pytest.approx(0.05, rel=0.02)
    assert found.abs().max() > 0.15
    wide = GaussianNoise(1.0)(Toy(400), x, y)
    assert wide.min() == 0
    assert wide.max() == 1
    assert GaussianNoise(0.05).threat is None


@pytest.mark.parametrize("kind", [lambda seed: UniformNoise(Linf(0.1), seed), lambda seed: GaussianNoise(0.1, seed)])
def test_noise_is_a_function_of_seed_and_index(kind):
    model, x, y = Toy(64), torch.full((3, 64), 0.5), torch.zeros(3, dtype=torch.long)
    first = kind(0)(model, x, y, torch.tensor([7, 8, 9]))
    moved = kind(0)(model, x, y, torch.tensor([100, 7, 101]))
    assert torch.equal(first[0], moved[1])
    assert not torch.equal(first[0], moved[0])
    assert not torch.equal(first, kind(1)(model, x, y, torch.tensor([7, 8, 9])))


def test_without_index_the_position_in_the_batch_counts():
    model, (x, y) = Toy(20).double(), points()
    attack = ProjectedGradient(Linf(0.1))
    assert torch.equal(attack(model, x, y), attack(model, x, y, torch.arange(8)))


def test_a_classifier_that_is_no_module_can_be_attacked():
    class Plain:
        def __init__(self) -> None:
            self.inside = linear()
            self.bounds, self.stochastic = self.inside.bounds, False

        def __call__(self, x: Tensor) -> Tensor:
            return self.inside(x)

    x, y = points()
    assert torch.equal(ProjectedGradient(Linf(0.1))(Plain(), x, y), ProjectedGradient(Linf(0.1))(linear(), x, y))


def test_the_guard_freezes_inside_and_restores_after_an_error():
    model = Toy(8)
    disturb(model)
    before = state_of(model)

    def fail() -> None:
        with untouched(model):
            assert not any(m.training for m in model.modules())
            assert not any(p.requires_grad for p in model.parameters())
            model.train()(torch.rand(4, 8))
            raise KeyError("inside")

    with pytest.raises(KeyError):
        fail()
    assert_same(before, state_of(model))
