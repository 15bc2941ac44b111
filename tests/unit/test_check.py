"""The whole config is checked at once: structure, then targets, then values, then what must fit together."""

import copy

import pytest

from snnrobust.check import check
from snnrobust.config import compose
from snnrobust.schema import ConfigError


@pytest.fixture(scope="module")
def default():
    return compose("config", []).config


@pytest.fixture
def config(default):
    return copy.deepcopy(default)


def mistakes(config, *trusted):
    with pytest.raises(ConfigError) as error:
        check(config, *trusted)
    return str(error.value).splitlines()


def test_the_default_config_passes(config):
    check(config)


def test_every_key_of_the_top_level_is_required(config):
    for key in config:
        rest = {k: v for k, v in config.items() if k != key}
        assert mistakes(rest) == [f"{key}: missing; it has no default"]


def test_mistakes_of_different_nodes_are_reported_together(config):
    config["training"]["lr"] = -1.0
    config["encoder"]["steps"] = 0
    assert [line.partition(":")[0] for line in mistakes(config)] == ["encoder.steps", "training.lr"]


def test_a_wrong_threat_is_reported_once_though_every_attack_repeats_it(config):
    config["threat"]["eps"] = 2
    for attack in config["attacks"].values():
        if "threat" in attack:
            attack["threat"]["eps"] = 2
    assert mistakes(config) == ["threat.eps: got 2; allowed: less than or equal to 1"]


def test_an_attack_is_checked_where_it_alone_is_wrong(config):
    config["attacks"]["pgd"]["steps"] = 0
    assert mistakes(config) == ["attacks.pgd.steps: got 0; allowed: greater than or equal to 1"]


def test_a_seed_that_evaluation_repeats_is_reported_once():
    with pytest.raises(ConfigError) as error:
        compose("config", ["seed=-1"])
    assert str(error.value) == "seed: got -1; allowed: greater than or equal to 0"


def test_a_target_outside_the_trusted_packages_is_refused_at_any_depth(config):
    config["neuron"]["surrogate"] = {"_target_": "os.system", "command": "true"}
    (line,) = mistakes(config)
    assert line.startswith("neuron.surrogate._target_: got 'os.system'; allowed: snnrobust.attacks, ")


def test_a_target_inside_a_list_is_refused(config):
    config["attacks"]["pgd"]["stages"] = [{"_target_": "subprocess.run"}]
    (line,) = mistakes(config)
    assert line.startswith("attacks.pgd.stages[0]._target_: got 'subprocess.run'")


def test_a_package_whose_name_only_begins_like_a_trusted_one_is_refused(config):
    config["model"]["_target_"] = "snnrobust_evil.Net"
    assert "snnrobust_evil" in mistakes(config)[0]


def test_a_trusted_package_is_accepted(config):
    config["defence"] = {"_target_": "collections.OrderedDict"}
    assert mistakes(config)[0].startswith("defence._target_")
    check(config, frozenset({"snnrobust", "torch", "collections"}))


@pytest.mark.parametrize("name", ["clean"])
def test_the_name_of_the_clean_accuracy_is_taken(config, name):
    config["attacks"][name] = config["attacks"]["fgsm"]
    assert mistakes(config)[0].startswith(f"attacks.{name}: ")


def test_a_headline_needs_its_attack(config):
    del config["attacks"]["pgd"]
    (line,) = mistakes(config)
    assert line.startswith("suite.headline.pgd_accuracy: got 'pgd'; allowed: ")


@pytest.mark.parametrize("name", ["a.b", "1st", "", "a b", "../up"])
def test_names_of_attacks_are_identifiers(config, name):
    config["attacks"][name] = config["attacks"]["fgsm"]
    assert len(mistakes(config)) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", -1), ("seed", 1.5), ("seed", True), ("threads", 0), ("force", "yes"), ("runs", 3), ("device", "gpu")],
)
def test_scalars_of_the_top_level_are_checked(config, key, value):
    (line,) = mistakes({**config, key: value})
    assert line.startswith(f"{key}: got {value!r}; allowed: ")


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1"])
def test_devices(config, device):
    check({**config, "device": device})
