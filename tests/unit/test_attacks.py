"""Gradient attacks and noise: closed forms, torchattacks as a reference, restarts, lengths, estimators, averages."""

import itertools
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torchattacks
from torch import Tensor

from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.attacks.guard import untouched
from snnrobust.attacks.losses import cross_entropy, margin
from snnrobust.attacks.noise import GaussianNoise, SaltAndPepper, UniformNoise
from snnrobust.estimators.ensemble import Ensemble
from snnrobust.estimators.surrogate import Surrogate, Trained
from snnrobust.randomness import normal, uniform
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.encoder import Poisson
from snnrobust.spiking.surrogate import atan
from snnrobust.threat import L2, Bounds, Linf
from tests.contracts.toys import Broken, Flat, Linear, Toy, assert_same, disturb, state_of

NARROW = Surrogate(atan(5.0))


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
@pytest.mark.parametrize("settings", [{"steps": 10}, {"steps": 1, "start": "input", "step_size": 1.0}])
def test_on_a_linear_model_it_ends_at_the_closed_form(eps, loss, settings):
    model, (x, y) = linear(), points()
    expected = (x + eps * (model.weight[1 - y] - model.weight[y]).sign()).clamp(0, 1)
    found = ProjectedGradient(Linf(eps), loss=loss, **settings)(model, x, y)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("eps", [0.03, 0.3])
@pytest.mark.parametrize(
    "settings", [{"steps": 40, "step_size": 1.0}, {"steps": 1, "start": "input", "step_size": 1.0}]
)
def test_in_l2_it_ends_at_the_closed_form(eps, settings):
    """Where the bounds are far away: `x + eps (w_j - w_y) / ||w_j - w_y||`."""
    model, (x, y) = linear(), points()
    x = x.clamp(0.4, 0.6)
    uphill = (model.weight[1 - y] - model.weight[y]).detach()
    expected = x + eps * uphill / uphill.norm(dim=1, keepdim=True)
    assert expected.min() > 0
    assert expected.max() < 1
    found = ProjectedGradient(L2(eps), **settings)(model, x, y)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_the_default_step_is_two_and_a_half_budgets_over_the_steps():
    model, (x, y) = linear(), points()
    x = x.clamp(0.3, 0.7)
    default = ProjectedGradient(Linf(0.1), steps=5, start="input")(model, x, y)
    assert torch.equal(default, ProjectedGradient(Linf(0.1), steps=5, step_size=0.05, start="input")(model, x, y))
    small = ProjectedGradient(Linf(0.1), steps=2, step_size=0.01, start="input")(model, x, y)
    assert (small - x).abs().max() == pytest.approx(0.02, abs=1e-12)


def on_both(make_tiny, images) -> tuple[SpikingClassifier, Tensor, Tensor]:
    """A spiking classifier in double precision, so that no spike hangs on the rounding of a sum."""
    x, y = images
    return make_tiny().double(), x.double(), y


