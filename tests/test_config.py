"""The yaml files: each composes, passes the check, builds, and says the same as the class that it configures."""

import inspect
from importlib import import_module

import pytest
import torch
import yaml

from snnrobust.attacks.transfer import Transfer
from snnrobust.config import build, compose, instantiate
from snnrobust.identity import evaluation_signature, training_signature
from snnrobust.launchers.base import Launcher
from snnrobust.saved import reference_to
from snnrobust.schema import ConfigError, _evaluate, check_value, parameters_of
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.training.checkpoint import Checkpoint
from snnrobust.yamls import folder, groups

PARTS = {"estimator/members"}
"""Groups whose choices are parts of other choices alone."""
CONVERSIONS = {p.stem for p in (folder() / "experiment").glob("*.yaml") if "override /conversion" in p.read_text()}
"""Of another verb, see `tests/unit/test_stages.py`."""
CHOICES = [
    (group, choice)
    for group, choices in groups().items()
    if group not in {*PARTS, "conversion"}
    for choice in choices
    if group != "experiment" or choice not in CONVERSIONS
]
PATHS = sorted(folder().rglob("*.yaml"))
NODES = {
    path.relative_to(folder()).with_suffix("").as_posix(): node
    for path in PATHS
    if (node := yaml.safe_load(path.read_text()) or {}).get("_target_", "").startswith("snnrobust.")
}
"""Files whose settings are ours; those of torch's optimizers are torch's, and only some of them are listed."""
NODES |= {
    f"{name}.{part}": node[part] for name, node in NODES.items() for part in ("images", "recordings") if part in node
}
TARGETS = sorted({node["_target_"] for node in NODES.values()})
NESTED = {
    "additional_parameters",  # of sbatch
    *("threat", "surrogate", "parameters", "estimator", "estimators", "candidates", "attack", "source"),
    *("augmentation", "operations", "recordings", "images"),
    *("optimizer", "schedule", "scheduler", "validation", "training"),
}
"""Settings that are objects of their own, or the settings of someone else's class."""


@pytest.fixture(scope="module")
def default():
    return compose("config", [])


@pytest.fixture(scope="module")
def saved(default, tmp_path_factory):
    """As much of a run as an attack can be transferred from."""
    home = tmp_path_factory.mktemp("runs") / "1234e56789"
    home.mkdir()
    (home / "config.yaml").write_text(yaml.safe_dump(dict(default.config)))
    experiment, _ = build(default.config | {"device": "cpu"})
    state = dict(experiment.classifier().state_dict())
    Checkpoint(training_signature(default.config), 1, {}, {"train": 0.0}, {}, state).save(home / "checkpoint.pt")
    return home


def overrides_for(group, choice, choices, saved):
    """What a user types to get one choice of one group."""
    if (group, choice) == ("attack", "transfer"):
        return [f"+attack@attacks.probe={choice}", f"attacks.probe.source={saved}"]
    binary = ["dataset=digits_events_binary"]
    if group == "attack":
        return [*binary * ("flips" in choice or choice == "sda"), f"+attack@attacks.probe={choice}"]
    if group == "dataset/augmentation":
        return [f"dataset={'nmnist' if choice.startswith('events') else 'cifar10'}", f"{group}={choice}"]
    others = {
        ("encoder", "frames"): ["dataset=digits_events"],
        ("threat", "flips"): [*binary, "suite=flips"],
        ("suite", "flips"): binary,
        ("connectivity", "rewired"): ["start=random_connectivity"],
    }
    fitting = others.get((group, choice), [])
    if (group, choice) == ("training", "none"):
        fitting = ["start=weights", f"start.source={saved}"]
    if group == "start" and "source" in NODES[f"start/{choice}"]:
        fitting = [f"start.source={saved}"]
    known = {*choices, "experiment", "start", "connectivity"}
    return [f"{group}={choice}" if group in known else f"+{group}={choice}", *fitting]


def settings_of(node):
    return {k: v for k, v in node.items() if not k.startswith("_") and k != "defaults"}


def chosen_by(node):
    """Settings that the defaults list brings: `optimizer: adam`, `/attack@attack: pgd`."""
    items = [key for item in node.get("defaults", []) if isinstance(item, dict) for key in item]
    places = [key.rpartition("@")[2] for key in items if not key.startswith("override")]
    return {place for place in places if "." not in place}


