"""What is measured after every epoch, which epoch is kept by it, and when training stops early."""

import json
from typing import Any

import pytest
import torch

from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.attacks.noise import UniformNoise
from snnrobust.config import build, compose
from snnrobust.data.dataset import balanced
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.evaluation.evaluator import Evaluator, Settings
from snnrobust.identity import training_signature
from snnrobust.record import curves, kept_metrics
from snnrobust.schema import ConfigError
from snnrobust.threat import Linf
from snnrobust.training.scores import Epoch, Scores
from snnrobust.training.validation import Validation, robust_samples
from tests.contracts.toys import assert_same, disturb, state_of
from tests.unit.trained import contradicted, data, kept, same, train, trainer

PGD = ProjectedGradient(Linf(0.1), steps=3, seed=5)
ROBUST = Validation("robust_accuracy", PGD, samples=12)


def test_the_epoch_with_the_lowest_objective_is_kept(make_tiny):
    for held_out, best in ((data(16, 1), 6), (contradicted(data(16, 1)), 1)):
        trained, states = kept(trainer(epochs=6, lr=0.02), make_tiny(), held_out)
        losses = [epoch.validation.loss for epoch, _ in states]
        assert losses.index(min(losses)) == best - 1
        assert trained.best == states[best - 1][0]
        assert same(trained.state, states[best - 1][1])


@pytest.mark.parametrize("validation", [Validation("accuracy"), ROBUST])
def test_the_first_epoch_with_the_highest_accuracy_is_kept(make_tiny, validation):
    trained, states = kept(trainer(epochs=8, lr=0.02, validation=validation), make_tiny(), data(16, 1))
    values = [epoch.validation.accuracy if validation.attack is None else epoch.robust_accuracy for epoch, _ in states]
    position = values.index(max(value for value in values if value is not None))
    assert trained.best == states[position][0]
    assert same(trained.state, states[position][1])
    assert len({*values}) > 2  # something was chosen


def scored(number: int, loss: float, accuracy: float, robust: float | None = None) -> Epoch:
    scores = Scores(loss, loss, 0.0, accuracy)
    return Epoch(number, 0.1, scores, scores, robust)


def test_measures_are_the_higher_the_better():
    epoch = scored(1, 0.75, 0.5, 0.25)
    assert [Validation(m, PGD).value(epoch) for m in ("objective", "accuracy", "robust_accuracy")] == [-0.75, 0.5, 0.25]


def test_the_earlier_epoch_wins_a_tie(make_tiny):
    trained, states = kept(trainer(epochs=3, lr=1e-30), make_tiny().requires_grad_(True), data(16, 1))
    losses = [epoch.validation.loss for epoch, _ in states]
    assert trained.best.epoch == 1 + losses.index(min(losses))


# --- stopping early


@pytest.mark.parametrize(("patience", "epochs"), [(None, 6), (1, 2), (3, 4), (9, 6)])
def test_training_stops_after_so_many_epochs_without_a_better_one(make_tiny, patience, epochs):
    """Labels that contradict those of the training: the first epoch is the best."""
    run = trainer(epochs=6, lr=0.02, validation=Validation(patience=patience))
    trained, states = kept(run, make_tiny(), contradicted(data(16, 1)))
    assert (trained.best.epoch, trained.epochs, len(states)) == (1, epochs, epochs)


def test_a_better_epoch_gives_new_time(make_tiny):
    run = trainer(epochs=8, lr=0.02, validation=Validation("accuracy", patience=2))
    trained, states = kept(run, make_tiny(), data(16, 1))
    values = [epoch.validation.accuracy for epoch, _ in states]
    assert trained.epochs == min(8, 1 + values.index(max(values)) + 2)
    assert trained.best.epoch > 1


# --- accuracy under an attack


def test_robust_accuracy_is_that_of_an_evaluation_of_samples_of_all_classes_alike(make_tiny):
    model, held_out = make_tiny(), data(40, 1)
    train(trainer(epochs=6, lr=0.02), model)
    few = balanced(held_out.labels, 30, 0)
    assert held_out.labels[few].bincount().tolist() == [8, 8, 7, 7]
    for attack in (PGD, UniformNoise(Linf(0.5), 3)):
        judge = Evaluator({"its": attack}, Linf(0.2), TRAINED, {}, Settings(batch_size=16, seed=0))
        outcomes = judge(model.eval(), held_out).outcomes
        both = ((outcomes["its"] == 1) & (outcomes["clean"] == 1))[few].float().mean().item()
        found = robust_samples(model, attack, held_out, 30, 16) / 30
        assert found == pytest.approx(both)
        assert found < 1


def test_samples_that_are_misclassified_as_they_are_count_as_broken(make_tiny):
    """An attack without a budget leaves what it gets."""
    model, held_out = make_tiny(), data(24, 1)
    still = ProjectedGradient(Linf(0.0), steps=1, step_size=0.1)
    clean = trainer().score(model, held_out).accuracy
    assert 0 < clean < 1
    assert robust_samples(model, still, held_out, 100, 16) == round(clean * len(held_out))
    assert robust_samples(model, still, contradicted(held_out), 100, 16) < len(held_out)


