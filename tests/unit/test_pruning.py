"""Pruned starts: which connections stay, what is left alone, and what learned scores find that magnitudes do not."""

import copy
import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from snnrobust.building import instantiate
from snnrobust.config import compose
from snnrobust.conversion.base import Ground
from snnrobust.conversion.harp import Harp
from snnrobust.conversion.hydra import Hydra, _Fixed
from snnrobust.conversion.magnitude import Magnitude
from snnrobust.conversion.scores import Scored
from snnrobust.conversion.shares import Shares, _Weighed
from snnrobust.conversion.weights import Weights
from snnrobust.data.augmentation import NONE
from snnrobust.data.digits import Digits
from snnrobust.models.convnet import ConvNet
from snnrobust.models.layers import BatchNorm1d, Flatten, Linear
from snnrobust.randomness import isolated
from snnrobust.regularizers.gradient_sparsity import GradientSparsity
from snnrobust.regularizers.none import NoRegularizer
from snnrobust.schema import ConfigError
from snnrobust.spiking.activation import ReLU
from snnrobust.spiking.classifier import Normalize, SpikingClassifier
from snnrobust.spiking.encoder import Direct
from snnrobust.spiking.fuse import fused
from snnrobust.spiking.neuron import LIF
from snnrobust.spiking.surrogate import triangle
from snnrobust.spiking.synapses import synapses
from snnrobust.threat import Bounds
from snnrobust.training.course import Diverged
from snnrobust.training.defences.base import Moment
from snnrobust.training.defences.none import NoDefence
from snnrobust.training.loop import Trainer
from snnrobust.training.settings import TrainingSettings
from tests.contracts.smaller import SMALLER
from tests.contracts.toys import assert_same, disturb, state_of
from tests.unit.trained import SGD, data, same

METHODS = ("magnitude", "hydra", "harp")


def settings(epochs: int = 2, lr: float = 0.1, **others: Any) -> TrainingSettings:
    optimizer = partial(SGD, lr=lr, momentum=0.9, weight_decay=5e-4)
    return TrainingSettings(**{"optimizer": optimizer, "epochs": epochs, "batch_size": 16, **others})


def ground(**others: Any) -> Ground:
    whole: dict[str, Any] = {
        **{"train": data(), "validation": data(16, 1), "augmentation": NONE, "regularizer": NoRegularizer()},
        **{"defence": NoDefence(), "seed": 0, "on_epoch": lambda _epoch: None},
    }
    return Ground(**whole | others)


def start(method: str, source: SpikingClassifier, sparsity: float, training: TrainingSettings | None = None) -> Any:
    if method == "magnitude":
        return Magnitude(source, sparsity)
    return {"hydra": Hydra, "harp": Harp}[method](source, training or settings(), sparsity)


def kept(model: SpikingClassifier) -> dict[str, int]:
    return {name: int(weight.count_nonzero()) for name, weight in synapses(model).items()}


def total(model: SpikingClassifier) -> int:
    return sum(weight.numel() for weight in synapses(model).values())


def test_the_largest_weights_of_every_layer_stay(make_tiny):
    source, model = make_tiny(seed=1), make_tiny(seed=2)
    record = start("magnitude", source, 0.8).begin(model, ground())
    for name, weight in synapses(model).items():
        values = synapses(source)[name].detach().flatten()
        strongest = sorted(range(len(values)), key=lambda i: -abs(float(values[i])))[: kept(model)[name]]
        expected = torch.zeros_like(values)
        expected[strongest] = values[strongest]
        assert torch.equal(weight.flatten(), expected)
        assert abs(kept(model)[name] - 0.2 * len(values)) < 1
    assert record["method"] == "magnitude"
    assert record["densities"] == {name: kept(model)[name] / w.numel() for name, w in synapses(model).items()}


