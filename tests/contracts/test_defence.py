"""Every yaml file of a defence gives a step that training can use."""

import dataclasses
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnrobust import config, yamls
from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.data.dataset import Batch, Split
from snnrobust.data.digits import Digits
from snnrobust.randomness import isolated
from snnrobust.regularizers.base import Pass, Regularizer
from snnrobust.regularizers.gradient_sparsity import GradientSparsity
from snnrobust.regularizers.none import NoRegularizer
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.encoder import Direct, Frames
from snnrobust.threat import Linf
from snnrobust.training.defences.base import Defence, Moment
from snnrobust.training.defences.none import NoDefence
from snnrobust.training.loop import Trainer
from snnrobust.training.settings import TrainingSettings
from tests.conftest import tiny
from tests.contracts.toys import assert_same, state_of, streams

EPS = 0.1
MOMENT = Moment(2, 1.5)
CHOICES = yamls.groups()["defence"]
WITH_ATTACK = [c for c in CHOICES if "attack:" in (yamls.folder() / "defence" / f"{c}.yaml").read_text()]


@cache
def defence_of(choice: str) -> Defence:
    node = config.compose("config", [f"defence={choice}", "dataset=digits", f"dataset.eps={EPS}"]).config["defence"]
    built: Defence = config.instantiate("defence", node)
    return built


@pytest.fixture(params=CHOICES)
def defence(request) -> Defence:
    return defence_of(str(request.param))


@pytest.fixture
def batch(images) -> Batch:
    x, y = images
    return Batch(x, y, torch.arange(40, 40 + len(x)))


def stepped(defence: Defence, model: SpikingClassifier, batch: Batch) -> tuple[Tensor, Pass, list[Tensor]]:
    """Also what went through the model in training mode."""
    seen: list[Tensor] = []

    def look(x: Tensor) -> Pass:
        assert not x.requires_grad
        return Pass(batch.x, x, batch.y, batch.index, model(x))

    hook = model.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].detach()) if module.training else None
    )
    loss, at = defence.step(model, batch, look, MOMENT)
    hook.remove()
    return loss, at, seen


def test_the_loss_is_a_finite_scalar_with_a_gradient_to_every_parameter(defence, classifier, batch):
    loss, _, _ = stepped(defence, classifier.train(), batch)
    assert loss.shape == ()
    loss.backward()
    assert loss.detach().isfinite()
    for name, parameter in classifier.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_the_pass_is_one_that_went_through_the_model(defence, classifier, batch):
    _, at, seen = stepped(defence, classifier.train(), batch)
    assert torch.equal(at.clean, batch.x)
    assert torch.equal(at.y, batch.y)
    assert torch.equal(at.index, batch.index)
    assert any(torch.equal(at.x, x) for x in seen)
    assert torch.equal(at.logits.detach(), classifier(at.x).detach())  # batch norm by the batch: the same again


def test_what_is_seen_lies_within_budget_and_bounds(defence, classifier, batch):
    _, _, seen = stepped(defence, classifier.train(), batch)
    assert seen
    for x in seen:
        assert x.shape == batch.x.shape
        assert (x - batch.x).abs().max() <= EPS + 1e-6
        assert x.min() >= 0
        assert x.max() <= 1


def test_weights_modes_samples_and_streams_are_left_alone(defence, classifier, batch):
    model = classifier.train()
    before, drawn, x = state_of(model), streams(), batch.x.clone()
    stepped(defence, model, batch)
    after = state_of(model)
    buffers = [name for name in before if name.startswith("buffer")]  # running statistics move, as in any training
    assert_same(*({k: v for k, v in state.items() if k not in buffers} for state in (before, after)))
    assert_same(drawn, streams())
    assert torch.equal(batch.x, x)


