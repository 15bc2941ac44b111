"""The training loop."""

import copy
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
from snnrobust.training.defences import NoDefence
from snnrobust.training.loop import Diverged, Epoch, Trained, Trainer, TrainingSettings
from tests.contracts.toys import assert_same, disturb, state_of


def data(number: int = 48, seed: int = 0) -> Split:
    """Random pixels; the brightest quarter of the image is the class."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(9, (number, 1, 8, 8), generator=generator)
    labels = torch.arange(number) % 4
    for picture, label in zip(values, labels.tolist(), strict=True):
        picture[0, 2 * label : 2 * label + 2] += 8
    return Split(values.to(torch.uint8), labels, 16)


def trainer(regularizer: Any = None, defence: Any = None, seed: int = 0, **settings: Any) -> Trainer:
    chosen = {"epochs": 3, "batch_size": 16, **settings}
    return Trainer(TrainingSettings(**chosen), regularizer or NoRegularizer(), defence or NoDefence(), seed)


def train(run: Trainer, model: Any, train: Split | None = None, validation: Split | None = None):
    epochs: list[Epoch] = []
    trained = run(model, train or data(), validation or data(16, 1), epochs.append)
    return trained, epochs


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("regularizer", [NoRegularizer(), GradientSparsity(weight=0.1)])
def test_the_same_seed_gives_the_same_bits(make_tiny, optimizer, regularizer):
    runs = []
    for stream in (1, 2):
        torch.manual_seed(stream)
        runs.append(train(trainer(regularizer, optimizer=optimizer), make_tiny()))
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


def kept(run: Trainer, model: Any, validation: Split) -> tuple[Trained, list[tuple[Epoch, dict[str, Tensor]]]]:
    """Also the weights after every epoch."""
    states: list[tuple[Epoch, dict[str, Tensor]]] = []
    trained = run(model, data(), validation, lambda e: states.append((e, copy.deepcopy(model.state_dict()))))
    return trained, states


@pytest.mark.parametrize("shift", [0, 2])
def test_the_epoch_with_the_lowest_validation_loss_is_selected(make_tiny, shift):
    """Labels that contradict those of the training make the loss rise, so that an early epoch is the best."""
    held_out = data(16, 1)
    held_out = Split(held_out.values, (held_out.labels + shift) % 4, 16)
    trained, states = kept(trainer(epochs=6, lr=0.02), make_tiny(), held_out)
    losses = [epoch.validation.loss for epoch, _ in states]
    position = losses.index(min(losses))
    assert position == (5 if shift == 0 else 0)
    assert trained.best == states[position][0]
    assert same(trained.state, states[position][1])


def test_the_earlier_epoch_wins_a_tie(make_tiny):
    trained, states = kept(trainer(epochs=3, lr=1e-30), make_tiny().requires_grad_(True), data(16, 1))
    losses = [epoch.validation.loss for epoch, _ in states]
    assert trained.best.epoch == 1 + losses.index(min(losses))


class Forbidden:
    """Test data that must not be looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"the test data were asked for {name}")


def test_training_never_touches_the_test_data(make_tiny):
    experiment = Experiment(
        dataset=Digits(),
        encoder=Direct(2),
        neuron=lambda: LIF(triangle()),
        model=cast(Any, None),
        regularizer=GradientSparsity(),
        defence=NoDefence(),
        training=TrainingSettings(epochs=2, batch_size=16),
        threat=Linf(0.1),
        attacks={},
        headline={},
        estimator=TRAINED,
        evaluation=Settings(batch_size=16),
        seed=0,
        device=torch.device("cpu"),
    )
    splits = Splits(data(), data(16, 1), cast(Split, Forbidden()))
    assert experiment.train(make_tiny(), splits, lambda _epoch: None).best.epoch in (1, 2)


def test_a_loss_that_is_not_finite_ends_the_training(make_tiny):
    model = make_tiny()
    with torch.no_grad():
        [*model.parameters()][-1].fill_(math.nan)
    with pytest.raises(Diverged, match=r"training loss is nan in epoch 1: try a smaller training\.lr"):
        train(trainer(), model)


def test_weights_that_are_not_finite_end_the_training(make_tiny):
    """Neurons answer NaN with silence, so that the loss stays finite while the network is dead."""
    model = make_tiny()
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(Diverged):
        train(trainer(), model)


