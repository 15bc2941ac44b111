"""The whole config is checked at once: structure, then targets, then values, then what must fit together."""

import copy

import pytest

from snnrobust.check import SAVED_NODES, check, check_saved
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
    config["training"]["epochs"] = 0
    config["encoder"]["steps"] = 0
    assert [line.partition(":")[0] for line in mistakes(config)] == ["encoder.steps", "training.epochs"]


def test_a_wrong_threat_is_reported_once_though_every_attack_repeats_it(config):
    config["threat"]["eps"] = 2
    for attack in config["attacks"].values():
        if "threat" in attack:
            attack["threat"]["eps"] = 2
    assert mistakes(config) == ["threat.eps: got 2; allowed: less than or equal to 1"]


def test_an_attack_is_checked_where_it_alone_is_wrong(config):
    config["attacks"]["pgd"]["steps"] = 0
    assert mistakes(config) == ["attacks.pgd.steps: got 0; allowed: greater than or equal to 1"]


@pytest.mark.parametrize("value", ["linf", None, 0.1])
@pytest.mark.parametrize("key", ["threat", "estimator"])
def test_what_an_attack_is_made_of_is_no_plain_value(config, key, value):
    config["attacks"]["pgd"][key] = value
    allowed = f"a choice of the group {key}, by [+]{key}@attacks.pgd.{key}=NAME"
    assert mistakes(config) == [f"attacks.pgd.{key}: got {value!r}; allowed: {allowed}"]


@pytest.mark.parametrize("override", ["defence.attack=pgd", "defence.attack=null"])
def test_an_attack_of_a_training_is_no_plain_value(override):
    with pytest.raises(ConfigError) as error:
        compose("config", ["defence=adversarial", override])
    assert str(error.value).endswith("allowed: a choice of the group attack, by [+]attack@defence.attack=NAME")


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


def test_a_window_needs_slices_of_equal_duration():
    said = "dataset.window_us: got 500; allowed: null, or any with dataset.slices=time"
    with pytest.raises(ConfigError) as error:
        compose("config", ["dataset=nmnist", "dataset.window_us=500"])
    assert str(error.value) == said
    compose("config", ["dataset=nmnist", "dataset.window_us=500", "dataset.slices=time"])


def test_a_learned_threshold_begins_where_it_has_an_effect():
    chosen = ["neuron=trainable_threshold", "neuron.threshold=0.5"]
    with pytest.raises(ConfigError) as error:
        compose("config", [*chosen, "neuron.minimum=0.6"])
    assert str(error.value) == "neuron.minimum: got 0.6; allowed: at most neuron.threshold, 0.5"
    compose("config", [*chosen, "neuron.minimum=0.5"])


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


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("batch_size", 0), ("draws", 0), ("draws", 1.5), ("exhaustive", "no"), ("fast", 1), ("seed", -1)),
        ("precision", "float16"),
    ],
)
def test_how_an_evaluation_is_carried_out_is_checked(config, key, value):
    config["evaluation"][key] = value
    (line,) = mistakes(config)
    assert line.startswith(f"evaluation.{key}: got {value!r}; allowed: ")


def test_a_cascade_is_on_or_off(config):
    config["suite"]["cascade"] = "later"
    assert mistakes(config)[0].startswith("suite.cascade: got 'later'; allowed: ")


def test_an_estimator_is_checked_where_attacks_repeat_it(config):
    config["estimator"] = {"_target_": "snnrobust.estimators.surrogate.Trained", "width": 1.0}
    for attack in config["attacks"].values():
        if "estimator" in attack:
            attack["estimator"] = config["estimator"]
    assert mistakes(config) == ["estimator.width: unknown key; allowed: no keys"]


# --- finite differences of the input


DRAWING = [
    (["encoder=poisson"], "the spikes that encoder=poisson draws anew"),
    (["encoder=latency"], "which pixels the rounding of encoder=latency moves by a whole step"),
    (["encoder=phase"], "which bits the rounding of encoder=phase flips"),
    (["neuron=noisy_lif"], "the noise that neuron=noisy_lif draws anew"),
    (["neuron=stochastic_gates"], "which gates neuron=stochastic_gates closes anew"),
    (["neuron=local_feature_masking"], "which squares neuron=local_feature_masking masks anew"),
    (["neuron=stochastic_gates", "neuron@neuron.neuron=noisy_lif"], "the noise that neuron=noisy_lif draws anew"),
    (["model=vgg5", "model.dropout=0.1"], "which hidden spikes model.dropout sets to 0 anew"),
]


