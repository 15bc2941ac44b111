"""Steps of the optimizer: what they are made of, and what is left of them."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.trained import SGD, Watching, data, kept, same, train, trainer


def test_gradients_left_in_the_parameters_are_not_learned_from(make_tiny):
    model, other = make_tiny(), make_tiny()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert same(train(trainer(), model)[0].state, train(trainer(), other)[0].state)


def without_batch_norm(model: Any) -> Any:
    model.backbone.features = nn.Sequential(
        *(m for m in model.backbone.features if "BatchNorm" not in type(m).__name__)
    )
    return model


@pytest.mark.parametrize(("number", "sizes", "accumulate"), [(48, 8, 2), (40, 4, 4), (38, 8, 2)])
def test_gradients_of_several_batches_are_those_of_one_large_batch(make_tiny, number, sizes, accumulate):
    """Weighted by samples, so that a smaller last batch counts as much as it has samples."""
    small = trainer(make=SGD, lr=0.1, batch_size=sizes, accumulate=accumulate)
    large = trainer(make=SGD, lr=0.1, batch_size=sizes * accumulate)
    first, other = (train(run, without_batch_norm(make_tiny()), data(number)) for run in (small, large))
    for name, tensor in first[0].state.items():
        torch.testing.assert_close(tensor, other[0].state[name], rtol=1e-4, atol=1e-6)
    assert [e.lr for e in first[1]] == [e.lr for e in other[1]]
    assert first[1][0].train.loss == pytest.approx(other[1][0].train.loss, rel=1e-4)


def test_the_last_batches_of_an_epoch_are_a_step_of_their_own(make_tiny):
    watching = Watching()
    _, epochs = train(trainer(defence=watching, batch_size=8, accumulate=4, epochs=2), make_tiny(), data(40))
    assert watching.steps == [4, 5, 9, 10]  # passes until then
    assert len(epochs) == 2


def test_a_long_gradient_is_shortened(make_tiny):
    """One step of SGD moves the weights by lr times the gradient, of length 0.01 at most."""
    for clip, expected in ((0.01, 0.01), (1e6, None)):
        model = make_tiny()
        before = [p.detach().clone() for p in model.parameters()]
        train(trainer(make=SGD, lr=1.0, clip=clip, epochs=1, batch_size=48), model)
        moved = torch.cat([(p - b).flatten() for p, b in zip(model.parameters(), before, strict=True)]).norm().item()
        if expected:
            assert moved == pytest.approx(expected, rel=1e-3)
        else:
            assert moved > 0.1
            plain = make_tiny()
            train(trainer(make=SGD, lr=1.0, epochs=1, batch_size=48), plain)
            assert same(dict(plain.state_dict()), dict(model.state_dict()))


def test_the_selected_weights_are_copies_on_the_cpu(make_tiny):
    model = make_tiny()
    trained, _ = train(trainer(epochs=1), model)
    before = copy.deepcopy(trained.state)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert same(trained.state, before)
    assert all(tensor.device.type == "cpu" and not tensor.requires_grad for tensor in trained.state.values())


def test_a_training_says_how_many_epochs_it_took(make_tiny):
    trained, states = kept(trainer(epochs=4), make_tiny(), data(16, 1))
    assert trained.epochs == len(states) == 4
