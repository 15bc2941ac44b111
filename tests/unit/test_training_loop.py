"""The training loop: order, defence, objective, steps of the optimizer, and what ends a training."""

import dataclasses
import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from snnrobust.data.augmentation import NONE, Augmentation
from snnrobust.data.dataset import Split, Splits
from snnrobust.data.digits import Digits
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.evaluation.evaluator import Settings
from snnrobust.experiment import Experiment
from snnrobust.regularizers.gradient_sparsity import GradientSparsity
from snnrobust.regularizers.none import NoRegularizer
from snnrobust.schema import ConfigError
from snnrobust.spiking.encoder import Direct
from snnrobust.spiking.neuron import LIF
from snnrobust.spiking.surrogate import triangle
from snnrobust.threat import Linf
from snnrobust.training.course import Diverged
from snnrobust.training.defences.none import NoDefence
from snnrobust.training.settings import TrainingSettings
from tests.contracts.toys import assert_same, disturb, state_of
from tests.unit.trained import ADAM, SGD, Altering, Watching, data, same, train, trainer


@pytest.mark.parametrize("make", [ADAM, SGD])
@pytest.mark.parametrize("regularizer", [NoRegularizer(), GradientSparsity(weight=0.1)])
def test_the_same_seed_gives_the_same_bits(make_tiny, make, regularizer):
    runs = []
    for stream in (1, 2):
        torch.manual_seed(stream)
        runs.append(train(trainer(regularizer, make=make), make_tiny()))
    assert same(runs[0][0].state, runs[1][0].state)
    assert runs[0][0].best == runs[1][0].best
    assert runs[0][1] == runs[1][1]


def test_another_seed_gives_another_result(make_tiny):
    first, other = (train(trainer(seed=seed), make_tiny()) for seed in (0, 1))
    assert not same(first[0].state, other[0].state)
    assert first[1] != other[1]


def test_training_learns(make_tiny):
    _, epochs = train(trainer(epochs=12, lr=0.02), make_tiny())
    assert epochs[-1].train.loss < 0.5 * epochs[0].train.loss
    assert epochs[-1].validation.accuracy > 0.75


class Forbidden:
    """Test data that must not be looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"the test data were asked for {name}")


def experiment(**parts: Any) -> Experiment:
    absent: Any = dict.fromkeys(("model", "threat", "estimator", "evaluation"))
    given: Any = {"dataset": Digits(), "regularizer": NoRegularizer(), "attacks": {}, "headline": {}} | parts
    training = TrainingSettings(epochs=2, batch_size=16)
    fixed: Any = {"encoder": Direct(2), "neuron": lambda: LIF(triangle()), "defence": NoDefence(), "seed": 0}
    return Experiment(**absent | given | fixed, training=training, device=torch.device("cpu"))


def test_training_never_touches_the_test_data(make_tiny):
    its = experiment(
        regularizer=GradientSparsity(), threat=Linf(0.1), estimator=TRAINED, evaluation=Settings(batch_size=16)
    )
    splits = Splits(data(), data(16, 1), cast(Split, Forbidden()))
    assert its.train(make_tiny(), splits, lambda _epoch: None).best.epoch in (1, 2)


# --- what ends a training


def test_a_loss_that_is_not_finite_ends_the_training(make_tiny):
    model = make_tiny()
    with torch.no_grad():
        [*model.parameters()][-1].fill_(math.nan)
    with pytest.raises(Diverged, match=r"training loss is nan in epoch 1: try a smaller training\.optimizer\.lr"):
        train(trainer(), model)


def test_weights_that_are_not_finite_end_the_training(make_tiny):
    """Neurons answer NaN with silence, so that the loss stays finite while the network is dead."""
    model = make_tiny()
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(Diverged):
        train(trainer(), model)


class Exploding(Watching):
    """The gradient of the third pass is not finite."""

    def step(self, model: Any, batch: Any, look: Any, moment: Any) -> Any:
        loss, at = super().step(model, batch, look, moment)
        if len(self.passes) == 3:
            for parameter in model.parameters():
                parameter.register_hook(lambda gradient: gradient * math.inf)
        return loss, at


def test_a_validation_loss_that_is_not_finite_ends_the_training(make_tiny):
    """The last step of an epoch may blow up the weights after the last training loss was taken."""
    with pytest.raises(Diverged):
        train(trainer(defence=Exploding(), epochs=1), make_tiny())


def test_a_gradient_that_is_not_finite_cannot_be_clipped(make_tiny):
    with pytest.raises(Diverged, match=r"gradient is not finite in epoch 1: try a smaller training\.optimizer\.lr"):
        train(trainer(defence=Exploding(), clip=1.0), make_tiny())


@pytest.mark.parametrize(("batch_size", "number"), [(1, 40), (16, 1)])
def test_batch_norm_over_a_single_value_is_said_to_be_a_matter_of_the_batch(make_tiny, batch_size, number):
    model = make_tiny()
    model.backbone = nn.Sequential(nn.Flatten(2), nn.Flatten(0, 1), nn.Linear(64, 4), nn.BatchNorm1d(4), Steps())
    model.encoder = Direct(1)
    with pytest.raises(ConfigError) as error:
        train(trainer(batch_size=batch_size), model, data(number))
    assert str(error.value) == (
        f"training.batch_size: got {batch_size}, and batch norm sees one value per channel in a batch of 1; "
        "allowed: at least 2, and as many training samples"
    )


class Steps(nn.Module):
    """`[B, K]` as one step."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(0)


