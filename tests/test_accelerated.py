"""What makes attacks fast changes no result: on a small network trained on the digits, over their whole test set."""

from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from snnrobust.config import build, compose
from snnrobust.data.dataset import Batch, Splits
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.evaluation.outcomes import CLEAN, ROBUST
from snnrobust.experiment import Experiment
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.fuse import fused


@cache
def prepared() -> tuple[Experiment, SpikingClassifier, Splits]:
    """The default experiment, its classifier after two epochs, and the data."""
    settings = ["training.epochs=2", "seed=1", "regularizer=none", "device=cpu", "tracker=none"]
    experiment, _ = build(compose("config", settings).config)
    assert isinstance(experiment, Experiment)
    model, splits = experiment.classifier(), experiment.load()
    trained = experiment.train(model, splits, lambda _epoch: None)
    model.load_state_dict(trained.state)
    return experiment, model.eval(), splits


@pytest.fixture(scope="module")
def model() -> SpikingClassifier:
    return prepared()[1]


@pytest.fixture(scope="module")
def batch() -> Batch:
    """All test samples."""
    test = prepared()[2].test
    assert len(test) == 359
    return test.batch(torch.arange(len(test)))


@cache
def outcomes(fast: bool, batch_size: int) -> dict[str, Tensor]:
    experiment, model, splits = prepared()
    settings = replace(experiment.evaluation, fast=fast, batch_size=batch_size)
    return dict(replace(experiment, evaluation=settings).evaluate(model, splits).outcomes)


@torch.no_grad()
def test_the_fused_network_has_the_logits_and_the_decisions_of_the_plain_one(model, batch):
    arranged = fused(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in arranged.modules())
    expected, found = model(batch.x), arranged(batch.x)
    assert (expected.argmax(1) == batch.y).float().mean() > 0.5
    assert torch.equal(found.argmax(1), expected.argmax(1))
    # A potential within rounding of its threshold may fall on either side: a spike more or less, on another processor.
    assert int(((found - expected).abs() > 1e-5).any(1).sum()) <= 1
    exact = deepcopy(model).double()
    torch.testing.assert_close(fused(exact)(batch.x.double()), exact(batch.x.double()), atol=1e-10, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("arranged", [lambda model: model, fused], ids=["plain", "fused"])
def test_the_compiled_neurons_have_the_logits_of_the_plain_ones(model, batch, arranged):
    one = arranged(model)
    expected = one(batch.x)
    with TRAINED.applied(one) as view:
        assert torch.equal(view(batch.x), expected)


def test_attacks_on_the_fused_network_break_what_attacks_on_the_plain_one_break():
    fast, plain = outcomes(True, 256), outcomes(False, 256)
    assert fast.keys() == plain.keys() >= {CLEAN, "uniform_noise", "gaussian_noise", "fgsm", "pgd"}
    assert torch.equal(fast[CLEAN], plain[CLEAN])
    assert int((plain["pgd"] == ROBUST).sum()) < 0.8 * int((plain[CLEAN] == ROBUST).sum())
    # Rounding may decide the sign of a tiny gradient.
    assert all(int((fast[name] != plain[name]).sum()) <= 1 for name in fast)


@pytest.mark.parametrize("fast", [True, False], ids=["fused", "plain"])
def test_no_outcome_depends_on_the_batch_size(fast):
    whole, parts = outcomes(fast, 256), outcomes(fast, 7)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
