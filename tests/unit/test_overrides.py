"""A sweep as Hydra takes it: the same jobs, and a shared config that knows no setting of a choice that varies; and what
overrides are of a training."""

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode

from snnrobust.config import VERSION_BASE, folder, prepare
from snnrobust.overrides import deferred, expand, parse, quoted, referring, touched

SWEEPS = [
    ["defence=adversarial,trades", "defence.attack.steps=5", "seed=1"],
    ["defence=adversarial,rat", "attack@defence.attack=fgsm", "defence.attack.threat.eps=2/255,8/255"],
    ["regularizer=spike_rate,threshold_guarding", "regularizer.warmup=1.0e-1", "training.epochs=3"],
    ["training/schedule=steps,steps", "training.schedule.milestones=[1,2]"],
    ["neuron=noisy_lif,stochastic_gates", "+neuron.when=always"],
]


def shared(overrides):
    """What Hydra composes before the jobs of a sweep."""
    prepare()
    with initialize_config_dir(str(folder().resolve()), version_base=VERSION_BASE):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        return hydra.compose_config("config", overrides, run_mode=RunMode.MULTIRUN, with_log_configuration=False)


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda sweep: sweep[0])
def test_settings_of_a_choice_that_varies_are_left_to_the_jobs(sweep):
    assert expand(deferred(sweep)) == expand(sweep)
    shared(deferred(sweep))


def test_hydra_refuses_them_as_they_stand():
    with pytest.raises(HydraException, match=r"defence\.attack\.steps"):
        shared(SWEEPS[0])


def test_all_others_stay_as_they_are():
    fixed = ["seed=0,1", "defence=trades", "defence.beta=2", "runs=/tmp/x", "~dataset.root"]
    assert deferred(fixed) == fixed
    below = ["dataset=digits,mnist", "dataset.root=/a/b.c", "dataset.eps=null", "dataset.name=", "~dataset.test"]
    assert deferred(below) == [below[0], "dataset.root=choice(/a/b.c)", *below[2:]]


def test_a_group_counts_where_it_goes_not_by_its_name():
    of_training = ["attack@defence.attack=fgsm", "training/validation=robust", "defence.warmup=1", "+dataset.x=1"]
    others = [
        "+attack@attacks.x=fgsm",
        "attack@attacks.pgd=bim",
        "estimator=rate",
        "threat.eps=0.1",
        "dataset.root=/tmp",
    ]
    assert [*touched([*of_training, *others], ["defence", "training", "dataset"], ["dataset.root"])] == of_training


TEXTS = [
    "runs/ab12", "/a b/c", "it's", "it's \"b\"", "a,b=c/x", "a\\'b", "back\\", "a\\\\'", "1e5", "1234567890", "null",
    "True", "a{b}", "[x]", "~/x", "a:b", ".",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_what_an_override_says_alone_and_in_a_run_that_is_referred_to(text):
    alone, inside = parse([f"key={quoted(text)}", referring("key", {"path": text, "family": "0e12345678"})])
    run = inside.value()
    assert isinstance(run, dict)
    assert [*map(str, run.values())] == [text, "0e12345678"]
    for value in (alone.value(), *run.values()):  # a number would be another text where it is written down
        assert not isinstance(value, int | float | None)
    assert str(alone.value()) == text


def test_a_usual_path_stays_as_it_is():
    assert quoted("../runs/ab12.x") == "../runs/ab12.x"
