"""The runs of a sweep compose as Hydra composes each by itself, and what overrides are of a training."""

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from snnrobust.config import VERSION_BASE, compose, prepare, resolved
from snnrobust.overrides import expand, parse, quoted, referring, touched
from snnrobust.schema import ConfigError
from snnrobust.yamls import folder

SWEEPS = [
    ["defence=adversarial,trades", "defence.attack.steps=5", "seed=1"],
    ["defence=adversarial,rat", "attack@defence.attack=fgsm", "defence.attack.threat.eps=2/255,8/255"],
    ["regularizer=spike_rate,threshold_guarding", "regularizer.warmup=1.0e-1", "training.epochs=3"],
    ["training/schedule=steps,steps", "training.schedule.milestones=[1,2]"],
    ["neuron=noisy_lif,stochastic_gates", "neuron.when=always"],
]


def as_hydra_does(overrides):
    """Without anything that the runs of a sweep share."""
    prepare()
    with initialize_config_dir(str(folder().resolve()), version_base=VERSION_BASE):
        composed = hydra_compose("config", list(overrides), return_hydra_config=True)
    return resolved(composed, composed.hydra.runtime.choices)


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda sweep: sweep[0])
def test_what_runs_share_is_composed_once_and_makes_no_difference(sweep):
    for job in expand(sweep):
        assert compose("config", job) == as_hydra_does(job)


@pytest.mark.parametrize(
    "words",
    [
        ["threat.eps=8/255", "dataset.root=/a/b.c", "training.clip=2"],
        ["model.channels=[4,8]", "training.ema=null", "suite.cascade=true"],
        ["experiment=fashion_mnist", "training.epochs=3"],
        ["training.optimizer.betas=[0.8,0.9]", "~attacks.fgsm"],
        ["+attack@attacks.apgd=apgd", "attacks.apgd.steps=7"],
        ["dataset.augmentation.x=1"],
    ],
    ids=str,
)
def test_values_go_where_hydra_puts_them(words):
    try:
        expected = as_hydra_does(words)
    except Exception:
        with pytest.raises(ConfigError):
            compose("config", words)
        return
    assert compose("config", words) == expected


def test_runs_do_not_change_what_they_share():
    first = compose("config", ["threat.eps=0.3", "model.channels=[2]"])
    assert compose("config", []) == as_hydra_does([])
    assert compose("config", ["threat.eps=0.3", "model.channels=[2]"]) == first


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