def late(node, parameters):
    """Parameters that are handed over when a partial object is called."""
    return {name for name, p in parameters.items() if p.required and node.get("_partial_")}


def defaults_of(target):
    module, _, name = target.rpartition(".")
    signature = inspect.signature(getattr(import_module(module), name))
    return {k: p.default for k, p in signature.parameters.items() if p.default is not inspect.Parameter.empty}


def differs(value, default):
    """Whether a yaml value is another one than Python's default; interpolations and objects are decided elsewhere."""
    if (isinstance(value, str) and "${" in value) or (isinstance(value, dict) and "_target_" in value):
        return False
    if callable(default) or repr(default) == "<factory>":
        default = {}
    return value != (list(default) if isinstance(default, tuple) else default)


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_passes_the_check_and_builds(group, choice, default, saved):
    overrides = overrides_for(group, choice, {**default.choices, "launcher": "local"}, saved)
    composed = compose("config", [*overrides, "tracker=none", "device=cpu"] if group != "tracker" else overrides)
    if group == "launcher":  # of a command, not of its runs
        assert composed.launcher is not None
        assert isinstance(instantiate("launcher", composed.launcher), Launcher)
        assert "launcher" not in composed.config
        return
    named = composed.choices.get("attack@attacks.probe" if group == "attack" else group)
    assert named == choice
    experiment, _ = build(composed.config)
    assert set(experiment.attacks) == set(composed.config["attacks"])


def test_every_file_with_a_target_was_found():
    assert len(NODES) >= 20
    assert len(CHOICES) >= len(NODES)


@pytest.mark.parametrize("name", NODES)
def test_every_file_lists_all_settings_of_its_target(name):
    node = NODES[name]
    parameters = parameters_of(node["_target_"])
    assert parameters is not None, "the settings cannot be read from the source"
    assert {*settings_of(node), *chosen_by(node)} - late(node, parameters) == set(parameters) - late(node, parameters)


@pytest.mark.parametrize("target", TARGETS)
def test_one_file_of_every_target_repeats_its_defaults(target):
    defaults = defaults_of(target)
    deviations = {
        name: {k: v for k, v in settings_of(node).items() if k in defaults and differs(v, defaults[k])}
        for name, node in NODES.items()
        if node["_target_"] == target
    }
    assert {} in deviations.values(), deviations


@pytest.mark.parametrize("name", NODES)
def test_every_setting_is_checked_by_type_and_range(name):
    node = NODES[name]
    parameters = parameters_of(node["_target_"])
    assert parameters is not None
    for setting in set(parameters) - late(node, parameters) - NESTED:
        annotation = parameters[setting].annotation
        assert annotation, f"{setting} has no annotation"
        assert _evaluate(annotation) is not None, f"{setting}: {annotation} is not checked"


@pytest.mark.parametrize("name", NODES)
def test_every_setting_can_be_refused(name):
    """No annotation is so wide that a mapping of nonsense passes."""
    parameters = parameters_of(NODES[name]["_target_"])
    assert parameters is not None
    for setting in set(settings_of(NODES[name])) - NESTED:
        assert list(check_value(setting, {"no": "sense"}, parameters[setting].annotation)), setting


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.relative_to(folder()).as_posix())
def test_every_file_says_in_its_first_lines_what_it_is(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ")


def test_the_budget_is_the_customary_one_of_the_dataset(default):
    assert default.config["threat"]["eps"] == default.config["dataset"]["eps"]
    assert compose("config", ["dataset=fashion_mnist"]).config["threat"]["eps"] == pytest.approx(8 / 255)
    assert compose("config", ["threat.eps=0.3"]).config["attacks"]["pgd"]["threat"]["eps"] == 0.3


def test_the_evaluation_seed_follows_the_seed():
    config = compose("config", ["seed=3"]).config
    assert config["evaluation"]["seed"] == 3
    assert {node["seed"] for node in config["attacks"].values()} == {3}


def test_event_datasets_choose_their_encoder():
    assert compose("config", ["dataset=digits_events"]).choices["encoder"] == "frames"


def test_event_frames_are_as_many_as_the_encoder_takes():
    config = compose("config", ["dataset=digits_events", "encoder.steps=5"]).config
    assert config["dataset"]["steps"] == 5


def test_a_fraction_is_the_number_it_reads_as():
    assert compose("config", ["threat.eps=${frac:8/255}"]).config["threat"]["eps"] == 8 / 255


def test_one_word_is_enough_for_a_code_that_draws():
    composed = compose("config", ["encoder=poisson"])
    assert (composed.choices["encoder"], composed.choices["regularizer"]) == ("poisson", "none")


# --- models and runs that lie elsewhere


def test_the_roots_say_the_same_of_an_evaluation(tmp_path):
    own = yaml.safe_load((folder() / "config.yaml").read_text())
    foreign = yaml.safe_load((folder() / "foreign.yaml").read_text())
    assert foreign["evaluation"] == own["evaluation"]
    for key in ("seed", "device", "threads", "runs", "force"):
        assert foreign[key] == own[key]


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"weights")
    return path


