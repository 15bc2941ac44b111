"""One seeded run in small, frozen: a change that should not alter numbers leaves these alone.

Processors round differently, and a spike is a step: hence few steps and a tolerance.
"""

import pytest
import torch

from snnrobust.config import build, compose
from snnrobust.data.dataset import Split, Splits

OBJECTIVE = {
    "none": [2.307355, 2.287069, 2.266578, 2.303393],
    "gradient_sparsity": [2.307340, 2.288568, 2.269278, 2.303393],
}


def losses(regularizer):
    """Training objective of three epochs of two steps, then cross-entropy under PGD, on 128 digits."""
    config = compose("config", [f"regularizer={regularizer}", "training=debug", "training.epochs=3",
                                "training.batch_size=64", "device=cpu"]).config  # fmt: skip
    experiment, _ = build(config)
    train = experiment.load().train
    few = Split(train.values[:128], train.labels[:128], train.scale)
    model, seen = experiment.classifier(), []
    experiment.train(model, Splits(few, few, few), lambda epoch: seen.append(epoch.train.loss))
    batch = few.batch(torch.arange(32))
    attacked = experiment.attacks["pgd"](model.eval(), batch.x, batch.y)
    seen.append(torch.nn.functional.cross_entropy(model(attacked), batch.y).item())
    return seen


@pytest.mark.parametrize("regularizer", sorted(OBJECTIVE))
def test_the_numbers_of_a_short_run_are_the_recorded_ones(regularizer):
    assert losses(regularizer) == pytest.approx(OBJECTIVE[regularizer], rel=1e-4)
