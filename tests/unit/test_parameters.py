"""Every model file has the number of parameters of its paper."""

from pathlib import Path

import pytest
import torch
import yaml

from snnrobust import config, yamls
from snnrobust.describe import META, layers
from snnrobust.models.vgg import VGG
from snnrobust.spiking.neuron import IF, Neuron
from snnrobust.spiking.surrogate import triangle

PICTURE, SMALL_FRAMES, FRAMES = (3, 32, 32), (2, 48, 48), (2, 128, 128)
COUNTS = [
    ("vgg5", (), PICTURE, 10, 50_604_682),
    ("vgg11", (), PICTURE, 10, 61_377_034),
    ("vgg11", (), PICTURE, 100, 61_745_764),
    ("vgg11", ("bias=none",), PICTURE, 10, 61_365_824),
    ("vgg11", ("bias=linear",), PICTURE, 10, 61_374_026),
    ("vgg11", (), SMALL_FRAMES, 10, 103_319_498),
    ("vgg_snn", (), SMALL_FRAMES, 10, 9_268_746),
    ("vgg_snn", ("bias=all",), SMALL_FRAMES, 10, 9_271_498),
    ("vgg_snn_gesture", (), FRAMES, 11, 9_228_299),
    ("wrn16", (), PICTURE, 10, 2_748_902),
    ("wrn16", (), PICTURE, 100, 2_772_032),
    ("wrn28", ("width=10",), PICTURE, 10, 36_479_218),
    ("resnet20", (), PICTURE, 10, 272_482),
    ("resnet32", (), PICTURE, 10, 466_926),
    ("resnet18", (), PICTURE, 10, 11_173_962),
    ("resnet18", (), FRAMES, 10, 11_173_386),
    ("resnet17", (), PICTURE, 10, 1_872_074),
    ("resnet19", (), PICTURE, 10, 14_681_226),
    ("sew_resnet18", (), PICTURE, 10, 11_181_642),
    ("sew_resnet34", (), PICTURE, 10, 21_289_802),
    ("sew_resnet50", (), PICTURE, 10, 23_528_522),
    ("sew_resnet18", (), PICTURE, 100, 11_227_812),
    ("sew_resnet34", (), PICTURE, 100, 21_335_972),
    ("sew_resnet50", (), PICTURE, 100, 23_712_932),
    ("spiking_resnet18", (), PICTURE, 10, 11_181_642),
    ("spiking_resnet34", (), PICTURE, 10, 21_289_802),
    ("spiking_resnet50", (), PICTURE, 10, 23_528_522),
    ("sew_resnet19c", (), PICTURE, 10, 17_222_730),
    ("sew_resnet19c", ("blocks=[5,5,5]",), PICTURE, 10, 29_616_202),
    ("sew_resnet19c", ("blocks=[7,7,7]",), PICTURE, 10, 42_009_674),
    # No published number: two convolutions with bias and batch norm, 800 entries to 512 to 10.
    ("cnn_dvs", (), SMALL_FRAMES, 10, 2 * 16 * 25 + 3 * 16 + 16 * 32 * 9 + 3 * 32 + 800 * 512 + 512 + 5130),
]
WORK = [  # spiking neurons and multiply-accumulates of one step, in millions
    ("vgg11", PICTURE, 10, 0.286720, 599.5),
    ("wrn16", PICTURE, 10, None, 392.6),
    ("resnet18", FRAMES, 11, None, 8_900),
    ("vgg_snn_gesture", FRAMES, 11, None, 9_700),
]


def without_content(model, overrides, shape, classes):
    """On the meta device: shapes alone."""
    node = yaml.safe_load((yamls.folder() / "model" / f"{model}.yaml").read_text())
    node |= {key: yaml.safe_load(value) for key, value in (override.split("=") for override in overrides)}
    with META:
        return config.instantiate("model", node)(shape, classes, lambda: IF(triangle()))


@pytest.mark.parametrize(("model", "overrides", "shape", "classes", "parameters"), COUNTS)
def test_parameters_are_those_of_the_paper(model, overrides, shape, classes, parameters):
    network = without_content(model, overrides, shape, classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert network(torch.zeros(2, 3, *shape, device=META)).shape == (2, 3, classes)


@pytest.mark.parametrize(("model", "shape", "classes", "neurons", "macs"), WORK)
def test_neurons_and_operations_are_those_of_the_paper(model, shape, classes, neurons, macs):
    """Published to four digits at most."""
    found = [*layers(without_content(model, (), shape, classes), (1, *shape), META)]
    assert sum(layer.macs for layer in found) / 1e6 == pytest.approx(macs, rel=0.006 if macs > 1000 else 1e-4)
    if neurons is not None:
        assert sum(layer.neurons for layer in found) / 1e6 == neurons


def test_the_first_layer_of_vgg11_has_nearly_a_quarter_of_its_neurons():
    model = VGG(PICTURE, 10, lambda: IF(triangle()), (64,), hidden=())
    assert next(layer.neurons for layer in layers(model, (1, *PICTURE), torch.device("cpu")) if layer.neurons) == 65_536


@pytest.mark.parametrize(
    ("model", "neurons"),
    [("vgg5", 5), ("vgg9", 10), ("vgg11", 10), ("vgg13", 12), ("vgg16", 15), ("vgg19", 18), ("wrn16", 13),
     ("wrn28", 25), ("resnet17", 15), ("resnet18", 17), ("resnet19", 17), ("resnet20", 19), ("resnet32", 31),
     ("sew_resnet18", 20), ("sew_resnet34", 36), ("sew_resnet50", 53), ("sew_resnet19c", 22), ("spiking_resnet18", 17),
     ("spiking_resnet34", 33), ("spiking_resnet50", 49), ("cnn_dvs", 5)],
)  # fmt: skip
def test_there_are_as_many_spiking_layers_as_the_paper_has(model, neurons):
    network = without_content(model, (), PICTURE, 10)
    assert sum(isinstance(module, Neuron) for module in network.modules()) == neurons


DOCUMENTED = [
    [cell.strip() for cell in line.split("|")[1:7]]
    for line in (Path(__file__).parents[2] / "docs" / "models.md").read_text().splitlines()
    if line.startswith("| `")
]


def test_every_model_is_in_the_documentation():
    assert sorted(row[0].strip("`") for row in DOCUMENTED) == sorted(yamls.groups()["model"])


@pytest.mark.parametrize("row", DOCUMENTED, ids=lambda row: row[0].strip("`"))
def test_the_documentation_has_the_right_numbers(row):
    model, given, *numbers = row
    size, classes = given.split(", ")
    shape = tuple(map(int, size.split("x")))
    network = without_content(model.strip("`"), (), shape, int(classes))
    found = [*layers(network, (1, *shape), META)]
    assert numbers == [
        f"{sum(parameter.numel() for parameter in network.parameters()):,}",
        str(sum(layer.neurons > 0 for layer in found)),
        f"{sum(layer.neurons for layer in found):,}",
        f"{sum(layer.macs for layer in found) / 1e6:,.1f} M",
    ]
