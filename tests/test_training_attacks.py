"""Attacks inside the training are the training's: what a run is judged by does not change them."""

import pytest

from snnrobust import config, yamls
from snnrobust.identity import training_signature

INSIDE = ["defence=adversarial", "regularizer=membrane_perturbation", "training/validation=robust"]
PLACES = (("defence",), ("regularizer",), ("training", "validation"))
JUDGED = [
    *(f"suite={suite}" for suite in yamls.groups()["suite"] if suite != "flips"),
    *("threat=l2", "threat.eps=0.5", "estimator=four", "evaluation.seed=7"),
]


def attacks(overrides):
    content = config.compose("config", [*INSIDE, *overrides]).config
    found = []
    for place in PLACES:
        node = content
        for key in place:
            node = node[key]
        found.append(node["attack"])
    return found, training_signature(content)


@pytest.mark.parametrize("judged", JUDGED)
def test_the_evaluation_does_not_reach_into_the_training(judged):
    assert attacks([judged]) == attacks([])


def test_their_budget_is_that_of_the_dataset_unless_it_is_set():
    found, _ = attacks(["dataset.eps=0.25", "defence.attack.threat.eps=8/255"])
    assert [attack["threat"]["eps"] for attack in found] == [8 / 255, 0.25, 0.25]


def test_they_have_estimators_and_threats_of_their_own():
    changes = ["estimator@defence.attack.estimator=bptr", "threat@regularizer.attack.threat=l2"]
    found, _ = attacks(changes)
    targets = [attack["estimator"]["_target_"].rpartition(".")[2] for attack in found]
    assert targets == ["BPTR", "Trained", "Trained"]
    assert found[1]["threat"]["_target_"].endswith(".L2")


def test_the_seed_of_the_run_is_theirs():
    found, _ = attacks(["seed=5", "evaluation.seed=3"])
    assert {attack["seed"] for attack in found} == {5}
