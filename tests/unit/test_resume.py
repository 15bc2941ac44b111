"""A training that is taken up again ends with the bits of one that was left alone."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.randomness import isolated
from snnrobust.regularizers.gradient_sparsity import GradientSparsity
from snnrobust.spiking.encoder import Poisson
from snnrobust.threat import Linf
from snnrobust.training.checkpoint import CheckpointError
from snnrobust.training.connectivity.rewired import Rewired
from snnrobust.training.connectivity.static import Static
from snnrobust.training.defences.adversarial import Adversarial
from snnrobust.training.defences.none import NoDefence
from snnrobust.training.defences.rat import Rat
from snnrobust.training.defences.retraction import retract
from snnrobust.training.schedules import Constant, Cosine, Linear, PerEpoch, Steps
from snnrobust.training.validation import Validation
from tests.conftest import tiny
from tests.contracts.toys import assert_same, streams
from tests.unit.interrupted import Disk, Make, assert_equal, killed_after, uninterrupted
from tests.unit.pruned import pruned
from tests.unit.trained import ADAM, SGD, trainer

PGD = ProjectedGradient(Linf(0.05), steps=1)
MOMENTUM = partial(SGD, momentum=0.9, weight_decay=5e-4, nesterov=True)
TORCH: dict[str, Callable[..., Any]] = {
    "cosine": partial(lr_scheduler.CosineAnnealingLR, T_max=4),
    "multistep": partial(lr_scheduler.MultiStepLR, milestones=[1, 2]),
    "step": partial(lr_scheduler.StepLR, step_size=1),
    "exponential": partial(lr_scheduler.ExponentialLR, gamma=0.7),
    "restarts": partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=2),
    "one_cycle": partial(lr_scheduler.OneCycleLR, max_lr=0.01, total_steps=5),
    "cyclic": partial(lr_scheduler.CyclicLR, base_lr=1e-3, max_lr=1e-2, step_size_up=2, cycle_momentum=False),
}


def made(model: Callable[[], Any] = tiny, connectivity: Any = None, **settings: Any) -> Make:
    def make() -> tuple[Any, Any]:
        run = trainer(epochs=4, **settings)
        return (replace(run, connectivity=connectivity) if connectivity else run), model()

    return make


def sparse() -> Any:
    return pruned(tiny())


def wide() -> Any:
    """Its hidden layer has as many rows as `retract` draws from, its dropout draws too."""
    with isolated("wide"):
        hidden = nn.Sequential(nn.Flatten(), nn.Linear(64, 240), nn.Dropout(0.3), nn.ReLU(), nn.Linear(240, 4))
    hidden.stochastic = False  # type: ignore[assignment]
    return hidden


CASES: dict[str, Make] = {
    "adam": made(make=ADAM, lr=0.02),
    "amsgrad": made(make=partial(torch.optim.AdamW, amsgrad=True)),
    "sgd": made(make=MOMENTUM, lr=0.1),
    "rmsprop": made(make=partial(torch.optim.RMSprop, momentum=0.5, centered=True)),
    "nadam": made(make=torch.optim.NAdam),
    "asgd": made(make=torch.optim.ASGD, lr=0.1),
    "rprop": made(make=torch.optim.Rprop),
    "adagrad": made(make=torch.optim.Adagrad, lr=0.05),
    "cosine": made(schedule=Cosine(final=0.1, warmup=1.5)),
    "linear": made(schedule=Linear()),
    "steps": made(schedule=Steps(milestones=(1.0, 2.5))),
    "constant": made(schedule=Constant(warmup=2)),
    **{f"torch_{name}": made(make=MOMENTUM, schedule=PerEpoch(scheduler)) for name, scheduler in TORCH.items()},
    "ema": made(ema=0.7, lr=0.02),
    "clip": made(clip=0.5, make=MOMENTUM, lr=0.1),
    "accumulate": made(accumulate=2, schedule=Linear()),
    "patience": made(lr=1.0, validation=Validation(patience=2)),
    "robust": made(lr=0.02, ema=0.5, validation=Validation("robust_accuracy", PGD)),
    "bfloat16": made(precision="bfloat16"),
    "regularized": made(regularizer=GradientSparsity(weight=0.1, step=0.3, warmup=3.0)),
    "adversarial": made(defence=Adversarial(PGD, clean_weight=0.5, warmup=2.0)),
    "rat": made(defence=Rat(PGD, beta=0.05), make=MOMENTUM),
    "poisson": made(model=lambda: tiny(Poisson(3))),
    "static": made(sparse, Static(), make=MOMENTUM, lr=0.1),
    "rewired": made(sparse, Rewired(noise=1e-2), lr=0.02),
    "rewired_sgd": made(sparse, Rewired(noise=1e-2), make=MOMENTUM, lr=0.1),
}


@pytest.mark.parametrize("name", CASES)
def test_a_training_killed_time_and_again_ends_with_the_same_bits(name):
    """Before its first state, in the middle of an epoch, before and after a state is written; and when it is over."""
    make, disk = CASES[name], Disk()
    whole = uninterrupted(make)
    assert killed_after(make, disk, batches=2) == []
    assert killed_after(make, disk, batches=4) == whole.epochs[:1]
    disk.dies_before = 2
    assert killed_after(make, disk) == whole.epochs[1:2]
    disk.dies_before, disk.dies_after = None, 2
    assert killed_after(make, disk) == whole.epochs[1:2]
    disk.dies_after = None
    assert_equal(whole, uninterrupted(make, disk))
    again = uninterrupted(make, disk)
    assert again.epochs == []
    assert_equal(whole, again)


@pytest.mark.parametrize("batch", range(1, 13))
def test_it_does_not_matter_when_it_is_killed(batch):
    make, disk = made(lr=0.02, ema=0.7), Disk()
    killed_after(make, disk, batch)
    assert_equal(uninterrupted(made(lr=0.02, ema=0.7)), uninterrupted(make, disk))


class _Retracting(NoDefence):
    """What RAT does to weights, and nothing else."""

    def after_step(self, model: Any) -> None:
        retract(model, 0.05)


def test_what_draws_from_the_global_streams_draws_the_same_in_whatever_process():
    """Rows of a large layer, and dropout: no case above would notice if streams went on from epoch to epoch."""
    make, disk = made(wide, defence=_Retracting()), Disk()
    whole = uninterrupted(make)
    disk.dies_after = 3
    with isolated("another process"):
        killed_after(make, disk)
    disk.dies_after = None
    assert_equal(whole, uninterrupted(make, disk))
    assert whole.epochs[0].train != whole.epochs[1].train


def test_training_leaves_the_global_streams_alone():
    before = streams()
    uninterrupted(made(lambda: tiny(Poisson(3))))
    assert_same(before, streams())


def test_every_epoch_draws_anew():
    """With nothing to learn, two epochs on the same batches differ by what the encoder draws alone."""
    left = uninterrupted(made(lambda: tiny(Poisson(3)), make=SGD, lr=1e-30))
    assert len({epoch.train.loss for epoch in left.epochs}) == 4


def test_keeping_the_state_changes_nothing():
    assert_equal(uninterrupted(CASES["rewired"]), uninterrupted(CASES["rewired"], Disk()))


@pytest.mark.parametrize("other", [
    made(wide), made(ema=0.5), made(sparse, Rewired()), made(sparse, Static()),
])  # fmt: skip
def test_the_state_of_another_training_is_refused_in_one_line(other):
    disk = Disk()
    disk.dies_after = 1
    killed_after(made(lr=0.02), disk)
    disk.dies_after = None
    with pytest.raises(CheckpointError, match="of another architecture") as caught:
        uninterrupted(other, disk)
    assert str(caught.value).startswith("the disk: ")
    assert "\n" not in str(caught.value)
    assert "force=true" in str(caught.value)


def test_an_error_while_the_state_is_written_ends_the_training():
    class Full(Disk):
        def save(self, state: Any) -> None:
            raise OSError(28, "No space left on device", "training.pt")

    with pytest.raises(OSError, match=r"No space left on device: 'training\.pt'"):
        uninterrupted(made(), Full())
