"""The moving average of the weights, and the precision of the training passes."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnrobust.config import build, compose
from snnrobust.regularizers.base import Pass, Regularizer
from snnrobust.regularizers.gradient_sparsity import GradientSparsity
from snnrobust.spiking.recording import recorded
from snnrobust.training.averaging import averaged
from snnrobust.training.defences.none import NoDefence
from snnrobust.training.precision import rounded
from tests.unit.trained import data, kept, same, train, trainer


class Collecting(NoDefence):
    """Keeps parameters and buffers after every step."""

    def __init__(self) -> None:
        object.__setattr__(self, "states", [])

    states: list[dict[str, Tensor]]

    def after_step(self, model: Any) -> None:
        self.states.append(copy.deepcopy(model.state_dict()))


def by_hand(states: list[dict[str, Tensor]], decay: float) -> dict[str, Tensor]:
    average = dict(states[0])
    for state in states[1:]:
        average = {k: decay * average[k] + (1 - decay) * state[k] for k in average}
    return average


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_average_is_kept_and_validated(make_tiny, decay):
    collecting = Collecting()
    model = make_tiny()
    run = trainer(defence=collecting, ema=decay, epochs=2, lr=0.02)
    trained, epochs = train(run, model)
    assert len(collecting.states) == 6
    expected = by_hand(collecting.states[: 3 * trained.best.epoch], decay)
    assert trained.state.keys() == model.state_dict().keys()
    for name, tensor in trained.state.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, expected[name], msg=name)
    judged = make_tiny()
    judged.load_state_dict(trained.state)
    assert run.score(judged, data(16, 1)) == trained.best.validation
    assert (run.score(model, data(16, 1)) == epochs[-1].validation) == (decay == 0.0)


def test_statistics_of_batch_norm_are_averaged_with_the_weights(make_tiny):
    first, other = make_tiny(), make_tiny(seed=1)
    average = averaged(first, 0.75)
    average.update_parameters(first)
    average.update_parameters(other)
    means = [m.state_dict()["backbone.features.1.running_mean"] for m in (first, other, average.module)]
    assert not torch.equal(means[0], means[1])
    torch.testing.assert_close(means[2], 0.75 * means[0] + 0.25 * means[1])


def test_an_average_does_not_change_what_is_trained(make_tiny):
    plain, other = make_tiny(), make_tiny()
    train(trainer(), plain)
    train(trainer(ema=0.99), other)
    assert same(dict(plain.state_dict()), dict(other.state_dict()))


def test_parameters_that_take_their_shape_from_the_data_are_averaged():
    small = ["neuron=evolving_leak", "model.channels=[4]", "model.hidden=8", "encoder.steps=2", "regularizer=none"]
    its, _ = build(compose("config", ["tracker=none", "device=cpu", *small]).config)
    model = its.classifier()
    trained, _ = train(trainer(ema=0.5, epochs=1), model)
    assert trained.state.keys() == model.state_dict().keys()


# --- precision


def test_training_in_bfloat16_learns_with_weights_in_float32(make_tiny):
    model = make_tiny()
    _, epochs = train(trainer(epochs=12, lr=0.02, precision="bfloat16"), model)
    assert epochs[-1].validation.accuracy > 0.75
    assert all(p.dtype == torch.float32 for p in model.state_dict().values() if p.is_floating_point())


def test_the_loss_in_bfloat16_is_close_to_that_in_float32_and_not_the_same(make_tiny):
    losses = [train(trainer(precision=p), make_tiny())[1][0].train.loss for p in ("float32", "bfloat16")]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]


def test_layers_are_rounded_and_membranes_and_logits_are_not(make_tiny):
    model = make_tiny().train()
    found: dict[str, torch.dtype] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda _m, _x, out, name=name: found.update({name: out.dtype}))
    with rounded(model, "bfloat16"), recorded(model) as layers:
        logits = model(data(8).batch(torch.arange(8)).x)
    assert set(found.values()) == {torch.bfloat16}
    assert {layer.potential.dtype for layer in layers} == {torch.float32}
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("neuron", ["psn", "recurrent"])
def test_matrices_inside_a_neuron_are_not_rounded(neuron):
    """Under autocast torch rounds every product of matrices; that of a membrane is none of the network's layers."""
    small = ["model.channels=[4]", "model.hidden=8", "encoder.steps=3", "regularizer=none"]
    more = ["neuron.steps=3"] if neuron == "psn" else ["neuron.connections=lateral"]
    its, _ = build(compose("config", ["tracker=none", "device=cpu", f"neuron={neuron}", *small, *more]).config)
    model = its.classifier().train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
    with rounded(model, "bfloat16"), recorded(model) as layers:
        model(data(8).batch(torch.arange(8)).x)
    for layer in layers:
        again = layer.neuron.dynamics.potentials(layer.current, 3)
        assert torch.equal(layer.potential, again)


def test_validation_is_in_float32(make_tiny):
    run, model = trainer(precision="bfloat16", epochs=1), make_tiny()
    trained, states = kept(run, model, data(16, 1))
    model.load_state_dict(trained.state)
    assert trainer().score(model, data(16, 1)) == states[0][0].validation


def test_a_pass_without_a_graph_does_not_cut_the_gradient_of_the_next_one(make_tiny):
    model = make_tiny().train()
    x = data(8).batch(torch.arange(8)).x
    with rounded(model, "bfloat16"):
        with torch.no_grad():
            model(x)
        model(x).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


class Curved(Regularizer):
    """The squared input gradient, which is differentiated twice."""

    weight, warmup = 0.1, 0.0
    needs_input_gradient, needs_layers = True, True

    def __call__(self, model: Any, at: Pass) -> Tensor:
        assert all(layer.potential.dtype == torch.float32 for layer in at.layers)
        chosen = at.logits.gather(1, at.y[:, None]).sum()
        return torch.autograd.grad(chosen, at.x, create_graph=True)[0].square().sum((1, 2, 3)).mean()


@pytest.mark.parametrize("regularizer", [GradientSparsity(weight=0.1, step=0.1), Curved()])
def test_regularizers_are_trained_in_bfloat16_as_well(make_tiny, regularizer):
    terms = []
    for precision in ("float32", "bfloat16"):
        _, epochs = train(trainer(regularizer, precision=precision, epochs=1), make_tiny())
        terms.append(epochs[0].train.regularizer)
    assert terms[1] == pytest.approx(terms[0], rel=0.1)
    assert terms[1] != terms[0]