def test_a_step_is_the_same_again(defence, make_tiny, batch):
    first, again = (stepped(defence, make_tiny().train(), batch) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert all(torch.equal(x, y) for x, y in zip(first[2], again[2], strict=True))


@pytest.mark.parametrize("samples", [1, 2])
def test_small_batches(defence, classifier, batch, samples):
    part = Batch(*(t[:samples] for t in (batch.x, batch.y, batch.index)))
    loss, at, _ = stepped(defence, classifier.train(), part)
    assert loss.isfinite()
    assert at.logits.shape == (samples, 4)


def test_a_single_time_step(defence, make_tiny, batch):
    loss, _, _ = stepped(defence, make_tiny(Direct(1)).train(), batch)
    assert loss.isfinite()


def test_event_frames(defence, make_tiny):
    x = torch.rand(4, 2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    loss, at, _ = stepped(defence, make_tiny(Frames(2), channels=2).train(), Batch(x, torch.arange(4), torch.arange(4)))
    assert loss.isfinite()
    assert at.x.shape == x.shape


def test_a_network_without_a_gradient_to_its_input(defence, classifier, batch):
    """Silent neurons: the attack finds nothing, and the step is as finite as any other."""
    with torch.no_grad():
        for module in classifier.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.zero_()
                module.bias.fill_(-5)
    loss, _, seen = stepped(defence, classifier.train(), batch)
    assert loss.isfinite()
    assert all((x - batch.x).abs().max() <= EPS + 1e-6 for x in seen)


@pytest.mark.parametrize("choice", WITH_ATTACK)
def test_an_error_of_the_network_during_the_attack_leaves_it_as_it_was(choice, classifier, batch):
    defence = defence_of(choice)

    def give_up(module: nn.Module, inputs: Any) -> None:
        if not module.training:
            raise RuntimeError("the network gave up")

    classifier.train()
    hook = classifier.register_forward_pre_hook(give_up)
    before, drawn = state_of(classifier), streams()
    with pytest.raises(RuntimeError, match="the network gave up"):
        defence.step(classifier, batch, lambda x: Pass(batch.x, x, batch.y, batch.index, classifier(x)), MOMENT)
    hook.remove()
    assert_same(before, state_of(classifier))
    assert_same(drawn, streams())


def trained(defence: Defence, make_tiny, regularizer: Regularizer, epochs: int = 1, seed: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(17, (40, 1, 8, 8), generator=generator).to(torch.uint8)
    data = Split(values, torch.randint(4, (40,), generator=generator), 16)
    trainer = Trainer(TrainingSettings(epochs=epochs, batch_size=16), regularizer, defence, seed)
    with isolated("training", seed):
        return trainer(make_tiny(), data, data, lambda _epoch: None).state


@pytest.mark.parametrize("regularizer", [NoRegularizer(), GradientSparsity(weight=0.1)])
def test_the_same_seed_gives_the_same_bits(defence, make_tiny, regularizer):
    first, again, other = (trained(defence, make_tiny, regularizer, seed=seed) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert all(tensor.isfinite().all() for tensor in first.values())


def test_a_regularizer_changes_what_is_learned(defence, make_tiny):
    without, sparse = (trained(defence, make_tiny, r) for r in (NoRegularizer(), GradientSparsity(weight=0.5)))
    assert not all(torch.equal(without[name], sparse[name]) for name in without)


def test_the_regularizer_sees_a_pass_whose_input_requires_a_gradient(defence, make_tiny):
    """What it differentiates is the pass that the defence returned, on inputs of the same batch."""
    seen: list[Pass] = []

    @dataclasses.dataclass(frozen=True)
    class Watching(GradientSparsity):
        def __call__(self, model: Any, at: Pass) -> Tensor:
            if model.training:
                seen.append(at)
            return super().__call__(model, at)

    trained(defence, make_tiny, Watching())
    assert len(seen) == 3
    assert all(at.x.requires_grad and at.logits.requires_grad for at in seen)
    assert all((at.x - at.clean).abs().max() <= EPS + 1e-6 for at in seen)


@cache
def four_digits() -> tuple[Split, Batch]:
    """Training split and test samples of the classes 0 to 3."""
    splits = Digits().load()
    train, test = (part.part(torch.nonzero(part.labels < 4).squeeze(1)) for part in (splits.train, splits.test))
    return train, test.batch(torch.arange(len(test)))


def accuracy_under_pgd(defence: Defence, model: SpikingClassifier) -> float:
    train, test = four_digits()
    optimizer = partial(torch.optim.Adam, lr=0.04)
    settings = TrainingSettings(optimizer=optimizer, epochs=6, batch_size=64)
    with isolated("training"):
        trained = Trainer(settings, NoRegularizer(), defence, 0)(model, train, train, lambda _epoch: None)
    model.load_state_dict(trained.state)
    model.eval()
    found = ProjectedGradient(Linf(EPS))(model, test.x, test.y)
    with torch.no_grad():
        return float((model(found).argmax(1) == test.y).float().mean())


@cache
def accuracy_without_defence() -> float:
    return accuracy_under_pgd(NoDefence(), tiny())


@pytest.mark.parametrize("choice", WITH_ATTACK)
def test_training_raises_the_accuracy_under_attack(choice, make_tiny):
    """As it comes, but for the length of the search, which would take a while."""
    defence: Any = defence_of(choice)
    shorter = dataclasses.replace(defence, attack=dataclasses.replace(defence.attack, steps=2))
    assert accuracy_under_pgd(shorter, make_tiny()) > accuracy_without_defence() + 0.15
