"""Defences that are part of the network: masked features, self-consistent currents, self-predicted currents."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnrobust import config
from snnrobust.check import check
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.models.convnet import ConvNet
from snnrobust.schema import ConfigError
from snnrobust.spiking.activation import ReLU
from snnrobust.spiking.neuron import LIF, Neuron
from snnrobust.spiking.neurons.local_feature_masking import LocalFeatureMasking, LocalMask
from snnrobust.spiking.neurons.recurrent import connected
from snnrobust.spiking.neurons.self_consistent import Consistency, SelfConsistent
from snnrobust.spiking.neurons.self_prediction import SelfPrediction
from snnrobust.spiking.neurons.stochastic_gates import StochasticGates
from snnrobust.spiking.recording import recorded
from snnrobust.spiking.surrogate import triangle

lif = partial(LIF, triangle())


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Local feature masking


def test_a_mask_is_one_square_for_all_steps_and_channels():
    torch.manual_seed(0)
    kept = LocalMask(1.0, 1.0, area=0.25, smallest=8)(torch.ones(3, 500, 2, 8, 10))
    assert torch.equal(kept, kept[:1, :, :1].expand_as(kept))
    hidden = 1 - kept[0, :, 0]
    rows, columns = hidden.amax(2), hidden.amax(1)
    # round(sqrt(0.25 * 80)) = 4
    assert (rows.sum(1) == 4).all()
    assert (columns.sum(1) == 4).all()
    assert torch.equal(hidden, rows.unsqueeze(2) * columns.unsqueeze(1))
    places = {(int(r.argmax()), int(c.argmax())) for r, c in zip(rows, columns, strict=True)}
    assert places == {*product(range(5), range(7))}
    assert all(int(r.argmax()) + 4 == int(r.nonzero().max()) + 1 for r in rows)


def test_samples_and_channels_are_masked_by_chance():
    torch.manual_seed(0)
    kept = LocalMask(0.3, 0.4, area=0.1, smallest=8)(torch.ones(2, 4000, 10, 8, 8))
    masked = (kept[0] == 0).flatten(2).any(2)
    assert float(masked.float().mean()) == pytest.approx(0.3 * 0.4, abs=0.01)
    assert float(masked.any(1).float().mean()) == pytest.approx(0.3 * (1 - 0.6**10), abs=0.03)


def test_only_what_is_masked_has_no_gradient():
    torch.manual_seed(0)
    spikes = torch.ones(2, 5, 3, 8, 8, requires_grad=True)
    kept = LocalMask(1.0, 1.0, area=0.3, smallest=1)(spikes)
    kept.sum().backward()
    assert spikes.grad is not None
    assert torch.equal(spikes.grad, kept.detach())
    assert float(spikes.grad.mean()) == 0.75  # a side of round(sqrt(0.3 * 64)) = 4


@pytest.mark.parametrize("shape", [(3, 4, 2, 7, 8), (3, 4, 2, 8, 7), (3, 4, 64)], ids=str)
def test_small_maps_are_left_as_they_are(shape):
    state, spikes = torch.get_rng_state(), torch.ones(shape)
    assert LocalMask(1.0, 1.0, area=1.0, smallest=8)(spikes) is spikes
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_is_masked_in_evaluation():
    layer, current = LocalFeatureMasking(lif, probability=1.0, channels=1.0, area=1.0), 2 * draws(4, 2, 3, 8, 8)
    assert layer(current).sum() == 0
    assert torch.equal(layer.eval()(current), lif()(current))


# Self-consistent currents


def consistency(weight: list[list[float]], iterations: int = 3, bound: float = 0.9) -> Consistency:
    its = Consistency(iterations, bound).double()
    its(torch.zeros(1, 1, len(weight), dtype=torch.float64))
    with torch.no_grad():
        its.weight.copy_(torch.tensor(weight))
    return its


def test_consistent_currents_by_hand():
    # The diagonal does not count. j_1 = (1 + 2/2, 2 - 1/4); j_2 = (1 + 1.75/2, 2 - 2/4); j_3 = (1 + 1.5/2, 2 - 1.875/4)
    weight, current = [[7.0, 0.5], [-0.25, 7.0]], torch.tensor([[[1.0, 2.0]]], dtype=torch.float64)
    found = [consistency(weight, k)(current).flatten().tolist() for k in (1, 2, 3)]
    assert found == [[2.0, 1.75], [1.875, 1.5], [1.75, 1.53125]]
    # What is below 0 is silent: j = (1 + 0, -1 - 1/4).
    assert consistency(weight)(torch.tensor([[[1.0, -1.0]]]).double()).flatten().tolist() == [1.0, -1.25]


@pytest.mark.parametrize("shape", [(4, 3, 5), (4, 3, 5, 6, 2)], ids=str)
def test_consistent_currents_are_at_every_place_those_of_a_plain_loop(shape):
    its, current = consistency(draws(5, 5, seed=1).mul(0.1).tolist()), draws(*shape)
    pattern = its.weight.detach() - its.weight.detach().diag().diag()
    j = current
    for _ in range(3):
        j = current + torch.einsum("dc,tnc...->tnd...", pattern, j.relu())
    torch.testing.assert_close(its(current), j, atol=1e-12, rtol=0)


def test_currents_are_consistent_before_training():
    current = draws(4, 3, 5, 6, 2)
    assert torch.equal(Consistency(3, 0.9).double()(current), current)


def test_rows_are_bounded_and_iterations_contract():
    current = 3 * draws(4, 3, 6, seed=2)
    large = draws(6, 6, seed=1).tolist()
    pattern = consistency(large).pattern.detach()
    torch.testing.assert_close(pattern.abs().sum(1), torch.full((6,), 0.9).double())
    assert not pattern.diag().any()
    results = [current, *(consistency(large, k)(current).detach() for k in range(1, 200))]
    changes = [float((b - a).abs().max()) for a, b in pairwise(results)]
    assert changes[0] > 0.1
    assert all(after <= 0.9 * before + 1e-12 for before, after in pairwise(changes))
    fixed = results[-1].flatten(0, 1)
    torch.testing.assert_close(fixed, current.flatten(0, 1) + connected(fixed.relu(), pattern), atol=1e-8, rtol=0)


def test_a_constant_current_stays_constant():
    its, current = consistency(draws(5, 5, seed=1).tolist()), draws(1, 3, 5).expand(4, 3, 5)
    found = its(current)
    assert found.stride(0) == 0
    assert torch.equal(found, its(current.contiguous()))


def test_the_pattern_has_the_gradient_of_the_iteration():
    its, current = consistency(draws(4, 4, seed=1).mul(0.3).tolist()), draws(3, 2, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda i, _weight: its(i), (current, its.weight), atol=1e-6)


# Self-predicted currents


def predicting(strength: list[float], **settings: Any) -> SelfPrediction:
    its = SelfPrediction(triangle(), **settings).double()
    its(torch.zeros(1, 1, len(strength), dtype=torch.float64))
    with torch.no_grad():
        its.strength.copy_(torch.tensor(strength))
    return its


def test_a_predicted_current_by_hand():
    # p = 0.25, -0.125: u = 0.5, 0.5 + 0.5 + 0.25 = 1.25*, 0.5 - 0.125; g = 0.5, 0.75, 0.375.
    # Step 3: du = 3 * 0.375 = 1.125, dp = 1.125. Step 2: ds = 2 - 1.125 / 2 = 1.4375,
    # du = 1.4375 * 0.75 - 1.125 * 1.25 * 0.75 = 0.0234375, di = du + 1.125 / 2, dp = du + 1.125 / 2 = 0.5859375.
    # Step 1: ds = 1 - 0.5859375 / 2, du = 0.5 ds + 0.0234375 * 0.75, di = du + 0.5859375 / 2.
    its, i = predicting([1.0], tau=None), torch.full((3, 1, 1), 0.5, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([1.0, 2.0, 3.0]).double().view(3, 1, 1)
    spikes = its(i)
    found = torch.autograd.grad((spikes * weight).sum(), [i, its.strength])
    assert spikes.flatten().tolist() == [0, 1, 0]
    assert found[0].flatten().tolist() == [0.6640625, 0.5859375, 1.125]
    assert found[1].tolist() == [0.0234375 * 0.25 - 1.125 * 0.125]


def unrolled(current: Tensor, its: SelfPrediction) -> Tensor:
    """The spikes, with every prediction written as the sum over the whole past that it is."""
    base, v = its.base, torch.zeros_like(current[0])
    spikes: list[Tensor] = []
    strength = its.strength.view(-1, *[1] * (current.dim() - 3))
    for t in range(len(current)):
        past = sum((1 - 1 / its.tau_prediction) ** (t - 1 - k) * (base.gain * current[k] - base.threshold * spikes[k])
                   for k in range(t))  # fmt: skip
        u = base.leak * v + base.gain * current[t] + strength * past / its.tau_prediction
        spikes.append(its.surrogate.spike(u - base.threshold))
        s = spikes[-1].detach() if base.detach_reset else spikes[-1]
        v = u * (1 - s) if base.reset == "hard" else u - base.threshold * s
    return torch.stack(spikes)


@pytest.mark.parametrize("settings", [
    {}, {"reset": "soft"}, {"tau": None, "detach_reset": True}, {"tau": 3.0, "decay_input": True, "threshold": 0.4},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("shape", [(7, 3, 4), (6, 2, 4, 3, 3), (1, 1, 4)], ids=str)
def test_predictions_are_sums_over_the_past(settings, shape):
    """All gradients, and that to the current under a rule as well."""
    its = predicting(draws(4, seed=1).tolist(), tau_prediction=2.5, **settings)
    i, weight = (2 * draws(*shape) + 0.5).requires_grad_(), draws(*shape, seed=2)
    expected = unrolled(i, its)
    wanted = torch.autograd.grad((expected * weight).sum(), [i, its.strength], materialize_grads=True)
    assert 0.05 < float(expected.detach().mean()) < 0.95
    spikes = its(i)
    found = torch.autograd.grad((spikes * weight).sum(), [i, its.strength], materialize_grads=True)
    its.rule = TRAINED.rule()
    under = its(i)
    found += torch.autograd.grad((under * weight).sum(), i)
    assert torch.equal(spikes, expected)
    assert torch.equal(under, expected)
    for got, want in zip(found, [*wanted, wanted[0]], strict=True):
        torch.testing.assert_close(got, want, atol=1e-10, rtol=1e-10)


def test_a_reset_does_not_cut_the_path_through_the_prediction():
    """With a spike in between and the reset detached, nothing passes in the plain neuron."""
    found = []
    for neuron in (lif(detach_reset=True), predicting([0.5], detach_reset=True)):
        i = torch.tensor([0.2, 1.5, 0.6]).double().view(3, 1, 1).requires_grad_()
        spikes = neuron(i)
        assert spikes.flatten().tolist() == [0, 1, 0]
        found.append(float(torch.autograd.grad(spikes[2].sum(), i)[0][0]))
    assert found[0] == 0
    assert found[1] > 0


# All of them

DEFENCES: dict[str, Callable[[], nn.Module]] = {
    "gates": partial(StochasticGates, lif, when="training", probability=0.7),
    "masked": partial(LocalFeatureMasking, lif, smallest=4),
    "consistent": partial(SelfConsistent, lif),
    "prediction": partial(SelfPrediction, triangle()),
}
every_defence = pytest.mark.parametrize("defence", DEFENCES)


def network(defence: str) -> ConvNet:
    torch.manual_seed(0)
    made = ConvNet((1, 8, 8), 4, DEFENCES[defence], channels=(3,), hidden=16)
    with torch.no_grad():
        made(torch.zeros(4, 2, 1, 8, 8))
        for name, parameter in made.named_parameters():
            if "neuron" in name or "consistency" in name or "strength" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return made


@every_defence
def test_what_is_recorded_are_the_neurons_within(defence):
    model, sequence = network(defence).eval(), torch.randn(4, 5, 1, 8, 8)
    expected = model(sequence)
    with recorded(model) as found:
        logits = model(sequence)
    assert torch.equal(logits, expected)
    assert [layer.neuron for layer in found] == [m for m in model.modules() if isinstance(m, Neuron)]
    for layer in found:
        assert torch.equal(layer.spikes, (layer.distance >= 0).to(layer.spikes.dtype))
    gradient = torch.autograd.grad(found[1].potential.square().sum(), model.get_parameter("features.0.weight"))[0]
    assert gradient.isfinite().all()
    assert gradient.any()


@every_defence
def test_mixed_precision(defence):
    """Convolutions in bfloat16 under autocast; membranes are float32, and everything learns in float32."""
    model, sequence = network(defence), torch.randn(4, 5, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16), recorded(model) as found:
        logits = model(sequence)
    assert all(layer.potential.dtype == torch.float32 for layer in found)
    logits.float().square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("choice", ["stochastic_gates", "local_feature_masking", "self_consistent"])
def test_they_go_around_neurons_of_any_kind(choice):
    for inner, kind in (("plif", "PLIF"), ("relu", ReLU.__name__), ("psn", "PSN")):
        settings = [f"neuron={choice}", f"neuron@neuron.neuron={inner}", "encoder.steps=3", "tracker=none"]
        composed = config.compose("config", [*settings, "regularizer=none", "device=cpu"]).config
        check(composed)
        experiment, _ = config.build(composed)
        made = [type(module).__name__ for module in experiment.classifier().modules()]
        assert made.count(kind) == 3, inner


def test_a_setting_of_the_neurons_within_is_checked():
    with pytest.raises(ConfigError, match=r"^neuron\.neuron\.tau: got 1; allowed: greater than 1$"):
        check(config.compose("config", ["neuron=self_consistent", "neuron.neuron.tau=1"]).config)
