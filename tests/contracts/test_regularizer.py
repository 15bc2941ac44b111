"""Every yaml file of a regularizer gives a term that training can use."""

from functools import cache

import pytest
import torch
from torch.nn import functional as F

from snnrobust import config
from snnrobust.data.dataset import Split
from snnrobust.regularizers.base import Regularizer
from snnrobust.regularizers.none import NoRegularizer
from snnrobust.training.defences import NoDefence
from snnrobust.training.loop import Trainer, TrainingSettings
from tests.contracts.toys import Toy


@cache
def regularizer_of(choice: str, *overrides: str) -> Regularizer:
    node = config.compose("config", [f"regularizer={choice}", *overrides]).config["regularizer"]
    built: Regularizer = config.instantiate("regularizer", node)
    return built


@pytest.fixture(params=config.groups()["regularizer"])
def choice(request) -> str:
    return str(request.param)


def term(regularizer, model, images):
    x, y = images
    x = x.clone().requires_grad_(regularizer.needs_input_gradient)
    logits = model(x)
    return F.cross_entropy(logits, y), regularizer(model, x, y, logits)


@pytest.mark.parametrize("mode", [True, False])
def test_the_term_is_a_finite_scalar_of_at_least_zero(choice, classifier, images, mode):
    _, value = term(regularizer_of(choice), classifier.train(mode), images)
    assert value.shape == ()
    assert value.isfinite()
    assert value >= 0


def test_the_loss_is_differentiable_to_every_parameter(choice, classifier, images):
    regularizer = regularizer_of(choice)
    ce, value = term(regularizer, classifier.train(), images)
    (ce + regularizer.weight * value).backward()
    for name, parameter in classifier.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_a_term_with_a_weight_has_a_gradient_of_its_own(choice, images):
    regularizer = regularizer_of(choice)
    if regularizer.weight == 0:
        pytest.skip("no weight, no term")
    model = Toy(64).eval()
    _, value = term(regularizer, model, images)
    gradients = torch.autograd.grad(value, [*model.parameters()], allow_unused=True)
    assert any(g is not None and g.abs().max() > 0 for g in gradients)


def test_inputs_and_parameters_are_not_written_to(choice, classifier, images):
    before = [p.detach().clone() for p in classifier.parameters()], images[0].clone()
    term(regularizer_of(choice), classifier, images)
    assert torch.equal(images[0], before[1])
    assert all(torch.equal(p, q) for p, q in zip(classifier.parameters(), before[0], strict=True))
    assert all(p.grad is None for p in classifier.parameters())


def test_weight_zero_trains_bit_for_bit_like_none(choice, make_tiny):
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(17, (40, 1, 8, 8), generator=generator).to(torch.uint8)
    data = Split(values, torch.randint(4, (40,), generator=generator), 16)
    states = []
    for regularizer in (regularizer_of(choice, "regularizer.weight=0"), NoRegularizer()):
        trainer = Trainer(TrainingSettings(epochs=2, batch_size=16), regularizer, NoDefence(), seed=3)
        states.append(trainer(make_tiny(), data, data, lambda _epoch: None).state)
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
