"""Schedules of the learning rate: torch's own at the ends of epochs, and what happens between them."""

import math
from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.optim import SGD, lr_scheduler

from snnrobust.config import build, compose
from snnrobust.schema import ConfigError
from snnrobust.training.schedules import Constant, Cosine, Linear, PerEpoch, Schedule, Steps
from snnrobust.training.settings import TrainingSettings
from snnrobust.training.trial import refuse_unusable
from tests.unit.trained import data, train, trainer

EPOCHS, PER_EPOCH = 12, 5


def rates(schedule: Schedule, per_epoch: int = PER_EPOCH, epochs: int = EPOCHS) -> list[list[float]]:
    """The learning rates of two groups of parameters before every step, and after the last one."""
    groups: list[dict[str, Any]] = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.1, 0.02)]
    optimizer = SGD(groups)
    running = schedule.start(optimizer, epochs, per_epoch)
    found = [[group["lr"] for group in optimizer.param_groups]]
    for _ in range(epochs * per_epoch):
        optimizer.step()
        running.step()
        found.append([group["lr"] for group in optimizer.param_groups])
    return found


CASES: list[tuple[Schedule, Any]] = [
    (Cosine(final=0.0), partial(lr_scheduler.CosineAnnealingLR, T_max=EPOCHS)),
    (Steps((4.0, 9.0), by=0.2), partial(lr_scheduler.MultiStepLR, milestones=[4, 9], gamma=0.2)),
    (Steps((3.0, 6.0, 9.0, 12.0), by=0.5), partial(lr_scheduler.StepLR, step_size=3, gamma=0.5)),
    (Linear(final=0.1), partial(lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.1, total_iters=EPOCHS)),
    (Constant(), partial(lr_scheduler.ConstantLR, factor=1.0)),
]


@pytest.mark.parametrize(("schedule", "reference"), CASES)
def test_at_the_ends_of_epochs_the_learning_rates_are_those_of_torch(schedule, reference):
    ours, theirs = rates(schedule)[::PER_EPOCH], rates(PerEpoch(reference))[::PER_EPOCH]
    assert torch.allclose(torch.tensor(ours), torch.tensor(theirs), rtol=1e-5, atol=1e-9)


def test_a_scheduler_of_torch_changes_the_learning_rate_between_epochs_alone():
    found = rates(PerEpoch(partial(lr_scheduler.ExponentialLR, gamma=0.9)))
    for epoch in range(EPOCHS):
        for step in range(PER_EPOCH):
            assert found[epoch * PER_EPOCH + step] == pytest.approx([0.1 * 0.9**epoch, 0.02 * 0.9**epoch])


@pytest.mark.parametrize("schedule", [Cosine(0.3, 2.0), Linear(0.3, 2.0), Constant(2.0), Steps((3.0,), 0.3, 2.0)])
def test_the_warm_up_rises_linearly_from_zero_to_the_learning_rate(schedule):
    first = [rate for rate, _ in rates(schedule)]
    assert first[:11] == pytest.approx([0.1 * step / 10 for step in range(11)])
    assert max(first) == pytest.approx(0.1)
    assert first[-1] == pytest.approx(0.1 if isinstance(schedule, Constant) else 0.03)


def test_a_warm_up_leaves_less_time_for_the_fall():
    first = [rate for rate, _ in rates(Linear(0.0, 2.0))]
    assert first[35] == pytest.approx(0.05)  # after 7 epochs, half of those from 2 to 12
    first = [rate for rate, _ in rates(Cosine(0.2, 2.0))]
    assert first[35] == pytest.approx(0.06)


def test_the_learning_rate_of_a_training_follows_half_a_cosine(make_tiny):
    _, epochs = train(trainer(epochs=4, lr=0.02, schedule=Cosine(0.1)), make_tiny())
    expected = [0.02 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * k / 4))) for k in range(4)]
    assert [epoch.lr for epoch in epochs] == pytest.approx(expected, rel=1e-9)
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3, 4]


@pytest.mark.parametrize("accumulate", [1, 2, 3, 7])
def test_a_schedule_goes_by_steps_of_the_optimizer(make_tiny, accumulate):
    """48 samples in batches of 8 are 6 passes, and an epoch is an epoch however they are accumulated."""
    settings: Any = {"epochs": 4, "lr": 0.02, "batch_size": 8, "accumulate": accumulate}
    _, smooth = train(trainer(schedule=Linear(), **settings), make_tiny(), data(48))
    assert [epoch.lr for epoch in smooth] == pytest.approx([0.02, 0.015, 0.01, 0.005])
    torchs = PerEpoch(partial(lr_scheduler.ExponentialLR, gamma=0.5))
    _, epochwise = train(trainer(schedule=torchs, **settings), make_tiny(), data(48))
    assert [epoch.lr for epoch in epochwise] == pytest.approx([0.02, 0.01, 0.005, 0.0025])