@pytest.mark.parametrize("eps", [0.02, 0.1, 0.3])
def test_one_step_equals_fgsm_of_torchattacks(make_tiny, images, eps):
    model, x, y = on_both(make_tiny, images)
    expected = torchattacks.FGSM(model, eps=eps)(x, y)
    attack = ProjectedGradient(Linf(eps), steps=1, step_size=eps, start="input")
    assert not torch.equal(expected, x)
    torch.testing.assert_close(attack(model, x, y), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("eps", [0.02, 0.1, 0.3])
def test_pgd_without_random_start_equals_that_of_torchattacks(make_tiny, images, eps):
    model, x, y = on_both(make_tiny, images)
    expected = torchattacks.PGD(model, eps=eps, alpha=eps / 4, steps=7, random_start=False)(x, y)
    attack = ProjectedGradient(Linf(eps), steps=7, step_size=eps / 4, start="input")
    torch.testing.assert_close(attack(model, x, y), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("eps", [0.02, 0.1, 0.3])
def test_momentum_equals_that_of_torchattacks(make_tiny, images, eps):
    model, x, y = on_both(make_tiny, images)
    expected = torchattacks.MIFGSM(model, eps=eps, alpha=eps / 4, steps=7, decay=0.9)(x, y)
    attack = ProjectedGradient(Linf(eps), steps=7, step_size=eps / 4, start="input", momentum=0.9)
    torch.testing.assert_close(attack(model, x, y), expected, atol=1e-6, rtol=0)
    without = ProjectedGradient(Linf(eps), steps=7, step_size=eps / 4, start="input")
    assert not torch.allclose(without(model, x, y), expected, atol=1e-6)


@pytest.mark.parametrize(("eps", "size"), [(0.02, 0.02), (0.1, 0.05), (0.3, 0.3)])
def test_the_sign_start_equals_rfgsm_of_torchattacks(make_tiny, images, eps, size, monkeypatch):
    """Given our draws: a step to a random corner, then signed gradient steps of the same size."""
    model, x, y = on_both(make_tiny, images)
    drawn = normal(x, torch.arange(len(x)), "start", 3, 0)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "randn_like", lambda _: drawn)
        expected = torchattacks.RFGSM(model, eps=eps, alpha=size, steps=2)(x, y)
    attack = ProjectedGradient(Linf(eps), steps=2, step_size=size, start="sign", start_size=size, seed=3)
    torch.testing.assert_close(attack(model, x, y), expected, atol=1e-6, rtol=0)


def test_a_start_without_size_goes_as_far_as_the_budget():
    model, (x, y) = linear(), points()
    x = x.clamp(0.3, 0.7)
    found = ProjectedGradient(Linf(0.1), steps=1, step_size=0.0, start="sign")(model, x, y)
    torch.testing.assert_close((found - x).abs(), torch.full_like(x, 0.1), atol=1e-12, rtol=0)
    half = ProjectedGradient(Linf(0.1), steps=1, step_size=0.0, start="sign", start_size=0.05)(model, x, y)
    torch.testing.assert_close(half - x, (found - x) / 2, atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [0.001, 0.06, None])
def test_the_normal_start_is_a_draw_around_the_input_inside_the_budget(size):
    model, (x, y) = linear(), points()
    found = ProjectedGradient(Linf(0.1), steps=1, step_size=0.0, start="normal", start_size=size, seed=3)(model, x, y)
    drawn = normal(x, torch.arange(len(x)), "start", 3, 0)
    expected = torch.where(drawn.abs() * (size or 0.1) < 0.1, x + (size or 0.1) * drawn, x + 0.1 * drawn.sign())
    torch.testing.assert_close(found, expected.clamp(0, 1), atol=1e-12, rtol=0)


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.8)])
@pytest.mark.parametrize("settings", [{}, {"momentum": 0.7}, {"restarts": 3}, {"start": "sign"}, {"start": "normal"}])
def test_several_lengths_are_read_from_one_search(classifier, images, threat, settings):
    x, y = images
    index = torch.arange(40, 40 + len(x))
    attack = ProjectedGradient(threat, steps=30, step_size=0.01, **settings)
    read = attack.read([3, 10, 30], classifier, x, y, index)
    alone = [replace(attack, steps=steps)(classifier, x, y, index) for steps in (3, 10, 30)]
    assert len(read) == 3
    assert all(torch.equal(one, other) for one, other in zip(read, alone, strict=True))
    assert not torch.equal(read[0], read[1])


def test_a_family_differs_in_steps_alone():
    base = ProjectedGradient(Linf(0.1), steps=10, step_size=0.01)
    assert base.family() == replace(base, steps=50).family()
    others: list[dict[str, Any]]
    others = [{"step_size": 0.02}, {"seed": 1}, {"threat": Linf(0.2)}, {"loss": "margin"}, {"estimator": NARROW}]
    assert len({replace(base, **other).family() for other in others} | {base.family()}) == len(others) + 1
    by_default = ProjectedGradient(Linf(0.1), steps=10)
    assert by_default.family() != replace(by_default, steps=50).family()


def test_members_of_an_ensemble_start_elsewhere_and_the_first_is_the_plain_attack(classifier, images):
    plain = ProjectedGradient(Linf(0.2), steps=1, step_size=0.0, seed=4)
    variants = replace(plain, estimator=Ensemble({"own": Trained(), "same": Trained(), "narrow": NARROW})).variants()
    assert [variant.estimator for variant in variants.values()] == [Trained(), Trained(), NARROW]
    assert variants["own"] == plain
    starts = [variant(classifier, *images) for variant in variants.values()]
    assert torch.equal(starts[0], plain(classifier, *images))
    for one, other in itertools.combinations(starts, 2):
        assert (one != other).double().mean() > 0.9


def test_an_ensemble_gives_the_worst_of_its_members_per_sample(make_tiny, images):
    model, x, y = on_both(make_tiny, images)
    attack = ProjectedGradient(Linf(0.1), steps=3, estimator=Ensemble({"own": Trained(), "narrow": NARROW}))
    with torch.no_grad():
        single = torch.stack([margin(model(one(model, x, y)), y) for one in attack.variants().values()])
        worst = margin(model(attack(model, x, y)), y)
    assert torch.equal(worst, single.amax(0))
    assert len(set(single.argmax(0).tolist())) == 2  # neither is the stronger one on all


