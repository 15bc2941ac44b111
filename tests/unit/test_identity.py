"""Signatures: what counts, what does not, and that they stay what they are."""

import copy

import pytest

from snnrobust.config import compose
from snnrobust.identity import TRAINING_KEYS, evaluation_signature, family_signature, training_signature
from snnrobust.saved import lineage

# A change here means that every recorded run is orphaned: it is done again under a new name. If it is meant,
# CHANGELOG.md has to say so.
GOLDEN_TRAINING = "b00256916b"
GOLDEN_EVALUATION = "084fc480a5"

NOT_COUNTED = {("dataset", "root"), ("dataset", "download"), ("dataset", "eps"), ("training", "auto_batch")}


@pytest.fixture(scope="module")
def default():
    return compose("config", []).config


def signatures(config):
    return training_signature(config), evaluation_signature(config)


def composed(*overrides):
    return signatures(compose("config", list(overrides)).config)


def leaves(node, path=()):
    """Paths of all values in nested mappings."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def changed(config, path):
    """A copy of `config` with another value at `path`."""
    copied = copy.deepcopy(config)
    node = copied
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = "another value"
    return copied


def test_the_signatures_of_the_default_config_are_frozen(default):
    assert signatures(default) == (GOLDEN_TRAINING, GOLDEN_EVALUATION)


@pytest.mark.parametrize(
    "override",
    ["device=cpu", "threads=3", "runs=elsewhere", "tracker=none", "tracker.mode=online", "force=true", "suite.name=x"],
)
def test_where_and_how_a_run_is_made_does_not_count(default, override):
    assert composed(override) == signatures(default)


@pytest.mark.parametrize("override", ["dataset.root=elsewhere", "dataset.download=true"])
def test_where_the_data_lie_does_not_count(override):
    assert composed("dataset=mnist", override) == composed("dataset=mnist")


def test_what_makes_room_in_memory_does_not_count_wherever_it_stands(default):
    begun = {**default, "start": {"_target_": "snnrobust.conversion.hydra.Hydra", "training": {"epochs": 1}}}
    for auto in (False, True):
        start = {**begun["start"], "training": {"epochs": 1, "auto_batch": auto}}
        training = {**default["training"], "auto_batch": auto}
        assert signatures({**begun, "start": start, "training": training}) == signatures(begun)
    assert signatures(begun) != signatures(default)


def test_every_training_value_changes_both_signatures(default):
    paths = [p for p in leaves({key: default[key] for key in TRAINING_KEYS}) if p[:2] not in NOT_COUNTED]
    assert len(paths) > 20
    for path in paths:
        training, evaluation = signatures(changed(default, path))
        assert training != GOLDEN_TRAINING, path
        assert evaluation != GOLDEN_EVALUATION, path


def test_every_evaluation_value_changes_the_evaluation_signature_alone(default):
    paths = [p for p in leaves({k: default[k] for k in ("threat", "estimator", "attacks", "evaluation")})]
    assert len(paths) > 30
    for path in [*paths, ("suite", "headline", "pgd_accuracy"), ("suite", "cascade")]:
        training, evaluation = signatures(changed(default, path))
        assert training == GOLDEN_TRAINING, path
        assert evaluation != GOLDEN_EVALUATION, path


@pytest.mark.parametrize(
    "override",
    [
        *("threat.eps=0.2", "attacks.pgd.steps=20", "~attacks.fgsm", "evaluation.seed=1"),
        *("estimator=rate", "suite.cascade=true", "evaluation.exhaustive=true", "evaluation.fast=false"),
    ],
)
def test_another_evaluation_from_the_command_line_keeps_the_training(override):
    training, evaluation = composed(override)
    assert training == GOLDEN_TRAINING
    assert evaluation != GOLDEN_EVALUATION


def test_different_training_values_give_different_signatures():
    assert len({composed(f"seed={seed}")[0] for seed in range(5)}) == 5
    assert composed("training.optimizer.lr=0.001")[0] != composed("training.optimizer.lr=0.002")[0]


def test_a_budget_given_as_a_fraction_is_the_same_run():
    assert composed("threat.eps=${frac:1/4}") == composed("threat.eps=0.25")


def test_equal_numbers_are_one_run():
    assert composed("regularizer.weight=0") == composed("regularizer.weight=0.0")
    assert composed("neuron.tau=2") == composed("neuron.tau=2.0")


def test_a_switch_is_not_a_number(default):
    on, one = copy.deepcopy(default), copy.deepcopy(default)
    on["neuron"]["detach_reset"], one["neuron"]["detach_reset"] = True, 1
    assert training_signature(on) != training_signature(one)


def test_the_order_of_keys_does_not_count(default):
    def turned(node):
        return {k: turned(v) for k, v in reversed(node.items())} if isinstance(node, dict) else node

    assert list(turned(default)) != list(default)
    assert signatures(turned(default)) == signatures(default)


def test_the_order_of_entries_counts():
    assert composed("model.channels=[8,16]")[0] != composed("model.channels=[16,8]")[0]


def test_not_a_number_has_no_signature(default):
    broken = copy.deepcopy(default)
    broken["training"]["optimizer"]["lr"] = float("nan")
    with pytest.raises(ValueError, match="Out of range"):
        training_signature(broken)


# --- what lies elsewhere


def test_a_run_that_an_attack_refers_to_is_its_training_not_its_place(default):
    def transferred(path, training):
        source = {"path": path, "training_signature": training}
        attacks = {**default["attacks"], "moved": {"_target_": "x.Transfer", "source": source}}
        return signatures({**default, "attacks": attacks})

    assert transferred("here", "0123456789") == transferred("there", "0123456789")
    assert transferred("here", "0123456789")[0] == GOLDEN_TRAINING
    assert transferred("here", "0123456789")[1] != transferred("here", "9876543210")[1]


def test_weights_made_elsewhere_are_their_content(default):
    def foreign(path="a.pt", sha256="00", **changes):
        kept = {key: default[key] for key in ("dataset", "threat", "estimator", "attacks", "suite", "evaluation")}
        made = {"model": {"_target_": "my.Net"}, "weights": {"path": path, "sha256": sha256}, "stochastic": False}
        return signatures({**kept, **made, **changes})

    assert foreign() == foreign(path="b.pt") == foreign(seed=3, threads=2)
    others = [foreign(sha256="01"), foreign(stochastic=True), foreign(model={"_target_": "my.Net", "width": 8})]
    others.append(foreign(dataset={**default["dataset"], "split_seed": 1}))
    assert len({training for training, _ in [foreign(), *others]}) == 5


def test_a_run_that_is_referred_to_counts_by_its_training_alone(default):
    other = {"training_signature": "0123456789", "path": "a", "family": "f", "lineage": "hydra 0.9 relu"}
    start = {"_target_": "snnrobust.conversion.weights.Weights", "source": other}
    one = training_signature(default | {"start": start})
    assert one != training_signature(default)
    for key in ("path", "family", "lineage"):
        assert one == training_signature(default | {"start": {**start, "source": other | {key: "another"}}})
    assert one != training_signature(default | {"start": {**start, "source": other | {"training_signature": "x"}}})


def test_what_is_null_does_not_count(default):
    assert training_signature(default | {"start": None, "connectivity": None}) == training_signature(default)
    assert evaluation_signature(default | {"reference": None}) == evaluation_signature(default)


def test_families_leave_out_seeds_and_nothing_else(default):
    seeded = {**default, "seed": 5, "defence": default["defence"] | {"attack": {"seed": 5}}}
    plain = {**default, "defence": default["defence"] | {"attack": {"seed": 0}}}
    assert family_signature(seeded) == family_signature(plain)
    assert family_signature(default | {"model": {"_target_": "other"}}) != family_signature(default)
    sources = [{"training_signature": "a", "family": "f"}, {"training_signature": "b", "family": "f"}]
    starts = [family_signature(default | {"start": {"_target_": "x", "source": source}}) for source in sources]
    assert starts[0] == starts[1]
    other = {"_target_": "x", "source": {"training_signature": "a", "family": "g"}}
    assert family_signature(default | {"start": other}) != starts[0]


def test_lineages_say_how_weights_came_about(default):
    ann = default | {"neuron": {"_target_": "snnrobust.spiking.activation.ReLU"}}
    assert lineage(ann) == "relu"

    def of(kind, source, **settings):
        referred = {"training_signature": "x", "lineage": lineage(source)}
        return default | {"start": {"_target_": f"snnrobust.conversion.{kind}.C", "source": referred, **settings}}

    pruned = of("hydra", ann, sparsity=0.95)
    converted = of("converted", of("weights", pruned))
    assert [lineage(c) for c in (pruned, converted)] == ["hydra 0.95 relu", "converted hydra 0.95 relu"]
