"""Adversarial inputs for training: budget, draws, the fused copy, no side effects; adversarial training by hand."""

import copy
import dataclasses
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snnrobust.attacks.base import Attack
from snnrobust.attacks.encoded import Encoded
from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.attacks.noise import GaussianNoise, UniformNoise
from snnrobust.attacks.transfer import Transfer
from snnrobust.data.dataset import Batch
from snnrobust.estimators.strongest import Strongest
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.randomness import normal
from snnrobust.regularizers.base import Pass
from snnrobust.spiking.classifier import Classifier, SpikingClassifier
from snnrobust.spiking.encoder import Poisson
from snnrobust.threat import L2, Linf, Threat
from snnrobust.training.defences.adversarial import Adversarial
from snnrobust.training.defences.base import Moment
from snnrobust.training.defences.crafting import crafted
from tests.contracts.toys import assert_same, disturb, state_of, streams

EPS = 0.1
LATER = Moment(3, 2.5)
PGD = ProjectedGradient(Linf(EPS), steps=3)


@pytest.fixture
def batch(images) -> Batch:
    x, y = images
    return Batch(x, y, torch.arange(20, 20 + len(x)))


def looking(model: SpikingClassifier, batch: Batch):
    """What the loop hands to a defence where no regularizer asks for anything."""
    return lambda x: Pass(batch.x, x, batch.y, batch.index, model(x))


def far(found: Tensor, x: Tensor) -> float:
    return float((found - x).abs().max())


@pytest.mark.parametrize("attack", [PGD, UniformNoise(Linf(EPS)), dataclasses.replace(PGD, step_size=EPS)])
@pytest.mark.parametrize(("elapsed", "share"), [(0.0, 0.0), (0.5, 0.25), (1.5, 0.75), (2.0, 1.0), (7.0, 1.0)])
def test_the_budget_rises_over_the_warm_up(classifier, batch, attack, elapsed, share):
    found = crafted(attack, classifier, batch, Moment(1 + int(elapsed), elapsed), warmup=2.0)
    assert far(found, batch.x) <= share * EPS + 1e-6
    assert far(found, batch.x) >= 0.9 * share * EPS
    assert found.min() >= 0
    assert found.max() <= 1


def test_the_budget_of_an_l2_attack_rises_as_well(classifier, batch):
    attack = ProjectedGradient(L2(1.0), steps=3)
    found = crafted(attack, classifier, batch, Moment(1, 0.5), warmup=2.0)
    length = (found - batch.x).flatten(1).norm(dim=1).max()
    assert 0.2 < length <= 0.25 + 1e-6


def test_nothing_but_the_result_is_left(make_tiny, batch):
    model = make_tiny(Poisson(3))
    disturb(model)
    before, drawn = state_of(model), streams()
    found = crafted(PGD, model, batch, LATER)
    assert_same(before, state_of(model))
    assert_same(drawn, streams())
    assert not found.requires_grad


@dataclass(frozen=True)
class Failing(Attack):
    """Raises after it has moved and asked the model."""

    threat: Threat
    seed: int = 0

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        model(x)
        raise RuntimeError("the search gave up")


def test_an_error_inside_the_attack_leaves_the_model_as_it_was(classifier, batch):
    disturb(classifier)
    before, drawn = state_of(classifier), streams()
    with pytest.raises(RuntimeError, match="the search gave up"):
        Adversarial(Failing(Linf(EPS))).step(classifier, batch, looking(classifier, batch), LATER)
    assert_same(before, state_of(classifier))
    assert_same(drawn, streams())


@pytest.mark.parametrize("attack", [PGD, UniformNoise(Linf(EPS)), GaussianNoise(0.1)])
def test_every_epoch_draws_anew_and_each_the_same_again(classifier, batch, attack):
    first, again, other = (crafted(attack, classifier, batch, Moment(epoch, 0.0)) for epoch in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    another_seed = crafted(dataclasses.replace(attack, seed=1), classifier, batch, Moment(1, 0.0))
    assert not torch.equal(first, another_seed)


def test_a_sample_meets_the_same_noise_in_every_batch(classifier, batch):
    part = Batch(batch.x[5:8], batch.y[5:8], batch.index[5:8])
    attack = UniformNoise(Linf(EPS))
    assert torch.equal(crafted(attack, classifier, part, LATER), crafted(attack, classifier, batch, LATER)[5:8])


def test_the_fused_copy_is_attacked_as_the_model_itself_would_be(classifier, batch):
    """In eval mode, also while it is trained."""
    expected = PGD.renewed("epoch", 3)(classifier.eval(), batch.x, batch.y, batch.index)
    found = crafted(PGD, classifier.train(), batch, LATER)
    assert (found - expected).abs().gt(1e-5).float().mean() < 0.01  # signs of gradients that are nearly 0
    classifier.eval()
    assert torch.equal(classifier(found).argmax(1), classifier(expected).argmax(1))


def by_hand(model: nn.Module, batch: Batch, attack: ProjectedGradient) -> Tensor:
    """Madry et al. 2018, written out: eval mode, projected steps along signs."""
    model.eval()
    assert attack.start_size is not None
    x = batch.x + attack.start_size * normal(batch.x, batch.index, "start", attack.renewed("epoch", 3).seed, 0)
    x = torch.min(torch.max(x, batch.x - EPS), batch.x + EPS).clamp(0, 1)
    for _ in range(attack.steps):
        x.requires_grad_()
        slope = torch.autograd.grad(F.cross_entropy(model(x), batch.y), x)[0]
        x = (x + 2.5 * EPS / attack.steps * slope.sign()).detach()
        x = torch.min(torch.max(x, batch.x - EPS), batch.x + EPS).clamp(0, 1)
    model.train()
    return x


@pytest.mark.parametrize("clean_weight", [0.0, 0.3])
def test_a_step_equals_one_written_by_hand(classifier, batch, clean_weight):
    attack = ProjectedGradient(Linf(EPS), steps=2, start="normal", start_size=0.02)
    model, other = classifier.train(), copy.deepcopy(classifier)
    loss, at = Adversarial(attack, clean_weight).step(model, batch, looking(model, batch), LATER)
    loss.backward()

    x = by_hand(other, batch, attack)
    assert (at.x - x).abs().gt(1e-5).float().mean() < 0.01
    logits = other(at.x)
    expected = (1 - clean_weight) * F.cross_entropy(logits, batch.y)
    if clean_weight:
        expected = expected + clean_weight * F.cross_entropy(other(batch.x), batch.y)
    expected.backward()
    assert torch.equal(at.logits, logits)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert one.grad is not None
        torch.testing.assert_close(one.grad, two.grad, atol=1e-6, rtol=1e-5)
    for (name, one), two in zip(model.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(one, two, msg=name)


def test_what_cannot_be_part_of_a_training_is_refused(classifier):
    for attack, words in (
        (Transfer(classifier, PGD), "sees another model"),
        (Encoded(PGD), "on codes"),
        (dataclasses.replace(PGD, estimator=Strongest({"trained": TRAINED})), "got strongest"),
    ):
        with pytest.raises(ValueError, match=words):
            Adversarial(attack)
    with pytest.raises(ValueError, match="warmup: got 2, but the attack has no budget that could rise; allowed: 0"):
        Adversarial(GaussianNoise(0.1), warmup=2)
    assert Adversarial(GaussianNoise(0.1)).warmup == 0