def test_a_schedule_goes_on_from_its_saved_state():
    for schedule in (Cosine(), PerEpoch(partial(lr_scheduler.StepLR, step_size=2))):
        whole = rates(schedule, per_epoch=3, epochs=4)
        optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
        running = schedule.start(optimizer, 4, 3)
        for _ in range(7):
            optimizer.step()
            running.step()
        resumed = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
        again = schedule.start(resumed, 4, 3)
        again.load_state_dict(running.state_dict())
        resumed.load_state_dict(optimizer.state_dict())
        resumed.step()
        again.step()
        assert resumed.param_groups[0]["lr"] == pytest.approx(whole[8][0])


# --- what cannot be trained by


def refused(model: nn.Module, **settings: Any) -> str:
    with pytest.raises(ValueError, match=r"^training\.") as error:
        refuse_unusable(TrainingSettings(**settings), model, torch.device("cpu"))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_torch_refuses_is_one_line_that_names_the_setting(classifier):
    lbfgs: Any = torch.optim.LBFGS
    assert refused(classifier, optimizer=partial(SGD, lr=-1.0)) == "training.optimizer: Invalid learning rate: -1.0"
    assert refused(classifier, optimizer=lbfgs).startswith("training.optimizer: LBFGS.step() missing")
    assert "unexpected keyword argument 'width'" in refused(classifier, optimizer=partial(cast(Any, SGD), width=1))
    plateau: Any = PerEpoch(lr_scheduler.ReduceLROnPlateau)
    assert refused(classifier, schedule=plateau).startswith("training.schedule: ReduceLROnPlateau.step() missing")
    short: Any = PerEpoch(partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=3))
    assert refused(classifier, schedule=short).startswith("training.schedule: Tried to step 4 times")


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW, partial(SGD, momentum=0.9), torch.optim.Adagrad])
@pytest.mark.parametrize("schedule", [case for case, _ in CASES])
def test_what_works_is_not_refused_and_leaves_the_model_alone(classifier, make, schedule):
    before = [p.detach().clone() for p in classifier.parameters()]
    refuse_unusable(TrainingSettings(optimizer=make, schedule=schedule), classifier, torch.device("cpu"))
    assert all(torch.equal(p, b) for p, b in zip(classifier.parameters(), before, strict=True))
    assert all(p.grad is None for p in classifier.parameters())


def composed(*overrides: str) -> Any:
    return compose("config", ["tracker=none", "device=cpu", *overrides]).config


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.optimizer.lr=-1", "training.optimizer.lr: got -1; allowed: greater than 0"),
        ("training.optimizer.betas=[2,0.9]", "training.optimizer.betas: got [2, 0.9]; allowed: entry 0 less than 1"),
        ("training.optimizer.betas=[0.9]", "training.optimizer.betas: got [0.9]; allowed: "),
        ("training.optimizer.weight_decay=-1", "training.optimizer.weight_decay: got -1; allowed: "),
        ("training.optimizer.lrr=1", "training.optimizer.lrr: unknown key; did you mean lr?"),
        ("+training.optimizer.fusde=true", "training.optimizer.fusde: unknown key; did you mean fused?"),
        ("training.schedule.final=2", "training.schedule.final: got 2; allowed: less than or equal to 1"),
    ],
)
def test_wrong_values_are_refused_when_the_config_is_checked(override, said):
    with pytest.raises(ConfigError) as error:
        composed(override)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_any_optimizer_and_any_scheduler_of_torch_can_be_named(classifier):
    names = (
        "optimizer._target_=torch.optim.rmsprop.RMSprop",
        "schedule.scheduler._target_=torch.optim.lr_scheduler.StepLR",
    )
    chosen = [f"training.{name}" for name in names]
    more = ["~training.optimizer.betas", "+training.optimizer.alpha=0.9", "+training.schedule.scheduler.step_size=2"]
    its, _ = build(composed("training/schedule=torch", *chosen, *more))
    assert isinstance(its.training, TrainingSettings)
    optimizer = its.training.optimizer(classifier.parameters())
    assert isinstance(optimizer, torch.optim.RMSprop)
    assert optimizer.defaults["alpha"] == 0.9
    refuse_unusable(its.training, classifier, torch.device("cpu"))
