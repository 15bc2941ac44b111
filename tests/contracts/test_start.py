"""What every start must keep; over the yaml files themselves."""

import copy
import json

import pytest
import torch
import yaml

from snnrobust.building import _start
from snnrobust.config import build, compose
from snnrobust.conversion.base import Ground
from snnrobust.data.augmentation import NONE
from snnrobust.identity import training_signature
from snnrobust.randomness import isolated
from snnrobust.regularizers.none import NoRegularizer
from snnrobust.spiking.synapses import synapses
from snnrobust.training.checkpoint import Checkpoint
from snnrobust.training.defences.none import NoDefence
from snnrobust.yamls import folder, groups
from tests.unit.trained import data

SMALL = ["model.channels=[4]", "model.hidden=8", "device=cpu", "regularizer=none", "encoder.steps=3"]
FAST = {"batches": 2, "batch_size": 8, "steps": 5, "training": {"epochs": 1, "batch_size": 16}}
"""Settings of some starts, smaller."""
CPU = torch.device("cpu")
STARTS = sorted(groups()["start"])
SPIKING = {"converted", "random_connectivity", "connectivity_of"}
"""Starts of spiking networks; the others are of networks like their source."""


@pytest.fixture(scope="module")
def ann(tmp_path_factory):
    """A run of ReLUs."""
    home = tmp_path_factory.mktemp("runs") / "ann"
    home.mkdir()
    config = compose("config", [*SMALL, "neuron=relu", "encoder.steps=1"]).config
    (home / "config.yaml").write_text(yaml.safe_dump(dict(config)))
    state = {name: tensor.clone() for name, tensor in build(config)[0].classifier().state_dict().items()}
    Checkpoint(training_signature(config), 1, {}, {}, {}, state).save(home / "checkpoint.pt")
    return home


def composed(name, ann):
    needs = "source" in yaml.safe_load((folder() / "start" / f"{name}.yaml").read_text())
    neuron = "trainable_threshold" if name in SPIKING else "relu"
    words = [*SMALL, "training=none", f"start={name}", f"neuron={neuron}", *[f"start.source={ann}"] * needs]
    return compose("config", words).config


def smaller(node):
    for key, value in FAST.items():
        if key in node:
            node[key] = node[key] | value if isinstance(value, dict) else value
    return node


def begun(name, ann, seed=0):
    """The model as it begins, as it was before, the record, and the source with its state before."""
    config = composed(name, ann)
    model = build(config)[0].classifier()
    before = copy.deepcopy(model)
    start = _start(smaller(dict(config["start"])), CPU)
    source = getattr(start, "source", None)
    theirs = None if source is None else copy.deepcopy(source.state_dict())
    ground = Ground(data(48), data(16, 1), NONE, NoRegularizer(), NoDefence(), seed, lambda _: None)
    with isolated("start", seed):
        record = start.begin(model, ground)
    return model, before, record, source, theirs


@pytest.mark.parametrize("name", STARTS)
def test_names_shapes_and_flags_are_those_of_the_model(name, ann):
    model, before, *_ = begun(name, ann)
    shapes = [{n: (t.shape, t.dtype) for n, t in m.state_dict().items()} for m in (model, before)]
    assert shapes[0] == shapes[1]
    flags = [{n: p.requires_grad for n, p in m.named_parameters()} for m in (model, before)]
    assert flags[0] == flags[1]
    assert [type(m) for m in model.modules()] == [type(m) for m in before.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("name", STARTS)
def test_weights_are_finite_and_absent_ones_are_plain_zeros(name, ann):
    model, *_ = begun(name, ann)
    assert all(t.isfinite().all() for t in model.state_dict().values())
    for weight in synapses(model).values():
        assert not weight.signbit()[weight == 0].any()
        assert (weight != 0).any()


@pytest.mark.parametrize("name", STARTS)
def test_the_source_is_left_as_it_was(name, ann):
    *_, source, theirs = begun(name, ann)
    if source is not None:
        assert not source.training
        assert all(torch.equal(t, theirs[n]) for n, t in source.state_dict().items())
        assert all(p.grad is None for p in source.parameters())


@pytest.mark.parametrize("name", STARTS)
def test_the_same_seed_gives_the_same_bits(name, ann):
    states = [begun(name, ann)[0].state_dict() for _ in range(2)]
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])


@pytest.mark.parametrize("name", STARTS)
def test_what_it_says_is_json_and_true(name, ann):
    model, _, record, *_ = begun(name, ann)
    assert json.loads(json.dumps(record)) == record
    weights = synapses(model)
    absent = sum(int((w == 0).sum()) for w in weights.values()) / sum(w.numel() for w in weights.values())
    assert record["sparsity"] == pytest.approx(absent)
    assert record["densities"].keys() == weights.keys()