def test_an_ensemble_leaves_the_streams_alone_and_depends_on_the_seed(make_tiny, images):
    model = make_tiny(Poisson(3))
    attack = ProjectedGradient(Linf(0.3), steps=2, estimator=Ensemble({"own": Trained(), "narrow": NARROW}))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    found = attack(model, *images)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(attack(model, *images), found)


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_pgd_increases_its_loss(classifier, images, loss):
    losses = {"cross_entropy": cross_entropy, "margin": margin}
    x, y = images
    found = ProjectedGradient(Linf(0.2), loss=loss)(classifier, x, y)
    with torch.no_grad():
        before, after = (losses[loss](classifier(at), y) for at in (x, found))
    assert after.mean() > before.mean() + 0.05


@pytest.mark.parametrize("threat", [Linf(0.05), L2(0.4)])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr"])
def test_restarts_never_make_it_weaker(make_tiny, images, loss, threat):
    """The kept result is the one of the largest margin, whatever loss it was found with."""
    model, x, y = on_both(make_tiny, images)
    y = model(x).argmax(1)
    scores = []
    for restarts in (1, 2, 4, 8):
        found = ProjectedGradient(threat, steps=2, restarts=restarts, loss=loss)(model, x, y)
        with torch.no_grad():
            scores.append(margin(model(found), y))
    for fewer, more in itertools.pairwise(scores):
        assert (more >= fewer).all()
    assert int((scores[-1] > scores[0]).sum()) > len(x) // 2


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


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)])
@pytest.mark.parametrize("kind", [Flat, Broken])
def test_without_a_gradient_it_stays_where_it_started(kind, threat):
    """A gradient of 0 or NaN neither moves a sample nor takes it back to its input."""
    model, x = kind(64), torch.full((3, 1, 8, 8), 0.5)
    y = torch.tensor([0, 1, 2])
    found = ProjectedGradient(threat, steps=4)(model, x, y)
    expected = threat.start(x, uniform(x, torch.arange(3), "start", 0, 0), model.bounds)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_samples_are_averaged(make_tiny, images):
    """The gradient of a step is the mean of those of the spike trains that the forwards drew."""
    x, y = images[0].double(), images[1]
    model = make_tiny(Poisson(3)).double()
    drawn: list[Tensor] = []
    hook = model.encoder.register_forward_hook(lambda _m, _i, spikes: drawn.append(spikes.detach()))
    threat = Watching(0.1, ([],))
    ProjectedGradient(threat, steps=1, start="input", samples=4)(model, x, y)
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


def test_salt_and_pepper_replaces_its_share_by_either_bound():
    x, y = torch.full((50, 1, 20, 20), 0.5), torch.zeros(50, dtype=torch.long)
    model = Toy(400, bounds=Bounds(-1.0, 2.0))
    found = SaltAndPepper(0.2)(model, x, y)
    shares = [float((found == value).double().mean()) for value in (-1.0, 0.5, 2.0)]
    deviation = (0.25 / found.numel()) ** 0.5
    assert shares == pytest.approx([0.1, 0.8, 0.1], abs=5 * deviation)
    assert sum(shares) == pytest.approx(1)
    assert torch.equal(SaltAndPepper(0.0)(model, x, y), x)
    assert (SaltAndPepper(1.0)(model, x, y) != x).all()
    assert SaltAndPepper(0.2).threat is None


def test_uniform_noise_in_l2_is_a_point_of_the_ball():
    x, y = torch.full((200, 1, 4, 4), 0.5), torch.zeros(200, dtype=torch.long)
    length = (UniformNoise(L2(0.3))(Toy(16), x, y) - x).flatten(1).norm(dim=1)
    assert length.max() <= 0.3 + 1e-6
    # The length to the power of the dimension is uniform.
    assert float(((length / 0.3) ** 16).mean()) == pytest.approx(0.5, abs=5 / (12 * 200) ** 0.5)


@pytest.mark.parametrize(
    "kind",
    [
        lambda seed: UniformNoise(Linf(0.1), seed),
        lambda seed: UniformNoise(L2(0.1), seed),
        lambda seed: GaussianNoise(0.1, seed),
        lambda seed: SaltAndPepper(0.5, seed),
    ],
)
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
