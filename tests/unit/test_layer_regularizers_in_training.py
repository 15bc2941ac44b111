"""Regularizers of spiking layers in the config, and in the training loop."""

from functools import cache, partial
from typing import Any

import pytest
import torch

from snnrobust import config
from snnrobust.data.dataset import Split
from snnrobust.regularizers.base import Regularizer
from snnrobust.regularizers.none import NoRegularizer
from snnrobust.schema import ConfigError
from snnrobust.spiking.encoders.latency import Latency
from snnrobust.training.defences.adversarial import Adversarial
from snnrobust.training.defences.none import NoDefence
from snnrobust.training.loop import Trainer
from snnrobust.training.settings import TrainingSettings

CHOICES = (
    *("spike_rate", "threshold_guarding", "membrane_distribution"),
    *("membrane_perturbation", "temporal_reversal"),
)


def composed(*overrides: str) -> dict[str, Any]:
    return dict(config.compose("config", ["tracker=none", *overrides]).config)


@cache
def built(choice: str, *overrides: str) -> Regularizer:
    made: Regularizer = config.instantiate("regularizer", composed(f"regularizer={choice}", *overrides)["regularizer"])
    return made


def data(number: int, seed: int) -> Split:
    """Random pixels; the brightest quarter of the image is the class."""
    values = torch.randint(9, (number, 1, 8, 8), generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(number) % 4
    for picture, label in zip(values, labels.tolist(), strict=True):
        picture[0, 2 * label : 2 * label + 2] += 8
    return Split(values.to(torch.uint8), labels, 16)


def trained(model, regularizer: Regularizer, defence: Any = None):
    """The model after 6 epochs, and the scores of every epoch."""
    epochs: list[Any] = []
    optimizer = partial(torch.optim.Adam, lr=0.01)
    run = Trainer(TrainingSettings(optimizer, epochs=6, batch_size=16), regularizer, defence or NoDefence(), seed=0)
    run(model, data(48, 0), data(16, 1), epochs.append)
    return model, epochs


@pytest.mark.parametrize("choice", CHOICES)
def test_training_lowers_the_term(choice, make_tiny):
    """Compared with a training by the cross-entropy alone, on validation data."""
    regularizer = built(
        choice, "regularizer.warmup=0", f"regularizer.weight={100 if choice == 'temporal_reversal' else 3}"
    )
    scores = []
    for term in (NoRegularizer(), regularizer):
        model, _ = trained(make_tiny(Latency(4)), term)  # reversed, its code is another one
        scores.append(
            Trainer(TrainingSettings(), regularizer, NoDefence(), seed=0).score(model, data(16, 1)).regularizer
        )
    assert 0 < scores[1] < 0.75 * scores[0]


@pytest.mark.parametrize("choice", CHOICES)
def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before(choice, make_tiny):
    states = []
    for stream in (1, 2):
        torch.manual_seed(stream)
        states.append(trained(make_tiny(), built(choice, "regularizer.warmup=2"))[0].state_dict())
    assert all(torch.equal(first, second) for first, second in zip(*(s.values() for s in states), strict=True))


@pytest.mark.parametrize("choice", CHOICES)
def test_in_bfloat16_the_term_is_nearly_the_same(choice, make_tiny):
    """Membranes are float32 there too."""
    regularizer = built(choice, "regularizer.warmup=0")
    terms = []
    for precision in ("float32", "bfloat16"):
        settings = TrainingSettings(epochs=1, batch_size=48, precision=precision)
        epochs: list[Any] = []
        model = make_tiny(Latency(4))
        Trainer(settings, regularizer, NoDefence(), seed=0)(model, data(48, 0), data(16, 1), epochs.append)
        terms.append(epochs[0].train.regularizer)
    assert terms[1] == pytest.approx(terms[0], rel=0.3)
    assert terms[0] > 0


def test_with_adversarial_training_no_other_inputs_are_crafted(make_tiny):
    """Validation data are clean: there the attack of the regularizer counts."""
    attack = config.instantiate("defence", composed("defence=adversarial")["defence"]).attack
    crafted = [built("membrane_perturbation", f"attack@regularizer.attack={name}") for name in ("pgd", "fgsm")]
    runs = [trained(make_tiny(), regularizer, Adversarial(attack, 0.5)) for regularizer in crafted]
    assert [e.train for e in runs[0][1]] == [e.train for e in runs[1][1]]
    assert runs[0][1][-1].validation != runs[1][1][-1].validation


def test_guarding_rises_over_the_whole_training_unless_told_otherwise():
    node = composed("regularizer=threshold_guarding", "training.epochs=7")["regularizer"]
    assert node["warmup"] == 7


def test_noisy_neurons_and_guarding_make_the_published_method():
    found = config.compose("config", ["regularizer=threshold_guarding", "neuron=noisy_lif"])
    assert found.choices["regularizer"] == "threshold_guarding"


REFUSED = [
    *(
        (
            choice,
            ["neuron=relu", "encoder.steps=1"],
            f"regularizer: {choice} is of spiking layers; allowed with neuron=",
        )
        for choice in CHOICES
    ),
    (
        "membrane_perturbation",
        ["neuron=psn"],
        "regularizer: membrane_perturbation is of membranes with a leak; allowed",
    ),
    (
        "membrane_perturbation",
        ["neuron=noisy_lif"],
        "regularizer: membrane_perturbation compares two passes, and would ",
    ),
    (
        "membrane_perturbation",
        ["encoder=poisson"],
        "regularizer: membrane_perturbation compares two passes, and would ",
    ),
    (
        "temporal_reversal",
        ["encoder=poisson"],
        "regularizer: temporal_reversal compares two passes, and would measure the",
    ),
    (
        "temporal_reversal",
        ["neuron=noisy_lif"],
        "regularizer: temporal_reversal compares two passes, and would measure t",
    ),
    (
        "temporal_reversal",
        ["neuron=stochastic_gates"],
        "regularizer: temporal_reversal compares two passes, and would me",
    ),
    (
        "temporal_reversal",
        ["model=vgg5", "model.dropout=0.1"],
        "regularizer: temporal_reversal compares two passes, and ",
    ),
    (
        "temporal_reversal",
        ["encoder.steps=1"],
        "encoder.steps: got 1, and one step cannot be reversed; allowed with temp",
    ),
    (
        "membrane_distribution",
        ["neuron/surrogate=atan"],
        "regularizer.gamma: got null, the half-width of the surrogate, wh",
    ),
    (
        "membrane_perturbation",
        ["estimator@regularizer.attack.estimator=strongest"],
        "regularizer.attack.estimator: got ",
    ),
    (
        "membrane_perturbation",
        ["regularizer.attack.steps=0"],
        "regularizer.attack.steps: got 0; allowed: greater than or",
    ),
]


@pytest.mark.parametrize(("choice", "overrides", "said"), REFUSED)
def test_what_makes_no_sense_is_refused_in_one_line_unless_its_weight_is_0(choice, overrides, said):
    with pytest.raises(ConfigError) as error:
        composed(f"regularizer={choice}", *overrides)
    assert len(str(error.value).splitlines()) == 1
    assert str(error.value).startswith(said)
    if "attack" not in overrides[0]:
        composed(f"regularizer={choice}", *overrides, "regularizer.weight=0")


@pytest.mark.parametrize(
    ("choice", "overrides"),
    [
        ("spike_rate", ["neuron=noisy_lif", "encoder=poisson"]),
        ("threshold_guarding", ["neuron=psn"]),
        ("membrane_distribution", ["neuron=psn", "neuron/surrogate=rectangle"]),
        ("membrane_distribution", ["neuron/surrogate=atan", "regularizer.gamma=0.5"]),
        ("membrane_distribution", ["neuron=self_consistent"]),
        ("membrane_perturbation", ["encoder=latency", "attack@regularizer.attack=pgd"]),
        ("temporal_reversal", ["neuron=psn", "encoder=phase"]),
        ("temporal_reversal", ["dataset=digits_events", "defence=adversarial"]),
    ],
)
def test_what_makes_sense_is_allowed(choice, overrides):
    assert composed(f"regularizer={choice}", *overrides)["regularizer"]["weight"] > 0


def test_an_estimator_that_does_not_apply_to_the_model_is_refused_before_the_training():
    """The default model has no max pooling to substitute."""
    chosen = ["regularizer=membrane_perturbation", "estimator@regularizer.attack.estimator=max_pool_average"]
    experiment, _ = config.build(composed(*chosen))
    with pytest.raises(ValueError, match=r"^regularizer\.attack\.estimator: max pooling is .*; allowed: .*$"):
        experiment.refuse_misfits(experiment.classifier())
