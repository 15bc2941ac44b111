"""NIR graphs, read back from disk: a simulator written from NIR's definitions spikes as the network does."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from spikingjelly.activation_based.nir_exchange import import_from_nir
from torch import Tensor, nn
from torch.nn import functional as F

from snnrobust.data.digits import Digits
from snnrobust.exporting.dataflow import steps
from snnrobust.exporting.graph import content_of, graph_of, same_graph
from snnrobust.models.cnn_dvs import CNNDVS
from snnrobust.models.convnet import ConvNet
from snnrobust.models.layers import MaxPool2d
from snnrobust.models.resnet import ResNet
from snnrobust.models.sew_resnet import SEWResNet
from snnrobust.models.spiking_resnet import SpikingResNet
from snnrobust.models.vgg import VGG
from snnrobust.models.wide_resnet import WideResNet
from snnrobust.spiking.activation import ReLU
from snnrobust.spiking.classifier import Normalize, SpikingClassifier
from snnrobust.spiking.encoder import Direct, Frames, Poisson
from snnrobust.spiking.neuron import IF, LIF, Neuron
from snnrobust.spiking.neurons.noisy_lif import NoisyLIF
from snnrobust.spiking.neurons.plif import PLIF
from snnrobust.spiking.neurons.trainable_threshold import TrainableThreshold
from snnrobust.spiking.surrogate import triangle
from snnrobust.threat import Bounds

IMAGE, FRAME, STEPS = (1, 8, 8), (2, 16, 16), 4
NEURONS: dict[str, Callable[..., Neuron]] = {
    "if": IF,
    "lif": LIF,
    "lif, current scaled": partial(LIF, tau=1.7, threshold=0.6, decay_input=True),
    "plif": partial(PLIF, tau=1.5, decay_input=False, threshold=0.7),
    "threshold": partial(TrainableThreshold, threshold=0.8),
    "threshold, leaky": partial(TrainableThreshold, tau=3.0),
}
MODELS: dict[str, Callable[..., nn.Module]] = {
    "convnet": partial(ConvNet, channels=(4, 6), hidden=16),
    "vgg": partial(VGG, plan=(4, "pool", 6, 6, "pool"), hidden=(16,), dropout=0.2),
    "vgg, average": partial(VGG, plan=(4, "pool", 6), hidden=(), head="average", bias="linear"),
    "resnet": partial(ResNet, blocks=(1, 2), strides=(1, 2), width=4),
    "resnet, convex": partial(ResNet, blocks=(2, 1), strides=(1, 2), width=4, join="convex", hidden=8, bias=False),
    "sew": partial(SEWResNet, blocks=(2, 2), width=4, stem_width=4, stem="cifar", pool="avg"),
    "spiking resnet": partial(
        SpikingResNet, blocks=(2, 1), block="bottleneck", width=2, stem_width=4, stem="cifar", pool="none"
    ),
    "wide": partial(WideResNet, blocks=(2, 1), width=1, stem=4),
}


def classifier(model: str = "convnet", neuron: str = "lif", frames: bool = False) -> SpikingClassifier:
    """Random weights, running statistics of random inputs, learned numbers that are not those it began with."""
    torch.manual_seed(1)
    shape = FRAME if frames else IMAGE
    make = partial(CNNDVS, channels=(4, 6), hidden=16) if frames else MODELS[model]
    backbone = make(shape, 10, partial(NEURONS[neuron], surrogate=triangle()))
    channels = shape[0]
    normalize = Normalize((0.4, 0.1)[:channels], (0.3, 0.7)[:channels])
    made = SpikingClassifier(backbone, Frames(STEPS) if frames else Direct(STEPS), normalize, Bounds())
    with torch.no_grad():
        for layer in backbone.modules():  # all layers shall fire
            if isinstance(layer, nn.BatchNorm2d):
                layer.bias.fill_(0.5)
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(6)
        for _ in range(10):
            made(torch.rand(32, *((STEPS,) if frames else ()), *shape))
        for name, parameter in made.named_parameters():
            if parameter.dim() <= 1 and not name.endswith("bias"):
                parameter.mul_(1 + 0.4 * torch.rand(parameter.shape))
    return made.eval()


def graph(made: SpikingClassifier, folder: Path, shape: tuple[int, int, int] = IMAGE) -> nir.NIRGraph:
    """As it lies on the disk."""
    path = folder / "network.nir"
    path.write_bytes(content_of(graph_of(made, shape, {"model": "x"})))
    return nir.read(path)


class Simulated:
    """Forward Euler from rest, a potential at the threshold fires, edges into one node add up."""

    def __init__(self, graph: nir.NIRGraph) -> None:
        self.graph, self.dt = graph, float(graph.metadata["dt"])
        self.v: dict[str, Tensor] = {}
        self.spikes: dict[str, list[Tensor]] = {}

    def step(self, x: Tensor) -> Tensor:
        values = {"input": x}
        while "output" not in values:
            for name, node in self.graph.nodes.items():
                sources = [a for a, b in self.graph.edges if b == name]
                if name not in values and all(source in values for source in sources):
                    values[name] = self.compute(name, node, torch.stack([values[s] for s in sources]).sum(0))
        return values["output"]

    def compute(self, name: str, node: nir.NIRNode, x: Tensor) -> Tensor:
        arrays = {key: np.asarray(value) for key, value in vars(node).items() if isinstance(value, np.ndarray | tuple)}
        numbers = {key: torch.from_numpy(array) for key, array in arrays.items()}
        match node:
            case nir.Conv2d():
                stride, padding, dilation = (tuple(numbers[key].tolist()) for key in ("stride", "padding", "dilation"))
                return F.conv2d(x, numbers["weight"], numbers["bias"], stride, padding, dilation, int(node.groups))
            case nir.Affine():
                return x @ numbers["weight"].T + numbers["bias"]
            case nir.Linear():
                return x @ numbers["weight"].T
            case nir.Scale():
                return x * numbers["scale"]
            case nir.AvgPool2d():
                size, stride, padding = (tuple(numbers[key].tolist()) for key in ("kernel_size", "stride", "padding"))
                return F.avg_pool2d(x, size, stride, padding)
            case nir.Flatten():
                return x.flatten(int(node.start_dim) + 1)
            case nir.Output():
                return x
        v = self.v.get(name, torch.zeros_like(x, dtype=torch.float64))
        rate = (
            numbers["r"] * x
            if isinstance(node, nir.IF)
            else (numbers["v_leak"] - v + numbers["r"] * x) / numbers["tau"]
        )
        v = (v + self.dt * rate).float()
        fired = v >= numbers["v_threshold"]
        self.v[name] = torch.where(fired, numbers["v_reset"], v)
        self.spikes.setdefault(name, []).append(fired.float())
        return fired.float()


def compared(made: SpikingClassifier, found: nir.NIRGraph, x: Tensor) -> tuple[Tensor, Tensor, float]:
    """Logits of the simulator and of the network, and the share of spikes in which they differ."""
    spikes: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, n=step.name: spikes.setdefault(n, out))
        for step in steps(made.backbone, (x.shape[-3], x.shape[-2], x.shape[-1]))
        if isinstance(module := step.layer, Neuron)
    ]
    with torch.no_grad():
        expected = made(x)
    for hook in hooks:
        hook.remove()
    simulated = Simulated(found)
    frames = x.transpose(0, 1) if x.dim() == 5 else x.expand(made.encoder.steps, *x.shape)
    logits = torch.stack([simulated.step(frame) for frame in frames]).mean(0)
    assert simulated.spikes.keys() == spikes.keys()
    assert len(spikes) > 1
    different = [torch.stack(simulated.spikes[name]) != spikes[name] for name in spikes]
    assert all(0.01 < values.mean() < 0.99 for values in spikes.values())
    return logits, expected, float(torch.cat([each.flatten() for each in different]).float().mean())


def assert_equal(made: SpikingClassifier, found: nir.NIRGraph, x: Tensor) -> None:
    """Sums in another order may move a potential across its threshold: of one sample in a hundred at most."""
    logits, expected, different = compared(made, found, x)
    assert different < 1e-4
    assert (logits - expected).abs().amax(1).quantile(0.99) < 1e-4
    assert torch.equal(logits.argmax(1), expected.argmax(1))


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return Digits().load().test.values[:100].float() / 16


@pytest.mark.parametrize("neuron", NEURONS)
def test_neurons(tmp_path, digits, neuron):
    made = classifier(neuron=neuron)
    assert_equal(made, graph(made, tmp_path), digits)


def test_another_step_of_time_is_another_network(tmp_path, digits):
    made = classifier(neuron="lif")
    found = graph(made, tmp_path)
    found.metadata["dt"] *= 1.05
    _, _, different = compared(made, found, digits)
    assert different > 0.001


@pytest.mark.parametrize("model", MODELS)
def test_architectures(tmp_path, digits, model):
    made = classifier(model, "threshold")
    assert_equal(made, graph(made, tmp_path), digits)


def test_frames_of_events(tmp_path):
    made = classifier(neuron="if", frames=True)
    found = graph(made, tmp_path, FRAME)
    assert_equal(made, found, torch.rand(40, STEPS, *FRAME))
    assert found.metadata["input"] == "one frame of events per step"


@pytest.mark.parametrize("neuron", ["if", "lif", "threshold, leaky"])
def test_spikingjelly_reads_the_same_network(tmp_path, digits, neuron):
    made = classifier(neuron=neuron)
    graph(made, tmp_path)
    network, state, total = import_from_nir(tmp_path / "network.nir"), None, torch.zeros(())
    with torch.no_grad():
        for _ in range(STEPS):
            logits, state = network(digits, state)
            total = total + logits
        expected = made(digits)
    assert (total / STEPS - expected).abs().amax(1).quantile(0.99) < 1e-4
    assert torch.equal(total.argmax(1), expected.argmax(1))


def test_parameters_of_a_neuron(tmp_path):
    made = classifier(model="vgg, average", neuron="threshold, leaky")
    neuron = made.get_submodule("backbone.features.2")
    assert isinstance(neuron, TrainableThreshold)
    with torch.no_grad():
        neuron.threshold.fill_(0.01)  # below the minimum
    node = graph(made, tmp_path).nodes["features_2"]
    assert node.tau.shape == (4, 8, 8)
    assert (node.v_threshold == np.float32(0.03)).all()
    assert (node.tau / 1e-4 == 3.0).all()
    assert (node.r == 3.0).all()
    assert not node.v_reset.any()
    assert not node.v_leak.any()


def test_absent_connections_are_absent_in_the_graph(tmp_path):
    made = classifier()
    layers = ("features.4", "classifier.1")
    zero = {}
    for name in layers:
        weight = made.get_parameter(f"backbone.{name}.weight")
        weight.data.mul_(torch.rand(weight.shape) < 0.1)
        zero[name] = weight.detach() == 0
    found = graph(made, tmp_path)
    for name in layers:
        assert torch.equal(torch.from_numpy(found.nodes[name.replace(".", "_")].weight) == 0, zero[name])


def test_the_model_is_left_alone(digits):
    made = classifier()
    state = {key: value.clone() for key, value in made.state_dict().items()}
    before = made(digits)
    graph_of(made, IMAGE, {})
    assert all(torch.equal(value, state[key]) for key, value in made.state_dict().items())
    assert torch.equal(made(digits), before)


def test_metadata(tmp_path):
    found = graph(classifier(), tmp_path)
    assert found.metadata == {
        "dt": 1e-4, "steps": STEPS, "input": "the same picture at every step", "model": "x",
        "fires": "v >= v_threshold", "logits": "mean of the output over the steps",
    }  # fmt: skip


def test_the_same_graph_is_told_from_another():
    def made(entry: float, edge: str = "l", steps: int = 3) -> nir.NIRGraph:
        nodes = {name: nir.Linear(np.array([[1.0, entry], [0.0, 1.0]])) for name in ("k", "l")}
        ends = {"input": nir.Input({"input": np.array([2])}), "output": nir.Output({"output": np.array([2])})}
        edges = [("input", "k"), ("k", "l"), ("l", "output"), ("input", edge)]
        return nir.NIRGraph({**nodes, **ends}, edges, metadata={"steps": steps})

    assert same_graph(made(np.nan), made(np.nan))
    assert not same_graph(made(0.0), made(-0.0))
    assert not same_graph(made(0.0), made(0.0, edge="output"))
    assert not same_graph(made(0.0), made(0.0, steps=4))


class _Doubled(nn.Linear):
    """Computes outside of layers."""

    def __init__(self) -> None:
        super().__init__(16, 10)
        self.inner = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.inner(x)


def _put(place: str, layer: nn.Module) -> Callable[[SpikingClassifier], None]:
    name, _, number = place.rpartition(".")
    return lambda made: setattr(made.get_submodule(name), number, layer)


FEATURE = "backbone.features."
REFUSED = {
    "model.pool: got max": _put(FEATURE + "3", MaxPool2d(2)),
    "neuron: got NoisyLIF; allowed for nir: if, lif": _put(FEATURE + "2", NoisyLIF(triangle())),
    "neuron: got ReLU": _put(FEATURE + "2", ReLU()),
    "neuron.reset: got soft": _put(FEATURE + "2", IF(triangle(), reset="soft")),
    "encoder: got Poisson; allowed for nir: direct, frames": _put("encoder", Poisson(STEPS)),
    "model: has a layer Tanh": _put(FEATURE + "2", nn.Tanh()),
    "model: computes mul between": _put("backbone.classifier.3", _Doubled()),
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_nir_lacks_is_refused_in_one_line(said):
    made = classifier()
    REFUSED[said](made)
    with pytest.raises(ValueError, match=said) as error:
        graph_of(made, IMAGE, {})
    assert "\n" not in str(error.value)
