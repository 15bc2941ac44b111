"""Which attack a defence has on the command line: every one on inputs, with what it takes; the others in one line."""

from typing import Any

import pytest

from snnrobust import config, yamls
from snnrobust.attacks.flips_sda import SDA
from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.estimators.ensemble import Ensemble
from snnrobust.flips import Flips
from snnrobust.schema import ConfigError
from snnrobust.threat import L2, Linf

ON_CODES = ("encoded_fgsm", "encoded_pgd", "transfer")
OF_FLIPS = ("random_flips", "sda", "top_flips")


def composed(*overrides: str, defence: str = "adversarial") -> Any:
    return config.compose("config", [f"defence={defence}", *overrides]).config["defence"]


def defence_of(*overrides: str, defence: str = "adversarial") -> Any:
    return config.instantiate("defence", composed(*overrides, defence=defence))


@pytest.mark.parametrize("choice", [c for c in yamls.groups()["attack"] if c not in ON_CODES])
def test_any_attack_on_inputs_fits_in_with_a_budget_of_its_own(choice):
    data = ["dataset=digits_events_binary"] if choice in OF_FLIPS else ["dataset=digits"]
    attack = defence_of(f"attack@defence.attack={choice}", "threat=l2", "estimator=rate", "seed=5", *data).attack
    assert attack.seed == 5
    if choice in OF_FLIPS:
        assert isinstance(attack.threat, Flips)
    elif attack.threat is not None:
        assert attack.threat == Linf(0.1)
    assert type(attack.estimator).__name__ == "Trained"


@pytest.mark.parametrize("choice", ON_CODES)
def test_attacks_on_other_things_are_refused(choice):
    with pytest.raises(ConfigError) as error:
        composed(f"attack@defence.attack={choice}")
    assert str(error.value) == (
        f"attack@defence.attack: got {choice}; allowed: attacks on the inputs of the network that is trained"
    )


def test_threat_and_estimator_are_chosen_like_those_of_an_evaluation():
    chosen = ["threat@defence.attack.threat=l2", "estimator@defence.attack.estimator=four"]
    attack = defence_of(*chosen, "defence.attack.threat.eps=0.7").attack
    assert attack.threat == L2(0.7)
    assert isinstance(attack.estimator, Ensemble)
    assert [*attack.variants()] == ["triangle_1", "sigmoid_4", "atan_2", "rate"]


def test_the_budget_of_flips_can_be_set():
    words = ["dataset=digits_events_binary", "attack@defence.attack=sda", "defence.attack.threat.count=7"]
    attack = defence_of(*words).attack
    assert isinstance(attack, SDA)
    assert attack.threat == Flips(7)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["attack@defence.attack=sda"], "defence.attack: flips are of events in binary frames"),
        (["threat@defence.attack.threat=flips"], "defence.attack: flips are of events in binary frames"),
        (["estimator@defence.attack.estimator=strongest"], "defence.attack.estimator: got strongest"),
        (["attack@defence.attack=gaussian_noise", "defence.attack.threat.eps=0.2"], "defence.attack.threat: unknown"),
        (["attack@defence.attack=square", "estimator@defence.attack.estimator=rate"], "defence.attack.estimator: unkn"),
        (["defence.clean_weight=1"], "defence.clean_weight: got 1; allowed: less than 1"),
        (["defence.warmup=-1"], "defence.warmup: got -1; allowed: greater than or equal to 0"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_built(overrides, message):
    with pytest.raises(ConfigError) as error:
        composed(*overrides)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("defence", "overrides", "message"),
    [
        ("trades", ["attack@defence.attack=fgsm"], "defence.attack.start: got input, where the divergence"),
        ("trades", ["attack@defence.attack=apgd_targeted"], "defence.attack: targets and dlr are of three or more"),
        ("rat", ["attack@defence.attack=gaussian_noise", "defence.warmup=2"], "defence.warmup: got 2, but the attack"),
        ("mart", ["attack@defence.attack=torchattacks", "defence.attack.name=Q"], "defence.attack.name: torchattacks"),
    ],
)
def test_what_an_object_refuses_names_the_key(defence, overrides, message):
    with pytest.raises(ValueError, match=r".") as error:
        defence_of(*overrides, defence=defence)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("defence", ["trades", "mart"])
def test_the_published_inner_attack_is_the_default(defence):
    attack = defence_of(defence=defence).attack
    assert isinstance(attack, ProjectedGradient)
    assert (attack.steps, attack.start, attack.start_size) == (10, "normal", 0.001)
    assert attack.step == pytest.approx(0.025)


def test_what_a_run_is_judged_by_does_not_touch_what_it_trains_with():
    words = ["threat.eps=0.3", "estimator=rate", "suite=reliable", "evaluation.seed=9"]
    assert composed() == composed(*words)