@pytest.mark.parametrize("regularizer", ["gradient_sparsity", "gradient_l1", "gradient_l2"])
@pytest.mark.parametrize(("chosen", "measured"), DRAWING, ids=[" ".join(chosen) for chosen, _ in DRAWING])
def test_a_finite_difference_measures_nothing_but_the_step(regularizer, chosen, measured):
    """The gradient of a single pass can be taken all the same."""
    chosen = [*chosen, f"regularizer={regularizer}"]
    with pytest.raises(ConfigError) as error:
        compose("config", [*chosen, "regularizer.method=finite_difference"])
    start = f"regularizer: the finite difference of {regularizer} would measure {measured}; allowed: regularizer=none"
    lines = str(error.value).splitlines()
    assert any(line.startswith(start) and line.endswith("or regularizer.method=exact") for line in lines)
    compose("config", [*chosen, "regularizer.method=exact"])
    compose("config", [*chosen, "regularizer.method=finite_difference", "regularizer.weight=0"])


@pytest.mark.parametrize(
    "chosen", [["neuron=noisy_lif", "neuron.noise=0"], ["model=vgg5"], ["encoder=frequency"]], ids=str
)
def test_a_finite_difference_is_allowed_where_nothing_is_drawn(chosen):
    compose("config", [*chosen, "regularizer=gradient_sparsity"])


@pytest.mark.parametrize(
    ("key", "value"),
    [("direction", "l1"), ("power", 3), ("power", 1.5), ("method", "both"), ("statistics", "freeze"), ("step", 0)],
)
def test_settings_of_gradient_sparsity_are_checked(config, key, value):
    config["regularizer"][key] = value
    (line,) = mistakes(config)
    assert line.startswith(f"regularizer.{key}: got {value!r}; allowed: ")


# --- models made elsewhere


@pytest.fixture
def foreign(config):
    kept = ("dataset", "threat", "estimator", "tracker", "suite", "attacks", "evaluation", "seed", "device", "threads")
    made = {"model": {"_target_": "torch.nn.Flatten"}, "weights": {"path": None, "sha256": None}, "stochastic": False}
    return {**{key: config[key] for key in kept}, **made, "runs": "runs", "force": False}


def test_a_model_made_elsewhere_needs_nothing_of_its_training(foreign, config):
    check(foreign)
    check({**foreign, "encoder": config["encoder"]})
    assert mistakes({**foreign, "training": config["training"]})[0].startswith("training: unknown key")


def test_every_key_of_a_foreign_config_is_required(foreign):
    for key in foreign.keys() - {"weights"}:
        assert mistakes({k: v for k, v in foreign.items() if k != key}) == [f"{key}: missing; it has no default"]


def test_arguments_of_a_model_made_elsewhere_are_checked_by_name(foreign):
    foreign["model"] = {"_target_": "torch.nn.modules.flatten.Flatten", "depth": 3}
    assert mistakes(foreign) == ["model.depth: unknown key; allowed: end_dim, start_dim"]


def test_a_package_that_the_command_did_not_name_is_refused(foreign):
    foreign["model"] = {"_target_": "my.package.Net"}
    assert mistakes(foreign)[0].startswith("model._target_: got 'my.package.Net'; allowed: ")


# --- saved classifiers


def test_only_what_a_classifier_is_built_from_has_to_be_in_order(config):
    check_saved({key: config[key] for key in SAVED_NODES})
    check_saved({**config, "training": {"epochs": -1}, "tracker": {"_target_": "os.system"}})


@pytest.mark.parametrize("key", SAVED_NODES)
def test_what_a_saved_classifier_is_built_from_reaches_no_other_code(config, key):
    config[key] = {"_target_": "torch.load", "f": "evil.pt"}
    with pytest.raises(ConfigError, match=rf"^{key}\._target_: got 'torch.load'"):
        check_saved(config)


def test_values_of_a_saved_classifier_are_checked(config):
    config["encoder"]["steps"] = 0
    with pytest.raises(ConfigError, match=r"^encoder\.steps: got 0"):
        check_saved(config)