def test_it_is_the_same_every_time_and_for_every_batch_size_and_leaves_the_model_as_it_was(make_tiny):
    model = make_tiny()
    disturb(model)
    before, stream = state_of(model), torch.random.get_rng_state()
    found = {robust_samples(model, PGD, data(24, 1), 20, size) for size in (20, 20, 7)}
    assert len(found) == 1
    assert_same(before, state_of(model))
    assert torch.equal(stream, torch.random.get_rng_state())


def test_it_does_not_change_what_is_trained(make_tiny):
    plain, other = make_tiny(), make_tiny()
    _, without = train(trainer(), plain)
    _, with_attack = train(trainer(validation=Validation(attack=PGD)), other)
    assert same(dict(plain.state_dict()), dict(other.state_dict()))
    assert [e.validation for e in without] == [e.validation for e in with_attack]
    assert [e.robust_accuracy for e in without] == [None] * 3
    assert all(e.robust_accuracy is not None for e in with_attack)


def test_with_an_average_it_is_that_of_the_average(make_tiny):
    run = trainer(epochs=1, lr=0.05, ema=0.5, validation=ROBUST)
    trained, _ = train(run, make_tiny())
    judged = make_tiny()
    judged.load_state_dict(trained.state)
    assert trained.best.robust_accuracy == robust_samples(judged, PGD, data(16, 1), 12, 16) / 12


def test_records_name_it_where_there_is_one():
    epoch = scored(2, 0.75, 0.5, 0.25)
    assert curves(epoch)["validation/robust_accuracy"] == 0.25
    assert kept_metrics(epoch)["validation_robust_accuracy"] == 0.25
    assert not any("robust" in name for record in (curves, kept_metrics) for name in record(scored(2, 0.7, 0.5)))
    assert json.dumps(curves(epoch))


# --- from the command line


def composed(*overrides: str) -> Any:
    return compose("config", ["tracker=none", "device=cpu", *overrides]).config


def test_the_attack_of_the_validation_has_settings_of_its_own():
    config = composed("training/validation=robust", "threat.eps=0.2", "estimator=strongest", "evaluation.seed=3")
    plain = composed("training/validation=robust")
    assert training_signature(config) == training_signature(plain)
    assert config["training"]["validation"]["attack"]["threat"]["eps"] == plain["dataset"]["eps"]
    its, _ = build(config)
    assert not isinstance(its.training, type(None))
    assert training_signature(composed("training/validation=robust", "seed=1")) != training_signature(plain)


def test_another_attack_estimator_and_threat_are_chosen_by_their_place():
    place = "training.validation.attack"
    chosen = [f"attack@{place}=apgd", f"threat@{place}.threat=l2", f"estimator@{place}.estimator=four"]
    config = composed("training/validation=robust", *chosen)
    attack = config["training"]["validation"]["attack"]
    assert attack["_target_"].endswith("APGD")
    assert attack["threat"]["_target_"].endswith("L2")
    assert attack["estimator"]["_target_"].endswith("Ensemble")
    its, _ = build(config)
    its.refuse_misfits(its.classifier())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("training.validation.measure=robust_accuracy",), "training.validation.attack: got null; allowed with "),
        (("training.validation.attack=pgd",), "training.validation.attack: got 'pgd'; allowed: null, or what "),
        (("training.validation.measure=best",), "training.validation.measure: got 'best'; allowed: 'objective', "),
        (
            ("training.validation.patience=0",),
            "training.validation.patience: got 0; allowed: greater than or equal to 1",
        ),
        (
            ("training/validation=robust", "estimator@training.validation.attack.estimator=strongest"),
            "training.validation.attack.estimator: got strongest",
        ),
        (
            ("training/validation=robust", "attack@training.validation.attack=top_flips"),
            "training.validation.attack: flips are of events in binary frames",
        ),
        (
            ("training/validation=robust", "training.validation.attack.steps=0"),
            "training.validation.attack.steps: got 0; allowed: greater than or equal to 1",
        ),
    ],
)
def test_a_validation_that_makes_no_sense_is_one_line(overrides, said):
    with pytest.raises(ConfigError) as error:
        composed(*overrides)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_a_robust_measure_without_an_attack_is_refused_in_python_too():
    with pytest.raises(ValueError, match=r"^validation\.attack: got None; allowed with measure=robust_accuracy"):
        Validation("robust_accuracy")


def test_an_estimator_that_does_not_apply_is_refused_before_the_training():
    place = "training.validation.attack"
    chosen = ["neuron=relu", f"estimator@{place}.estimator=rate"]
    its, _ = build(composed("training/validation=robust", "neuron=psn", "neuron.steps=4", "encoder.steps=4", chosen[1]))
    with pytest.raises(ValueError, match=rf"^{place}\.estimator"):
        its.refuse_misfits(its.classifier())