def test_other_value_errors_of_a_step_stay_what_they_are(make_tiny):
    def broken(*_: object) -> Tensor:
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        train(trainer(defence=Altering(broken)), make_tiny())


# --- batches, augmentation, defence


def test_every_sample_is_seen_once_per_epoch_in_a_new_order(make_tiny):
    watching = Watching()
    train(trainer(defence=watching, epochs=2), make_tiny(), data(40))
    assert [len(indices) for indices in watching.passes] == [16, 16, 8] * 2
    orders = [[i for indices in part for i in indices] for part in (watching.passes[:3], watching.passes[3:])]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(40))
    assert orders[0] != orders[1]
    assert all(watching.modes)
    assert watching.moments == pytest.approx([0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3])


class Noted(Augmentation):
    """Keeps what it is asked for, and shows the network dark inputs."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[int], tuple[object, ...]]] = []

    def __call__(self, x: Tensor, index: Tensor, *stream: object) -> Tensor:
        self.calls.append((index.tolist(), stream))
        return torch.zeros_like(x)


def test_training_batches_are_augmented_before_the_defence_and_no_others(make_tiny):
    def dark(_: Any, batch: Any) -> Tensor:
        assert not batch.x.any()
        return cast(Tensor, batch.x)

    noted, clean = Noted(), data(40)
    run = dataclasses.replace(trainer(defence=Altering(dark), epochs=2, seed=7), augmentation=noted)
    model = make_tiny()
    _, epochs = train(run, model, clean)
    assert [stream for _, stream in noted.calls] == [("augmentation", 7, epoch) for epoch in (1, 1, 1, 2, 2, 2)]
    assert sorted(i for index, _ in noted.calls[:3] for i in index) == list(range(40))
    assert clean.values.any()
    assert epochs[-1].validation == run.score(model, data(16, 1))
    assert len(noted.calls) == 6


def test_the_augmentation_of_the_dataset_is_the_one_of_the_training(make_tiny):
    @dataclasses.dataclass(frozen=True)
    class Augmented(Digits):
        augmentation: Augmentation = NONE

    noted = Noted()
    its = experiment(dataset=Augmented(augmentation=noted))
    its.train(make_tiny(), Splits(data(), data(16, 1), data(16, 2)), lambda _epoch: None)
    assert len(noted.calls) == 6


@pytest.mark.parametrize(("number", "sizes"), [(33, [16, 16]), (34, [16, 16, 2]), (32, [16, 16]), (1, [1])])
def test_a_last_batch_of_one_sample_is_left_out(make_tiny, number, sizes):
    watching = Watching()
    train(trainer(defence=watching, epochs=1), make_tiny(), data(number))
    assert [len(indices) for indices in watching.passes] == sizes


def test_what_the_defence_makes_of_a_batch_is_learned_from(make_tiny):
    blank = Altering(lambda _, batch: torch.zeros_like(batch.x))
    first, other = (train(trainer(defence=d, epochs=8, lr=0.02), make_tiny())[1] for d in (NoDefence(), blank))
    assert first[-1].train.accuracy > 0.6
    assert other[-1].train.accuracy < 0.5


# --- the objective


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_parts_of_the_loss_add_up(make_tiny, weight):
    _, epochs = train(trainer(GradientSparsity(weight=weight, step=0.1)), make_tiny())
    for epoch in epochs:
        for scores in (epoch.train, epoch.validation):
            assert scores.loss == pytest.approx(scores.cross_entropy + weight * scores.regularizer, rel=1e-6)
            assert (scores.regularizer > 0) == (weight > 0)
            assert 0 <= scores.accuracy <= 1


def test_scores_are_means_over_samples(make_tiny):
    model, held_out = make_tiny(), data(23, 2)
    scores = trainer().score(model, held_out)
    batch = held_out.batch(torch.arange(23))
    with torch.no_grad():
        logits = model(batch.x)
    assert scores.cross_entropy == pytest.approx(float(torch.nn.functional.cross_entropy(logits, batch.y)), rel=1e-5)
    assert scores.accuracy == pytest.approx(float((logits.argmax(1) == batch.y).float().mean()), rel=1e-6)


def test_scoring_leaves_the_model_as_it_was(make_tiny):
    model = make_tiny()
    disturb(model)
    before = state_of(model)
    trainer(GradientSparsity()).score(model, data(16))
    assert_same(before, state_of(model))