def foreign(weights, *overrides):
    return compose("foreign", ["model._target_=torch.nn.Flatten", f"checkpoint={weights}", *overrides]).config


def signatures(config):
    return training_signature(config), evaluation_signature(config)


def test_a_foreign_model_is_its_target_its_arguments_its_data_and_the_content_of_its_weights(weights, tmp_path):
    signature = training_signature(foreign(weights))
    copied = tmp_path / "copied.pt"
    copied.write_bytes(weights.read_bytes())
    same = [foreign(copied), foreign(weights, "seed=3"), foreign(weights, "dataset.root=elsewhere", "threat.eps=0.2")]
    assert {training_signature(config) for config in same} == {signature}
    others = ["+model.start_dim=1", "dataset=digits_events", "model._target_=torch.nn.Softmax", "stochastic=true"]
    found = {training_signature(foreign(weights, override)) for override in others}
    weights.write_bytes(b"others!")
    found |= {training_signature(foreign(weights)), training_signature(foreign("null"))}
    assert len(found | {signature}) == len(others) + 3


def test_a_foreign_model_is_evaluated_anew_by_other_attacks(weights):
    one, other = foreign(weights), foreign(weights, "attacks.pgd.steps=3")
    assert training_signature(one) == training_signature(other)
    assert evaluation_signature(one) != evaluation_signature(other)


def test_weights_that_are_not_there_are_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"^checkpoint: got .*absent.pt \(No such file or directory\); allowed: "):
        foreign(tmp_path / "absent.pt")


def transferred(source, *overrides):
    probe = ["+attack@attacks.probe=transfer", f"attacks.probe.source='{source}'"]
    return compose("config", [*probe, *overrides, "device=cpu", "tracker=none"]).config


def test_the_source_of_a_transferred_attack_is_a_training_wherever_it_lies(saved, tmp_path, default):
    moved = saved.rename(saved.with_name("moved"))
    try:
        there = transferred(moved)
    finally:
        moved.rename(saved)
    here = transferred(saved / "checkpoint.pt")
    pinned = reference_to(saved / "checkpoint.pt", default.config)
    assert here["attacks"]["probe"]["source"] == pinned
    assert pinned["training_signature"] == training_signature(default.config)
    assert signatures(here) == signatures(there)
    path = saved / "config.yaml"
    before = path.read_text()
    path.write_text(yaml.safe_dump({**default.config, "seed": 5}))
    try:
        assert training_signature(transferred(saved)) == training_signature(here)
        assert evaluation_signature(transferred(saved)) != evaluation_signature(here)
    finally:
        path.write_text(before)


def test_a_transferred_attack_is_built_around_the_classifier_that_was_saved(saved):
    experiment, _ = build(transferred(saved, "evaluation.fast=false"))
    state = torch.load(saved / "checkpoint.pt", weights_only=True)["state"]
    probe = experiment.attacks["probe"]
    assert isinstance(probe, Transfer)
    assert isinstance(probe.source, SpikingClassifier)
    assert not probe.source.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in probe.source.state_dict().items())
    fast, _ = build(transferred(saved))
    quick, x = fast.attacks["probe"], torch.rand(2, 1, 8, 8)
    assert isinstance(quick, Transfer)
    torch.testing.assert_close(quick.source(x), probe.source(x))


@pytest.mark.parametrize("source", ["absent", "", "{a: 1}", 3])
def test_a_source_that_is_no_run_is_one_line(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^attacks\.probe\.source: ") as error:
        transferred(source)
    assert "\n" not in str(error.value)