@pytest.mark.parametrize("sparsity", [0.0, 0.37, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("method", METHODS)
def test_exactly_as_many_stay_as_are_asked_with_the_bits_of_the_source(method, sparsity, make_tiny):
    """Whatever would change a weight that is not frozen: decay, momentum, averages."""
    source, model = make_tiny(seed=1), make_tiny(seed=2)
    disturb(source)
    before, names = state_of(source), [*model.state_dict()]
    flags = {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()}
    training = settings(ema=0.9, clip=1.0, accumulate=2)
    record = start(method, source, sparsity, training).begin(model, ground())
    assert sum(kept(model).values()) == round((1 - sparsity) * total(model))
    assert min(kept(model).values()) >= 1
    assert record["sparsity"] == pytest.approx(1 - sum(kept(model).values()) / total(model))
    assert_same(before, state_of(source))
    assert [*model.state_dict()] == names
    assert {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()} == flags
    own = synapses(model)
    for name, weight in synapses(source).items():
        there = own[name] != 0
        assert torch.equal(own[name][there], weight[there])
        assert not own[name][~there].signbit().any()
    layers = {f"{name}.weight" for name in own}
    for name, parameter in source.named_parameters():
        assert name in layers or torch.equal(parameter, dict(model.named_parameters())[name])


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bits(method, make_tiny):
    states = []
    for stream, seed in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(stream)
        model = make_tiny(seed=2)
        start(method, make_tiny(seed=1), 0.7).begin(model, ground(seed=seed))
        states.append(dict(model.state_dict()))
    assert same(states[0], states[1])
    assert same(states[0], states[2]) == (method == "magnitude")


@pytest.mark.parametrize("method", METHODS)
def test_absent_connections_stay_absent(method, make_tiny):
    source, model = make_tiny(seed=1), make_tiny(seed=2)
    start("magnitude", make_tiny(seed=1), 0.6).begin(source, ground())
    source.backbone.classifier[3].weight.data[:, :-1] = 0
    source.backbone.features[0].weight.data.zero_()
    start(method, source, 0.8).begin(model, ground())
    assert sum(kept(model).values()) == round(0.2 * total(model))
    for name, weight in synapses(model).items():
        assert not (weight[synapses(source)[name] == 0] != 0).any()


@pytest.mark.parametrize("method", ["hydra", "harp"])
def test_running_statistics_follow_the_pruned_network(method, make_tiny):
    source, model = make_tiny(seed=1), make_tiny(seed=2)
    training = settings(epochs=6, batch_size=8)
    pruning = Hydra(source, training) if method == "hydra" else Harp(source, training, gamma=0.1)
    pruning.begin(model, ground())
    norm, x = model.backbone.features[1], data().batch(torch.arange(48)).x
    found: list[Tensor] = []
    model.backbone.features[0].register_forward_hook(lambda _m, _x, out: found.append(out))
    with torch.no_grad():
        model.eval()(x)
    actual = found[0].mean((0, 1, 3, 4))
    old = source.backbone.features[1].running_mean
    assert (norm.running_mean - actual).norm() < 0.3 * (old - actual).norm()


# --- the gradient of scores


def test_scores_get_the_gradient_of_the_weight_straight_through():
    """`y = w1 m1 x1 + w2 m2 x2` with `m = (1, 0)`: `dL/ds_j = dL/dy x_j w_j sign(s_j)`, for the absent one as well."""
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data = torch.tensor([[2.0, -1.0]])
    layer.requires_grad_(False)
    parametrize.register_parametrization(layer, "weight", Scored(layer.weight, _Fixed([1]), 0))
    scored: Any = layer.parametrizations["weight"][0]  # type: ignore[index]
    torch.testing.assert_close(scored.scores.detach(), math.sqrt(3) * torch.tensor([[1.0, -0.5]]))
    y = layer(torch.tensor([[3.0, 5.0]]))
    assert y.item() == 6.0
    (0.5 * y.square().sum()).backward()
    assert scored.scores.grad.tolist() == [[6 * 3 * 2.0, 6 * 5 * -1.0 * -1]]


@pytest.mark.parametrize("place", [300, 500, 800])
def test_the_gradient_of_a_share_is_the_change_of_the_loss_when_it_grows(place):
    """Of `L = sum m_j c_j`, whose slope `c` changes smoothly with the rank; the whole-layer mean is the sum of `c`."""
    importance = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    slope = (4 * importance).sin()

    def loss(count: int, window: float) -> tuple[float, float]:
        share = torch.tensor(count / 1000, requires_grad=True)
        value = (_Weighed.apply(importance, share, count, window) * slope).sum()
        value.backward()
        assert share.grad is not None
        return value.item(), share.grad.item()

    (above, _), (below, _) = loss(place + 20, 1.0), loss(place - 20, 1.0)
    assert loss(place, 0.02)[1] == pytest.approx((above - below) / 0.04, rel=0.05, abs=5)
    assert loss(place, 0.02)[1] == pytest.approx((above - below) / 0.04, abs=1e-1)
    assert loss(place, 1.0)[1] == pytest.approx(slope.sum().item(), rel=1e-4)


def shares(sizes: list[int], keep: int, gamma: float = 0.01, there: list[int] | None = None) -> Shares:
    return Shares(sizes, there or sizes, keep, gamma, 1.0)


def test_shares_begin_at_the_root_and_lie_between_a_tenth_and_all():
    its = shares([1000, 4000], 50)
    assert its.shares().tolist() == pytest.approx([0.1, 0.1])
    assert float(its.excess().detach()) == pytest.approx(9.0)
    for rate, bounds in ((-50.0, [0.001, 0.001]), (50.0, [1.0, 1.0])):
        its.rates.data.fill_(rate)
        assert its.shares().tolist() == pytest.approx(bounds)
    assert shares([5, 4995], 50).least.tolist() == pytest.approx([0.2, 0.001])  # one connection
    assert shares([1000, 4000], 50, there=[500, 4000]).most.tolist() == [0.5, 1.0]


def test_counts_are_exact_where_it_is_judged_and_free_where_it_learns():
    its = shares([1000, 4000], 500)
    its.rates.data.copy_(torch.tensor([0.0, -1.0]))
    a, b = its.shares().tolist()
    assert [its.count(0), its.count(1)] == [round(1000 * a), round(4000 * b)]
    its.eval()
    assert its.count(0) + its.count(1) == 500
    assert its.count(0) / its.count(1) == pytest.approx(1000 * a / (4000 * b), rel=0.01)


def test_the_price_of_the_excess_rises_with_the_epoch_until_it_is_gone():
    its = shares([1000], 100)  # begins with sqrt(0.1)
    excess = float(its.excess().detach())

    def price(epoch: int) -> float:
        return float(its.penalty(Moment(epoch, epoch - 1.0)).detach()) / excess

    assert [price(1), price(1), price(2), price(3)] == pytest.approx([0.01, 0.01, 0.02, 0.03])
    assert its.count(0) == 316
    begin = its.rates.data.clone()
    its.rates.data.fill_(-9.0)
    assert float(its.penalty(Moment(4, 3.0)).detach()) == 0
    assert its.count(0) == 100  # from now on exactly
    its.rates.data.copy_(begin)
    assert [price(5), price(9)] == pytest.approx([0.03, 0.03])
    assert its.count(0) == 100


# --- what is learned


class Parallel(nn.Module):
    """Two linear layers of the same pixels, summed; one step, no neurons."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 4, bias=False), nn.Linear(64, 4, bias=False)
        self.first.weight.data, self.second.weight.data = first, second

    def forward(self, sequence: Tensor) -> Tensor:
        x = sequence.flatten(2)
        logits: Tensor = self.first(x) + self.second(x)
        return logits


def parallel(first: Tensor, second: Tensor) -> SpikingClassifier:
    return SpikingClassifier(Parallel(first, second), Direct(1), Normalize((0.5,), (0.3,)), Bounds()).eval()


def telling(size: float) -> Tensor:
    """Weights `[4, 64]` between a class and its quarter of the picture, where it is bright."""
    return size * torch.eye(4).repeat_interleave(16, 1)


def accuracy(model: SpikingClassifier) -> float:
    test = data(64, 7)
    with torch.no_grad():
        return float((model(test.batch(torch.arange(64)).x).argmax(1) == test.labels).float().mean())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scores_find_small_weights_that_matter(seed):
    """The large ones connect a class with other quarters: they tell nothing, or the opposite."""
    random = torch.rand(4, 64, generator=torch.Generator().manual_seed(seed))
    source = parallel(telling(0.5) + (telling(1) == 0) * (1 + random), telling(0.5) + (telling(1) == 0) * (1 + random))
    found = {}
    for method in METHODS:
        model = copy.deepcopy(source)
        start(method, source, 0.75, settings(20, lr=0.3)).begin(model, ground(seed=seed))
        found[method] = accuracy(model)
    assert found["magnitude"] < 0.5
    assert found["hydra"] > 0.9
    assert found["harp"] > 0.9


@pytest.mark.parametrize("window", [0.1, 1.0])
def test_a_layer_that_says_nothing_keeps_less(window):
    noise = 0.01 * torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    source = parallel(telling(0.1) + noise, noise.flip(1))
    model = copy.deepcopy(source)
    record = Harp(source, settings(20), 0.75, gamma=0.1, window=window).begin(model, ground())
    assert sum(kept(model).values()) == 128
    assert kept(model)["backbone.first"] > 1.5 * kept(model)["backbone.second"]
    assert record["shares"]["backbone.first"] > 1.5 * record["shares"]["backbone.second"]
    assert record["excess"] < 0.5
    assert accuracy(model) > 0.9


def test_scores_learned_on_the_digits_keep_more_than_magnitudes():
    """At 90 %, before any fine-tuning, on validation data, three seeds."""
    sparsity, splits = 0.9, Digits().load()
    found: dict[str, list[float]] = {method: [] for method in METHODS}
    for seed in range(3):
        source = digits_network(seed)
        trainer = Trainer(settings(4, batch_size=32), NoRegularizer(), NoDefence(), seed)
        trained = trainer(source, splits.train, splits.validation, lambda _epoch: None)
        source.load_state_dict(trained.state)
        for method in METHODS:
            model = digits_network(seed)
            own = ground(train=splits.train, validation=splits.validation, seed=seed)
            training = settings(4, batch_size=32)
            pruning = Harp(source, training, sparsity, gamma=0.1) if method == "harp" else None
            (pruning or start(method, source, sparsity, training)).begin(model, own)
            found[method].append(trainer.score(model, splits.validation).accuracy)
    assert all(h > m + 0.1 for h, m in zip(found["hydra"], found["magnitude"], strict=True)), found
    assert all(h > m + 0.1 for h, m in zip(found["harp"], found["magnitude"], strict=True)), found


def digits_network(seed: int) -> SpikingClassifier:
    with isolated("digits", seed):
        backbone = ConvNet((1, 8, 8), 10, ReLU, channels=(8, 16), hidden=32)
    return SpikingClassifier(backbone, Direct(1), Normalize((0.3,), (0.37,)), Bounds())


# --- architectures


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("choice", ["vgg11", "wrn16", "resnet20", "sew_resnet18"])
def test_architectures_of_the_zoo_are_pruned(method, choice):
    config = compose("config", [f"model={choice}", *SMALLER[choice], "neuron=relu", "encoder.steps=1"]).config
    make = instantiate("model", config["model"])

    def network(seed: int) -> SpikingClassifier:
        with isolated("zoo", seed):
            return SpikingClassifier(make((1, 8, 8), 4, ReLU), Direct(1), Normalize((0.5,), (0.3,)), Bounds())

    source, model = network(0), network(1)
    record = start(method, source, 0.9, settings(1)).begin(model, ground())
    assert sum(kept(model).values()) == round((1 - 0.9) * total(model))
    assert record["densities"].keys() == synapses(model).keys()
    if method == "hydra":
        assert all(abs(kept(model)[n] - 0.1 * w.numel()) <= 1 for n, w in synapses(model).items() if w.numel() >= 10)
    assert [*model.state_dict()] == [*source.state_dict()]


# --- the frame


def scored(model: SpikingClassifier, quotas: Any) -> SpikingClassifier:
    own: Any = copy.deepcopy(model).requires_grad_(False)
    layers = [own.backbone.features[0], own.backbone.classifier[1], own.backbone.classifier[3]]
    for number, layer in enumerate(layers):
        parametrize.register_parametrization(layer, "weight", Scored(layer.weight, quotas, number))
    return own


@pytest.mark.parametrize("training", [True, False])
def test_attacks_see_the_network_as_it_is_masked_and_leave_the_masks(training, make_tiny, images):
    sizes = [weight.numel() for weight in synapses(make_tiny()).values()]
    model = scored(make_tiny(), shares(sizes, sum(sizes) // 5))
    expected = copy.deepcopy(make_tiny())
    model.train(training)
    for name, weight in synapses(expected).items():
        weight.data.copy_(dict(synapses(model))[name])
    before = state_of(model)
    attacked = fused(model)
    torch.testing.assert_close(attacked(images[0]), expected.eval()(images[0]))
    assert not any("parametrizations" in name for name, _ in attacked.named_parameters())
    assert_same(before, state_of(model))
    assert (sum(kept(model).values()) == sum(sizes) // 5) == (not training)
    model(images[0]).sum().backward()  # the masks are still there, and learn
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


class Retracting(NoDefence):
    def after_step(self, model: Any) -> None:
        raise AssertionError("weights are frozen")


def test_what_a_defence_does_to_weights_after_a_step_is_left_out(make_tiny):
    start("hydra", make_tiny(seed=1), 0.5).begin(make_tiny(), ground(defence=Retracting()))


@pytest.mark.parametrize("method", ["hydra", "harp"])
def test_the_regularizer_of_the_run_is_part_of_what_is_minimised(method, make_tiny):
    states = []
    for regularizer in (NoRegularizer(), GradientSparsity(weight=5.0)):
        model = make_tiny()
        start(method, make_tiny(seed=1), 0.7, settings(4)).begin(model, ground(regularizer=regularizer))
        states.append({name: weight != 0 for name, weight in synapses(model).items()})
    assert not same(states[0], states[1])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("steps", "classes", "batch"), [(1, 4, 16), (3, 1, 16), (2, 4, 1)])
def test_one_step_one_class_or_one_sample(method, steps, classes, batch):
    def network(seed: int) -> SpikingClassifier:
        with isolated("small", seed):
            backbone = ConvNet((1, 8, 8), classes, partial(LIF, surrogate=triangle()), channels=(4,), hidden=8)
        return SpikingClassifier(backbone, Direct(steps), Normalize((0.5,), (0.3,)), Bounds())

    source, model = network(0).eval(), network(1)
    few = data(6)
    some = replace(few, labels=few.labels % classes)
    record = start(method, source, 0.9, settings(1, batch_size=batch)).begin(model, ground(train=some, validation=some))
    assert sum(kept(model).values()) == round((1 - 0.9) * total(model))
    assert model.training
    assert 0.89 < record["sparsity"] < 0.91


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_be_pruned_is_one_line(method, make_tiny):
    with pytest.raises(ValueError, match=r"^start\.sparsity: got 0\.9999, which leaves 0 of"):
        start(method, make_tiny(), 0.9999).begin(make_tiny(), ground())
    other = parallel(telling(1.0), telling(1.0))
    with pytest.raises(ValueError, match=r"^start\.source: of another architecture"):
        start(method, other, 0.5).begin(make_tiny(), ground())
    bare = SpikingClassifier(nn.Flatten(2), Direct(1), Normalize((0.5,), (0.3,)), Bounds())
    with pytest.raises(ValueError, match=r"^start\.source: has no connections"):
        start(method, bare, 0.5).begin(copy.deepcopy(bare), ground())


def test_what_goes_wrong_while_scores_are_learned_names_their_settings(make_tiny):
    model = make_tiny(seed=1)
    refused = settings(optimizer=partial(SGD, lr=0.1, nesterov=True))
    with pytest.raises(ValueError, match=r"^start\.training\.optimizer: "):
        start("hydra", make_tiny(), 0.5, refused).begin(model, ground())
    with pytest.raises(Diverged, match=r"try a smaller start\.training\.optimizer\.lr"):
        start("hydra", make_tiny(), 0.5, settings(lr=1e38)).begin(model, ground())
    Weights(make_tiny()).begin(expected := make_tiny(seed=1), ground())
    assert same(dict(model.state_dict()), dict(expected.state_dict()))
    tall = nn.Sequential(Flatten(), Linear(64, 8), BatchNorm1d(8), Linear(8, 4))
    source = SpikingClassifier(tall, Direct(1), Normalize((0.5,), (0.3,)), Bounds())
    with pytest.raises(ConfigError, match=r"^start\.training\.batch_size: got 1, and batch norm"):
        start("hydra", source, 0.5, settings(batch_size=1)).begin(copy.deepcopy(source), ground())
