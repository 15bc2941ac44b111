"""Every yaml file of a regularizer gives a term that training can use."""

import copy
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from snnrobust import config, yamls
from snnrobust.data.dataset import Batch, Split
from snnrobust.regularizers.base import Regularizer
from snnrobust.regularizers.none import NoRegularizer
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.training.defences.none import NoDefence
from snnrobust.training.loop import Trainer
from snnrobust.training.settings import TrainingSettings

LIVELY = {"gradient_sparsity": ("regularizer.step=0.3",)}
"""Settings with which a term is not 0 on a tiny network that has not been trained."""
EXACT = ("gradient_sparsity", "gradient_l1", "gradient_l2")
CASES = [*((name,) for name in yamls.groups()["regularizer"]), *((name, "exact") for name in EXACT)]
CASES += [(name, "finite_difference") for name in EXACT]


@cache
def regularizer_of(choice: str, *overrides: str) -> Regularizer:
    node = config.compose("config", [f"regularizer={choice}", *LIVELY.get(choice, ()), *overrides]).config
    built: Regularizer = config.instantiate("regularizer", node["regularizer"])
    return built


@pytest.fixture(params=CASES, ids=["-".join(case) for case in CASES])
def regularizer(request) -> Regularizer:
    choice, *method = request.param
    return regularizer_of(choice, *(f"regularizer.method={m}" for m in method))


@pytest.fixture(params=yamls.groups()["regularizer"])
def choice(request) -> str:
    return str(request.param)


def trainer(regularizer: Regularizer) -> Trainer:
    return Trainer(TrainingSettings(epochs=2, batch_size=16), regularizer, NoDefence(), seed=3)


def term(regularizer: Regularizer, model: SpikingClassifier, images: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Cross-entropy and the term, of a pass as the training loop makes it."""
    batch = Batch(*images, torch.arange(len(images[0])))
    at = trainer(regularizer)._look(model, batch, 1, batch.x)
    return F.cross_entropy(at.logits, at.y), regularizer(model, at)


@pytest.mark.parametrize("mode", [True, False])
def test_the_term_is_a_finite_scalar_of_at_least_zero(regularizer, classifier, images, mode):
    _, value = term(regularizer, classifier.train(mode), images)
    assert value.shape == ()
    assert value.isfinite()
    assert value >= 0


def test_one_sample_is_enough(regularizer, classifier, images):
    _, value = term(regularizer, classifier, (images[0][:1], images[1][:1]))
    assert value.isfinite()
    assert value >= 0


def test_the_loss_is_differentiable_to_every_parameter(regularizer, classifier, images):
    ce, value = term(regularizer, classifier.train(), images)
    (ce + regularizer.weight * value).backward()
    for name, parameter in classifier.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_a_term_with_a_weight_has_a_gradient_of_its_own(regularizer, classifier, images):
    if regularizer.weight == 0:
        pytest.skip("no weight, no term")
    _, value = term(regularizer, classifier.train(), images)
    gradients = torch.autograd.grad(value, [*classifier.parameters()], allow_unused=True)
    assert any(g is not None and g.abs().max() > 0 for g in gradients)


def test_the_weight_rises_from_zero_over_the_warmup(choice):
    if regularizer_of(choice).weight == 0:
        pytest.skip("no weight, nothing to rise")
    built = regularizer_of(choice, "regularizer.warmup=4")
    weights = [built.weight_at(elapsed / 2) for elapsed in range(11)]
    assert weights[0] == 0
    assert weights == sorted(weights)
    assert 0 < weights[4] < built.weight
    assert weights[8:] == [built.weight] * 3
    assert regularizer_of(choice, "regularizer.warmup=0").weight_at(0.0) == built.weight


def test_nothing_is_written_to_but_the_statistics_of_batch_norm(regularizer, classifier, images):
    state, x = copy.deepcopy(classifier.state_dict()), images[0].clone()
    term(regularizer, classifier, images)
    assert not classifier.training
    assert torch.equal(images[0], x)
    assert all(torch.equal(value, state[name]) for name, value in classifier.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in classifier.parameters())


def test_the_same_pass_gives_the_same_term(regularizer, make_tiny, images):
    values = [term(regularizer, make_tiny().train(), images)[1].item() for _ in range(2)]
    assert values[0] == values[1]


def test_weight_zero_trains_bit_for_bit_like_none(choice, make_tiny):
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(17, (40, 1, 8, 8), generator=generator).to(torch.uint8)
    data = Split(values, torch.randint(4, (40,), generator=generator), 16)
    states = []
    for one in (regularizer_of(choice, "regularizer.weight=0"), NoRegularizer()):
        states.append(trainer(one)(make_tiny(), data, data, lambda _epoch: None).state)
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
