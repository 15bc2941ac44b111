"""The description of a classifier: its layers in order, their shapes, and all parameters."""

from functools import partial

import pytest
import torch
from torch import optim

from snnrobust.cli import main
from snnrobust.config import build, compose
from snnrobust.describe import META, layers, memory, without_content
from snnrobust.training.settings import TrainingSettings
from snnrobust.yamls import groups

NEURONS, ENCODERS = groups()["neuron"], groups()["encoder"]


def experiment_of(*overrides):
    experiment, _ = build(compose("config", ["tracker=none", "device=cpu", "regularizer=none", *overrides]).config)
    return experiment


def described(experiment):
    model = experiment.classifier()
    return model, list(layers(model, experiment.dataset.shape, experiment.device))


@pytest.fixture(scope="module")
def small():
    return described(experiment_of("model.channels=[4,6]", "model.hidden=5", "encoder.steps=3"))


def test_layers_come_in_the_order_in_which_they_run(small):
    _, found = small
    block = ["Conv2d", "BatchNorm2d", "LIF", "AvgPool2d"]
    assert [layer.kind for layer in found if layer.name.startswith("backbone.features")] == block * 2
    assert [layer.kind for layer in found][:2] == ["Normalize", "Direct"]
    assert [layer.name for layer in found][-1] == "backbone.classifier.3"


def test_shapes_are_those_of_the_outputs(small):
    _, found = small
    shapes = {layer.name: layer.shape for layer in found}
    assert shapes["normalize"] == (1, 1, 8, 8)
    assert shapes["encoder"] == (3, 1, 1, 8, 8)
    assert shapes["backbone.features.0"] == (3, 1, 4, 8, 8)
    assert shapes["backbone.features.7"] == (3, 1, 6, 2, 2)
    assert shapes["backbone.classifier.2"] == (3, 1, 5)
    assert shapes["backbone.classifier.3"] == (3, 1, 10)


def test_parameters_of_the_layers_add_up_to_those_of_the_model(small):
    model, found = small
    by_hand = 4 * 9 + 2 * 4 + 6 * 4 * 9 + 2 * 6 + (24 * 5 + 5) + (5 * 10 + 10)
    assert sum(layer.parameters for layer in found) == sum(p.numel() for p in model.parameters()) == by_hand


def test_neurons_and_operations_are_those_counted_by_hand(small):
    """Channels 4 on 8x8 and 6 on 4x4, 24 entries to 5 to 10; one step of one sample."""
    _, found = small
    neurons = {layer.name: layer.neurons for layer in found if layer.neurons}
    assert neurons == {
        "backbone.features.2": 4 * 64, "backbone.features.6": 6 * 16, "backbone.classifier.2": 5
    }  # fmt: skip
    macs = {layer.name: layer.macs for layer in found if layer.macs}
    assert macs == {
        "backbone.features.0": 64 * 4 * 9, "backbone.features.4": 16 * 6 * 4 * 9,
        "backbone.classifier.1": 24 * 5, "backbone.classifier.3": 5 * 10,
    }  # fmt: skip


def test_strides_and_groups_save_operations():
    convolution = torch.nn.Conv2d(4, 6, 3, stride=2, groups=2)
    (layer,) = layers(convolution, (4, 9, 9), torch.device("cpu"))
    assert layer.macs == 6 * 4 * 4 * 2 * 9
    assert layer.neurons == 0


def test_memory_is_what_a_network_of_known_tensors_keeps():
    """A linear layer keeps its input, a ReLU its output; both are counted once."""
    model = torch.nn.Sequential(torch.nn.Linear(10, 20), torch.nn.ReLU(), torch.nn.Linear(20, 5))
    parameters = 4 * (10 * 20 + 20 + 20 * 5 + 5)
    need = memory(model, (10,), TrainingSettings(batch_size=7), torch.device("cpu"))
    assert need.weights == parameters
    assert need.updates == 3 * parameters
    assert need.activations == 4 * 7 * (10 + 20)
    assert need.total == 4 * parameters + need.activations


