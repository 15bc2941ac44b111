"""Networks of neurons that learn: their parameters are made, counted, saved, loaded and copied like all others."""

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from snnrobust import config
from snnrobust.check import check
from snnrobust.estimators.analog import Analog
from snnrobust.experiment import untrained
from snnrobust.models.convnet import ConvNet
from snnrobust.models.vgg import VGG
from snnrobust.schema import ConfigError
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.encoder import Direct
from snnrobust.spiking.fuse import fused
from snnrobust.spiking.neuron import IF, LIF
from snnrobust.spiking.neurons.evolving_leak import EvolvingLeak
from snnrobust.spiking.neurons.noisy_lif import NoisyLIF
from snnrobust.spiking.neurons.plif import PLIF
from snnrobust.spiking.neurons.psn import PSN
from snnrobust.spiking.neurons.recurrent import Recurrent
from snnrobust.spiking.neurons.self_consistent import SelfConsistent
from snnrobust.spiking.neurons.self_prediction import SelfPrediction
from snnrobust.spiking.neurons.stochastic_gates import StochasticGates
from snnrobust.spiking.neurons.trainable_threshold import TrainableThreshold
from snnrobust.spiking.surrogate import Surrogate, triangle
from snnrobust.threat import Bounds

SHAPE, STEPS = (1, 8, 8), 4


def around(wrapper: Callable[..., nn.Module], surrogate: Surrogate, **settings: Any) -> nn.Module:
    """Integrate-and-fire neurons within another module."""
    return wrapper(partial(LIF, surrogate), **settings)


LEARNING: dict[str, tuple[Callable[..., nn.Module], dict[str, tuple[tuple[int, ...], tuple[int, ...]]]]] = {
    "plif": (PLIF, {"w": ((), ())}),
    "threshold": (TrainableThreshold, {"threshold": ((), ())}),
    "psn": (partial(PSN, steps=STEPS), {"weight": ((4, 4), (4, 4)), "bias": ((4, 1), (4, 1))}),
    "leak": (EvolvingLeak, {"leak": ((4, 3, 8, 8), (4, 5))}),
    "self": (Recurrent, {"weight": ((3,), (5,))}),
    "lateral": (partial(Recurrent, connections="lateral"), {"weight": ((3, 3), (5, 5))}),
    "prediction": (SelfPrediction, {"strength": ((3,), (5,))}),
    "consistent": (partial(around, SelfConsistent), {"consistency.weight": ((3, 3), (5, 5))}),
    "gates": (partial(around, StochasticGates, when="training"), {"gates.raw": ((3, 8, 8), (5,))}),
}
"""What is learned per layer, and its shapes for a convolution of 3 channels on 8x8 and for 5 hidden neurons."""
SHAPED = ("leak", "self", "lateral", "prediction", "consistent", "gates")
every_kind = pytest.mark.parametrize("kind", LEARNING)


class Data:
    """What `untrained` asks of a dataset."""

    shape, classes, mean, std, bounds = SHAPE, 4, (0.5,), (0.3,), Bounds()


def network(neuron: Callable[..., nn.Module], seed: int = 0) -> SpikingClassifier:
    data: Any = Data()
    model = partial(ConvNet, channels=(3,), hidden=5)
    return untrained(data, Direct(STEPS), partial(neuron, surrogate=triangle()), model, seed)


def without_data(neuron: Callable[..., nn.Module]) -> ConvNet:
    return ConvNet(SHAPE, 4, partial(neuron, surrogate=triangle()), channels=(3,), hidden=5)


def disturbed(model: SpikingClassifier) -> SpikingClassifier:
    """With other values of all parameters, in eval mode."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def x() -> Tensor:
    return torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))


@every_kind
def test_parameters_have_the_shape_of_their_layer_from_the_start(kind):
    build, learned = LEARNING[kind]
    model = network(build)
    state = model.state_dict()
    for name, (first, second) in learned.items():
        assert state[f"backbone.features.2.{name}"].shape == first
        assert state[f"backbone.classifier.2.{name}"].shape == second
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("kind", [kind for kind in LEARNING if kind != "psn"])
def test_other_weights_are_those_of_a_network_that_learns_less(kind):
    """But for psn, whose matrices are drawn; telling shapes leaves batch norm as it was, and the global stream."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    plain = network(LIF).state_dict()
    torch.manual_seed(5)
    state = network(LEARNING[kind][0]).state_dict()
    assert torch.equal(torch.rand(3), expected)
    for name, value in plain.items():
        assert torch.equal(state[name], value), name


@every_kind
def test_a_state_goes_into_another_network_whether_that_ran_before_or_not(kind, x):
    build = LEARNING[kind][0]
    model = disturbed(network(build))
    expected = model(x)
    for other in (network(build, seed=1), copy.deepcopy(model)):
        if other is not model:
            other.load_state_dict(model.state_dict())
            assert torch.equal(other.eval()(x), expected)
    backbone = without_data(build)
    assert any(map(is_lazy, backbone.parameters())) == (kind in SHAPED)
    backbone.load_state_dict(model.backbone.state_dict())
    assert not any(map(is_lazy, backbone.parameters()))
    sequence = model.encoder(model.normalize(x))
    assert torch.equal(backbone.eval()(sequence).mean(0), expected)