def test_a_validation_loss_that_is_not_finite_ends_the_training(make_tiny):
    """The last step of an epoch may blow up the weights after the last training loss was taken."""

    class Exploding(NoDefence):
        steps = 0

        def __call__(self, model: Any, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
            Exploding.steps += 1
            if Exploding.steps == 3:
                for group in model.parameters():
                    group.register_hook(lambda gradient: gradient * math.inf)
            return x

    with pytest.raises(Diverged):
        train(trainer(defence=Exploding(), epochs=1), make_tiny())


class Watching(NoDefence):
    """Keeps the positions that every step learns from, and the mode of the model."""

    def __init__(self) -> None:
        object.__setattr__(self, "steps", [])
        object.__setattr__(self, "modes", [])

    steps: list[list[int]]
    modes: list[bool]

    def __call__(self, model: Any, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        self.steps.append(index.tolist())
        self.modes.append(model.training)
        return x


def test_every_sample_is_seen_once_per_epoch_in_a_new_order(make_tiny):
    watching = Watching()
    train(trainer(defence=watching, epochs=2), make_tiny(), data(40))
    assert [len(step) for step in watching.steps] == [16, 16, 8] * 2
    orders = [[i for step in steps for i in step] for steps in (watching.steps[:3], watching.steps[3:])]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(40))
    assert orders[0] != orders[1]
    assert all(watching.modes)


class Noted(Augmentation):
    """Keeps what it is asked for, and shows the network dark inputs."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[int], tuple[object, ...]]] = []

    def __call__(self, x: Tensor, index: Tensor, *stream: object) -> Tensor:
        self.calls.append((index.tolist(), stream))
        return torch.zeros_like(x)


def test_training_batches_are_augmented_before_the_defence_and_no_others(make_tiny):
    class Dark(NoDefence):
        def __call__(self, model: Any, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
            assert not x.any()
            return x

    noted, clean = Noted(), data(40)
    run = dataclasses.replace(trainer(defence=Dark(), epochs=2, seed=7), augmentation=noted)
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
    dataset = Augmented(augmentation=noted)
    settings = TrainingSettings(epochs=1, batch_size=16)
    parts: Any = {name: None for name in ("model", "threat", "estimator", "evaluation")}
    experiment = Experiment(
        dataset=dataset,
        encoder=Direct(2),
        neuron=lambda: LIF(triangle()),
        regularizer=NoRegularizer(),
        defence=NoDefence(),
        training=settings,
        attacks={},
        headline={},
        seed=0,
        device=torch.device("cpu"),
        **parts,
    )
    experiment.train(make_tiny(), Splits(data(), data(16, 1), data(16, 2)), lambda _epoch: None)
    assert len(noted.calls) == 3


@pytest.mark.parametrize(("number", "sizes"), [(33, [16, 16]), (34, [16, 16, 2]), (32, [16, 16]), (1, [1])])
def test_a_last_batch_of_one_sample_is_left_out(make_tiny, number, sizes):
    watching = Watching()
    train(trainer(defence=watching, epochs=1), make_tiny(), data(number))
    assert [len(step) for step in watching.steps] == sizes


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
    class Broken(NoDefence):
        def __call__(self, model: Any, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
            raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        train(trainer(defence=Broken()), make_tiny())


def test_what_the_defence_returns_is_learned_from(make_tiny):
    class Blank(NoDefence):
        def __call__(self, model: Any, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
            return torch.zeros_like(x)

    clean, blank = (train(trainer(defence=d, epochs=8, lr=0.02), make_tiny())[1] for d in (NoDefence(), Blank()))
    assert clean[-1].train.accuracy > 0.6
    assert blank[-1].train.accuracy < 0.5


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


def test_the_learning_rate_follows_half_a_cosine(make_tiny):
    _, epochs = train(trainer(epochs=4, lr=0.02, final_lr=0.1), make_tiny())
    expected = [0.02 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * k / 4))) for k in range(4)]
    assert [epoch.lr for epoch in epochs] == pytest.approx(expected, rel=1e-9)
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3, 4]


def test_the_selected_weights_are_copies_on_the_cpu(make_tiny):
    model = make_tiny()
    trained, _ = train(trainer(epochs=1), model)
    before = copy.deepcopy(trained.state)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert same(trained.state, before)
    assert all(tensor.device.type == "cpu" and not tensor.requires_grad for tensor in trained.state.values())
