"""The yaml files: each composes, passes the check, builds, and says the same as the class that it configures."""

import inspect
from importlib import import_module

import pytest
import yaml

from snnrobust.config import build, compose, folder, groups
from snnrobust.schema import _evaluate, check_value, parameters_of

CHOICES = [(group, choice) for group, choices in groups().items() for choice in choices]
PATHS = sorted(folder().rglob("*.yaml"))
NODES = {
    path.relative_to(folder()).with_suffix("").as_posix(): node
    for path in PATHS
    if "_target_" in (node := yaml.safe_load(path.read_text()) or {})
}
TARGETS = sorted({node["_target_"] for node in NODES.values()})
NESTED = {"threat", "surrogate", "parameters"}
"""Settings that are objects of their own, or the settings of someone else's class."""


@pytest.fixture(scope="module")
def default():
    return compose("config", [])


def overrides_for(group, choice, choices):
    """What a user types to get one choice of one group."""
    if group == "attack":
        return [f"+attack@attacks.probe={choice}"]
    fitting = ["dataset=digits_events"] if (group, choice) == ("encoder", "frames") else []
    return [*fitting, f"{group}={choice}" if group in {*choices, "experiment"} else f"+{group}={choice}"]


def settings_of(node):
    return {k: v for k, v in node.items() if not k.startswith("_") and k != "defaults"}


def late(node, parameters):
    """Parameters that are handed over when a partial object is called."""
    return {name for name, p in parameters.items() if p.required and node.get("_partial_")}


def defaults_of(target):
    module, _, name = target.rpartition(".")
    signature = inspect.signature(getattr(import_module(module), name))
    return {k: p.default for k, p in signature.parameters.items() if p.default is not inspect.Parameter.empty}


def differs(value, default):
    """Whether a yaml value is another one than Python's default; interpolations are decided elsewhere."""
    if isinstance(value, str) and "${" in value:
        return False
    if callable(default) or repr(default) == "<factory>":
        default = {}
    return value != (list(default) if isinstance(default, tuple) else default)


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_passes_the_check_and_builds(group, choice, default):
    overrides = overrides_for(group, choice, default.choices)
    composed = compose("config", [*overrides, "tracker=none", "device=cpu"] if group != "tracker" else overrides)
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
    assert set(settings_of(node)) == set(parameters) - late(node, parameters)


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