@every_kind
def test_loading_is_strict(kind):
    build, learned = LEARNING[kind]
    state = network(build).state_dict()
    key = f"backbone.features.2.{next(iter(learned))}"
    with pytest.raises(RuntimeError, match="size mismatch"):
        network(build).load_state_dict(state | {key: torch.zeros(2, 9)})
    del state[key]
    with pytest.raises(RuntimeError, match="Missing key"):
        network(build).load_state_dict(state)
    with pytest.raises(RuntimeError, match="Missing key"):
        without_data(build).load_state_dict({k.removeprefix("backbone."): v for k, v in state.items() if "back" in k})


COPIES = {"copy": copy.deepcopy, "pickle": lambda model: pickle.loads(pickle.dumps(model))}


@every_kind
@pytest.mark.parametrize("copied", COPIES)
def test_it_can_be_copied_and_converted(kind, copied, x):
    model = disturbed(network(LEARNING[kind][0]))
    model(x).sum().backward()
    other = COPIES[copied](model)
    assert torch.equal(other(x), model(x))
    assert other.double()(x.double()).dtype == torch.float64
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert fused(model)(x).shape == (6, 4)
    fresh = COPIES[copied](without_data(LEARNING[kind][0])).double()
    assert fresh(torch.zeros(STEPS, 2, *SHAPE, dtype=torch.float64)).dtype == torch.float64
    assert all(p.dtype == torch.float64 for p in fresh.parameters())


@pytest.mark.parametrize("kind", ["leak", "lateral"])
def test_another_shape_of_the_input_is_one_line(kind):
    layer = LEARNING[kind][0](triangle())
    layer(torch.zeros(4, 2, 3, 5))
    layer(torch.zeros(4, 7, 3, 5))
    with pytest.raises(ValueError, match=r"^neuron: got an input for which \w+ has the shape \[.*\]; allowed: \["):
        layer(torch.zeros(3, 2, 4, 5))


@every_kind
def test_every_layer_learns(kind, x):
    """A step moves what is learned, in each layer."""
    model = network(LEARNING[kind][0])
    with torch.no_grad():
        model.get_parameter("backbone.classifier.1.weight").mul_(8)  # makes the hidden layer fire
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    nn.functional.cross_entropy(model(x), torch.arange(6) % 4).backward()
    optimizer.step()
    for name in LEARNING[kind][1]:
        for layer in ("features.2", "classifier.2"):
            key = f"backbone.{layer}.{name}"
            assert not torch.equal(before[key], model.get_parameter(key)), key


def test_an_evolving_leak_adds_the_published_number_of_parameters():
    """2,293,760 for VGG-11 on 3x32x32 and 8 steps; counted without memory or arithmetic."""
    counts = []
    with torch.device("meta"), torch.no_grad():
        for neuron in (IF, EvolvingLeak):
            model = VGG((3, 32, 32), 10, partial(neuron, surrogate=triangle())).eval()
            model(torch.zeros(8, 1, 3, 32, 32))
            counts.append(sum(p.numel() for p in model.parameters()))
    assert counts[1] - counts[0] == 2_293_760


@pytest.mark.parametrize(("when", "stochastic"), [("training", False), ("always", True)])
def test_a_classifier_is_stochastic_if_its_neurons_draw(when, stochastic, x):
    model = network(partial(NoisyLIF, noise=0.5, when=when)).eval()
    assert model.stochastic == stochastic
    assert torch.equal(model(x), model(x)) != stochastic
    assert not torch.equal(model.train()(x), model(x))


@pytest.mark.parametrize("kind", ["plif", "threshold"])
def test_the_analog_proxy_scales_by_what_is_learned(kind, x):
    """`gain / threshold` as it stands: twice the scale in every layer is four times the gradient, up to batch norm."""
    model = network(LEARNING[kind][0]).eval()
    gradients = []
    for value in {"plif": (0.0, 100.0), "threshold": (1.0, 0.5)}[kind]:  # 1/tau = 1/2 and 1
        with torch.no_grad():
            for name in ("features.2", "classifier.2"):
                next(model.backbone.get_submodule(name).parameters()).fill_(value)
        given = x.clone().requires_grad_()
        with Analog().applied(model) as view:
            weight = torch.tensor([1.0, -1.0, 2.0, 0.5])
            # Biases are small: nearly all activations stay on their side of zero.
            gradients.append(torch.autograd.grad((view(given) * weight).sum(), given)[0])
    ratio = gradients[1].norm() / gradients[0].norm()
    assert float(ratio) == pytest.approx(4, rel=0.2)


def checked(*overrides: str) -> None:
    check(config.compose("config", list(overrides)).config)


def test_noise_and_finite_differences_do_not_go_together():
    checked("neuron=noisy_lif")
    checked("neuron=noisy_lif", "regularizer=gradient_sparsity", "regularizer.weight=0")
    checked("neuron=noisy_lif", "regularizer=gradient_sparsity", "neuron.noise=0")
    with pytest.raises(ConfigError, match=r"^regularizer: .* noise that neuron=noisy_lif draws anew; allowed: .*none"):
        checked("neuron=noisy_lif", "regularizer=gradient_sparsity")


def test_parallel_neurons_have_the_steps_of_the_encoder():
    checked("neuron=psn", "encoder.steps=5")
    with pytest.raises(ConfigError, match=r"^neuron.steps: got 4; allowed: 8, the steps of the encoder$"):
        checked("neuron=psn", "neuron.steps=4")