@pytest.mark.parametrize(
    ("make", "copies"),
    [
        *((optim.Adam, 2), (partial(optim.Adam, amsgrad=True), 3), (partial(optim.Adam, fused=True), 2)),
        *((optim.SGD, 0), (partial(optim.SGD, momentum=0.9), 1), (optim.Adagrad, 1)),
    ],
)
def test_what_an_optimizer_keeps_is_found_by_a_step(make, copies):
    model = torch.nn.Linear(10, 20)
    parameters, before = 4 * 220, model.weight.detach().clone()
    need = memory(model, (10,), TrainingSettings(optimizer=make), torch.device("cpu"))
    assert need.updates == (1 + copies) * parameters
    assert torch.equal(model.weight, before)


def test_an_optimizer_that_looks_at_its_parameters_is_described_too():
    """Adafactor keeps a row and a column of squares in the place of a matrix."""
    need = memory(
        torch.nn.Linear(10, 20, False), (10,), TrainingSettings(optimizer=optim.Adafactor), torch.device("cpu")
    )
    assert need.updates == 4 * (200 + 20 + 10)


def test_an_average_is_a_second_copy_of_the_weights():
    model = torch.nn.Sequential(torch.nn.Linear(10, 20), torch.nn.BatchNorm1d(20))
    plain, averaged = (
        memory(model, (10,), TrainingSettings(ema=ema), torch.device("cpu")).weights for ema in (None, 0.9)
    )
    assert plain == 4 * (220 + 40 + 40) + 8  # the number of batches is an int64
    assert averaged == 2 * plain


def test_activations_grow_with_batch_and_steps_and_weights_do_not():
    needs = []
    for steps, batch in ((2, 4), (2, 8), (4, 4)):
        its = experiment_of("model.channels=[4]", f"encoder.steps={steps}")
        needs.append(memory(without_content(its), its.dataset.shape, TrainingSettings(batch_size=batch), META))
    assert needs[1].activations == pytest.approx(2 * needs[0].activations, rel=0.01)
    assert needs[2].activations > 1.5 * needs[0].activations
    assert len({(need.weights, need.updates) for need in needs}) == 1


@pytest.mark.parametrize("neuron", NEURONS)
def test_every_neuron_is_described_without_content(neuron):
    its = experiment_of(f"neuron={neuron}", "model.channels=[4]", "model.hidden=5")
    found = [*layers(without_content(its), its.dataset.shape, META)]
    model, expected = described(its)
    assert found == expected
    assert sum(layer.neurons for layer in found) == 4 * 64 + 5
    assert sum(layer.parameters for layer in found) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_is_described_without_content(encoder):
    its = experiment_of(f"dataset={'digits_events' if encoder == 'frames' else 'digits'}", f"encoder={encoder}")
    assert [*layers(without_content(its), its.dataset.shape, META)] == described(its)[1]


def test_the_largest_networks_fit_a_terminal_and_need_no_memory(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["describe", "model=sew_resnet50", "dataset=digits", "training.batch_size=128", "device=cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 100 for line in lines)
    (total,) = [line for line in lines if "total" in line]
    assert total.replace("│", " ").split() == ["total", "23,522,250", *total.replace("│", " ").split()[2:]]
    assert "training step on 128 samples (Adam)" in " ".join(" ".join(lines[-3:]).split())


def test_describing_leaves_the_model_as_it_was(small):
    model, _ = small
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stream = torch.random.get_rng_state()
    list(layers(model, (1, 8, 8), torch.device("cpu")))
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), stream)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("dataset", ["digits", "digits_events", "mnist", "fashion_mnist"])
def test_no_dataset_is_read(dataset, tmp_path, capsys):
    root = [] if dataset == "digits" else [f"dataset.root={tmp_path}/absent"]
    assert main(["describe", f"dataset={dataset}", *root, "device=cpu"]) == 0
    out = capsys.readouterr().out
    model, _ = described(experiment_of(f"dataset={dataset}", *root))
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in out
    assert not list(tmp_path.iterdir())


def test_an_optimizer_that_cannot_be_used_is_one_line(capsys):
    chosen = ["training.optimizer._target_=torch.optim.LBFGS", *(f"~training.optimizer.{k}" for k in ("betas", "eps"))]
    assert main(["describe", *chosen, "~training.optimizer.weight_decay", "device=cpu"]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("snnrobust: training.optimizer: LBFGS.step() missing")


def test_a_model_that_does_not_fit_its_data_is_one_line(capsys):
    assert main(["describe", "model.channels=[8,8,8,8,8]", "device=cpu"]) in (1, 2)
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1
    assert err[0].startswith("snnrobust: model.channels: got 5 blocks")
