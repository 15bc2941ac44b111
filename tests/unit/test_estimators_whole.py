"""Estimators of whole networks: mixtures, the analog proxy, substituted max pooling."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from spikingjelly.activation_based import layer
from torch import Tensor, nn

from snnrobust.attacks.gradient import gradient
from snnrobust.attacks.losses import cross_entropy
from snnrobust.estimators.analog import Analog
from snnrobust.estimators.base import Estimator
from snnrobust.estimators.ensemble import Ensemble
from snnrobust.estimators.hart import HART
from snnrobust.estimators.mixed import Mixed
from snnrobust.estimators.pooling import MaxPoolSubstitute
from snnrobust.estimators.rate import BPTR
from snnrobust.estimators.replica import replica
from snnrobust.estimators.surrogate import TRAINED, Surrogate
from snnrobust.spiking.classifier import Classifier, SpikingClassifier
from snnrobust.spiking.encoder import Frames
from snnrobust.spiking.fuse import fused
from snnrobust.spiking.surrogate import triangle
from snnrobust.threat import Bounds


def slope_of(estimator: Estimator, model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    with estimator.applied(model) as view:
        return gradient(view, x, y, cross_entropy)[0]


def some(*shape: int) -> tuple[Tensor, Tensor]:
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, torch.arange(len(x)) % 4


@pytest.mark.parametrize("scale", [1.0, 1e-30])
def test_a_normalized_mixture_gives_every_member_the_same_length(classifier, scale):
    model, (x, y) = classifier.double(), some(20, 1, 8, 8)
    model.backbone.classifier[3].weight.data.mul_(scale)
    members = {"hart": HART(0.4), "sharp": Surrogate(triangle(0.02))}
    units = []
    for member in members.values():
        found = slope_of(member, model, x, y)
        length = found.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        units.append(torch.where(length > 0, found / length, 0.0))
    assert not torch.allclose(units[0], units[1], atol=0.1)
    found = slope_of(Mixed(members, normalize=True), model, x, y)
    torch.testing.assert_close(found, sum(units) / 2, atol=1e-9, rtol=0)
    single = slope_of(Mixed(members, normalize=True), model.float(), x.float(), y)
    lengths = single.flatten(1).norm(dim=1)
    assert (lengths <= 1 + 1e-5).all()
    assert (lengths > 0.1).any()


def test_a_mixture_leaves_samples_without_a_gradient_at_zero(classifier):
    x, y = some(4, 1, 8, 8)
    nothing = Surrogate(triangle(1e-9))
    assert not slope_of(Mixed({"it": nothing}, normalize=True), classifier, x.float(), y).any()


def test_mixtures_of_nothing_and_of_ensembles_are_refused():
    with pytest.raises(ValueError, match=r"^estimators: got none; allowed: one or more estimators, no ensembles$"):
        Mixed({})
    with pytest.raises(ValueError, match=r"^estimators: got \['both'\]; allowed"):
        Mixed({"both": Ensemble({"bptr": BPTR(), "hart": HART()})})


def test_a_replica_has_modules_of_its_own_around_the_same_weights(classifier):
    copied = replica(classifier, {classifier.encoder: Frames(2)})
    assert isinstance(copied, SpikingClassifier)
    assert not {id(module) for module in classifier.modules()} & {id(module) for module in copied.modules()}
    assert isinstance(copied.encoder, Frames)
    tensors = [[*model.parameters(), *model.buffers()] for model in (classifier, copied)]
    assert all(one is other for one, other in zip(*tensors, strict=True))


class Layers(nn.Module):
    """The layers of `tiny`, with ReLU in place of its neurons; one step."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d
    hidden: nn.Linear
    out: nn.Linear

    def __init__(self, model: SpikingClassifier, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        (self.conv,) = (module for module in model.modules() if isinstance(module, nn.Conv2d))
        (self.norm,) = (module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
        self.hidden, self.out = (module for module in model.modules() if isinstance(module, nn.Linear))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        f = nn.functional
        h = f.conv2d(x, self.conv.weight, padding=1)
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        h = (h - self.norm.running_mean.view(-1, 1, 1)) / (self.norm.running_var + self.norm.eps).sqrt().view(-1, 1, 1)
        h = self.activation(h * self.norm.weight.view(-1, 1, 1) + self.norm.bias.view(-1, 1, 1))
        h = f.linear(f.avg_pool2d(h, 2).flatten(1), self.hidden.weight, self.hidden.bias)
        return f.linear(self.activation(h), self.out.weight, self.out.bias)


@pytest.mark.parametrize("kind", ["relu", "clip"])
@pytest.mark.parametrize("steps", [None, 3], ids=["images", "events"])
def test_the_analog_gradient_is_that_of_the_analog_network_at_the_spiking_loss(make_tiny, kind, steps):
    model = (make_tiny() if steps is None else make_tiny(Frames(steps), channels=2)).double()
    x = torch.rand(5, *((1, 8, 8) if steps is None else (steps, 2, 8, 8)), dtype=torch.float64)
    y = torch.arange(5) % 4

    def levels(z: Tensor) -> Tensor:
        clipped = z.clamp(0, 1)
        return clipped + ((8 * clipped + 0.5).floor() / 8 - clipped).detach()

    network = Layers(model, torch.relu if kind == "relu" else levels)
    spiking = model(x).detach().requires_grad_()
    outer = torch.autograd.grad(cross_entropy(spiking, y).sum(), spiking)[0]
    at = x.clone().requires_grad_()
    normal = model.normalize(at)
    logits = network(normal) if steps is None else torch.stack([network(normal[:, t]) for t in range(steps)]).mean(0)
    expected = torch.autograd.grad((outer * logits).sum(), at)[0]
    with Analog(kind).applied(model) as view:
        found, at_logits = gradient(view, x, y, cross_entropy)
    assert torch.equal(at_logits, spiking)
    assert (expected != 0).any()
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_the_analog_network_sees_an_image_once(classifier, images):
    seen: list[int] = []
    classifier.backbone.features[0].register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    with Analog().applied(classifier) as view:
        view(images[0])
    assert seen == [3, 1]


POOLS = [
    {"kernel_size": 2},
    {"kernel_size": [3, 3], "stride": 2, "padding": 1},
    {"kernel_size": (2, 3), "stride": (1, 2), "padding": (0, 1)},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": 2, "stride": 3},
    {"kernel_size": 2, "stride": 2, "dilation": 2, "padding": 1, "ceil_mode": True},
]


class Pooled(nn.Module):
    """A network that is not ours: no spiking layers, max pooling, and values in place afterwards."""

    bounds = Bounds()
    stochastic = False

    def __init__(self, pool: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.pool = pool
        self.relu = nn.ReLU(inplace=True)
        self.weight = torch.randn(self.pool(torch.zeros(shape)).numel() // shape[0], 4, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.pool(x)).flatten(1) @ self.weight


def naive(x: Tensor, pooled: Tensor, pool: nn.MaxPool2d, share: Callable[[Tensor], Tensor]) -> Tensor:
    """The pooled value as a weighted sum over every window by itself, in plain loops; `share` weighs its entries."""
    pair = [(v, v) if isinstance(v, int) else v for v in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)]
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = pair
    result = torch.zeros_like(pooled)
    for r in range(pooled.shape[-2]):
        for c in range(pooled.shape[-1]):
            at = [(r * sh - ph + i * dh, c * sw - pw + j * dw) for i in range(kh) for j in range(kw)]
            there = [(h, w) for h, w in at if 0 <= h < x.shape[-2] and 0 <= w < x.shape[-1]]
            entries = torch.stack([x[..., h, w] for h, w in there])
            result[..., r, c] = (share(entries.detach()) * entries).sum(0)
    return result


@pytest.mark.parametrize("settings", POOLS)
@pytest.mark.parametrize("backward", ["average", "softmax"])
@pytest.mark.parametrize("steps", [None, 3])
def test_max_pooling_is_differentiated_as_a_weighted_mean(settings, backward, steps):
    shape = (2, 3, 7, 9) if steps is None else (2, steps, 3, 7, 9)
    pool = nn.MaxPool2d(**settings) if steps is None else layer.MaxPool2d(**settings, step_mode="m")
    model, (x, y) = Pooled(pool, shape), some(*shape)
    x = (4 * x - 1).round()  # with ties, as among spikes

    def share(entries: Tensor) -> Tensor:
        return (entries / 0.5).softmax(0) if backward == "softmax" else torch.full_like(entries, 1 / len(entries))

    at, outer = x.clone().requires_grad_(), pool(x).requires_grad_()
    logits = outer.relu().flatten(1) @ model.weight
    downstream = torch.autograd.grad(cross_entropy(logits, y).sum(), outer)[0]
    expected = torch.autograd.grad((downstream * naive(at, outer.detach(), pool, share)).sum(), at)[0]
    with MaxPoolSubstitute(backward, 0.5).applied(model) as view:
        found, found_logits = gradient(view, x, y, cross_entropy)
    assert torch.equal(found_logits, logits)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert (found != 0).sum() > (slope_of(TRAINED, model, x, y) != 0).sum() or settings == {
        "kernel_size": 2,
        "stride": 3,
    }


def test_a_cold_softmax_is_the_maximum():
    shape = (2, 3, 8, 8)
    model, (x, y) = Pooled(nn.MaxPool2d(2), shape), some(*shape)
    cold = slope_of(MaxPoolSubstitute("softmax", 1e-6), model, x, y)
    torch.testing.assert_close(cold, slope_of(TRAINED, model, x, y), atol=1e-12, rtol=0)


def test_substitutes_may_be_nested_and_are_taken_back():
    shape = (2, 3, 8, 8)
    model, (x, y) = Pooled(nn.MaxPool2d(2), shape), some(*shape)
    before, average = slope_of(TRAINED, model, x, y), slope_of(MaxPoolSubstitute(), model, x, y)
    with MaxPoolSubstitute("softmax").applied(model):
        assert torch.equal(slope_of(MaxPoolSubstitute(), model, x, y), average)
        assert not torch.equal(slope_of(TRAINED, model, x, y), before)
    assert torch.equal(slope_of(TRAINED, model, x, y), before)
    assert "forward" not in vars(model.pool)


def test_the_members_of_an_ensemble_each_get_the_substitute(classifier):
    hart, bptr = HART(), BPTR()
    substitute = MaxPoolSubstitute("softmax", 2.0, Ensemble({"hart": hart, "bptr": bptr}))
    assert substitute.members() == {
        "hart": MaxPoolSubstitute("softmax", 2.0, hart),
        "bptr": MaxPoolSubstitute("softmax", 2.0, bptr),
    }


class ByHand(nn.Module):
    """The value of 2x2 max pooling with the gradient of average pooling, exact for spikes; any leading dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        windows = x.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2))
        mean = windows.mean((-1, -3))
        return mean + (windows.amax((-1, -3)) - mean).detach()


@pytest.mark.parametrize("arranged", [lambda model: model, fused], ids=["plain", "fused"])
def test_pooling_is_substituted_in_our_networks(classifier, arranged):
    reference, (x, y) = classifier.double(), some(6, 1, 8, 8)
    model = deepcopy(reference)
    model.backbone.features[3] = layer.MaxPool2d(2, step_mode="m")
    reference.backbone.features[3] = ByHand()
    expected = slope_of(TRAINED, reference, x, y)
    found = slope_of(MaxPoolSubstitute(), arranged(model), x, y)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert (found - slope_of(TRAINED, model, x, y)).abs().max() > 1e-3


def test_models_whose_pooling_returns_indices_are_refused():
    pool = nn.MaxPool2d(2)
    substitute, model = MaxPoolSubstitute(), Pooled(pool, (2, 3, 8, 8))
    pool.return_indices = True
    with pytest.raises(ValueError, match=r"Pooled has one that returns indices; allowed"), substitute.applied(model):
        pass
