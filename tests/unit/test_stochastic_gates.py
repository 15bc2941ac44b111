"""Stochastic gates: against numbers worked by hand, autograd of the relaxation, and the plain neuron."""

from functools import partial
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from snnrobust.describe import layers
from snnrobust.models.convnet import ConvNet
from snnrobust.randomness import per_sample
from snnrobust.spiking.classifier import Normalize, SpikingClassifier
from snnrobust.spiking.encoder import Direct
from snnrobust.spiking.neuron import LIF
from snnrobust.spiking.neurons.stochastic_gates import Gates, StochasticGates, gate_slope
from snnrobust.spiking.surrogate import triangle
from snnrobust.spiking.twin import twin
from snnrobust.threat import Bounds

lif = partial(LIF, triangle())


def gates(raw: list[float], **settings: Any) -> Gates:
    """For one row of neurons, with these raw probabilities."""
    its = StochasticGates(lif, **settings).get_submodule("gates")
    assert isinstance(its, Gates)
    its(torch.zeros(1, 1, len(raw)))
    with torch.no_grad():
        its.raw.copy_(torch.tensor(raw))
    return its


def test_at_probability_one_nothing_changes():
    torch.manual_seed(0)
    plain, gated = lif(), StochasticGates(lif)
    current, weight = 2 * torch.randn(5, 3, 4, 6, 6), torch.randn(5, 3, 4, 6, 6)
    results = []
    for layer in (plain, gated):
        i = current.clone().requires_grad_()
        spikes = layer(i)
        results.append((spikes.detach(), torch.autograd.grad((spikes * weight).sum(), i)[0]))
    assert results[0][0].mean() > 0.1
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_spikes_pass_with_the_probability_and_every_step_and_sample_draws():
    torch.manual_seed(0)
    raw = [0.3, 0.8, 1.0, 1.7, -0.4]
    passed = gates(raw).eval()(torch.ones(50, 400, 5)).detach()
    assert set(passed.unique().tolist()) == {0.0, 1.0}
    for k, p in enumerate([0.3, 0.8, 1.0, 1.0, 0.1]):
        sigma = (p * (1 - p) / 20_000) ** 0.5
        assert float(passed[..., k].mean()) == pytest.approx(p, abs=4 * sigma), raw[k]
    # Independent draws: means over 50 steps (400 samples) vary as binomial means do.
    for dimension, number in ((0, 50), (1, 400)):
        assert float(passed[..., 0].mean(dimension).var()) == pytest.approx(0.21 / number, rel=0.6)
    assert not torch.equal(gates(raw)(torch.ones(50, 400, 5)), passed)


def test_the_slope_by_hand():
    # s = sigmoid(0 / 0.5) = 1/2: 1/4 / (1/2 * 1/4) = 2. U = 2/3, p = 1/2: odds 2, squared 4, s = 4/5: 0.16 / 0.125.
    # p = 0.8 with U = 0.2 is s = 1/2 again: 0.25 / (0.5 * 0.16).
    p, u = torch.tensor([0.5, 0.5, 0.8]), torch.tensor([0.5, 2 / 3, 0.2])
    assert gate_slope(p, u, 0.5).tolist() == pytest.approx([2.0, 1.28, 3.125])
    # At temperature 1, s = odds / (1 + odds): 2/9 / (1/4).
    assert float(gate_slope(p[:1], u[1:2], 1.0)) == pytest.approx(8 / 9)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_slope_is_that_of_the_relaxed_gate(temperature):
    torch.manual_seed(0)
    p = torch.rand(1000, dtype=torch.float64).mul(0.9).add(0.05).requires_grad_()
    u = torch.rand(1000, dtype=torch.float64)
    relaxed = (((p / (1 - p)).log() + (u / (1 - u)).log()) / temperature).sigmoid()
    expected = torch.autograd.grad(relaxed.sum(), p)[0]
    assert (expected > 0).all()  # more probable, more open
    torch.testing.assert_close(gate_slope(p.detach(), u, temperature), expected, rtol=1e-9, atol=1e-9)


def test_the_slope_is_finite_everywhere():
    ends = torch.tensor([0.0, 1e-30, 0.5, 1 - 2**-24, 1.0])
    slope = gate_slope(ends.unsqueeze(1), ends, 0.5)
    assert slope.isfinite().all()
    assert (slope >= 0).all()
    # At p = 1 it is that of p = 0.99, and not nothing: gates can leave 1.
    assert float(gate_slope(torch.ones(1000), torch.arange(1000) / 1000, 0.5).mean()) > 1


def test_gradients_are_those_of_the_gates_and_of_the_relaxation():
    its, spikes = gates([0.3, 0.6, 0.9]).double(), torch.tensor([1.0, 1.0, 0.0]).double().expand(4, 5, 3).clone()
    weight = torch.randn(4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    s = spikes.requires_grad_()
    torch.manual_seed(3)
    passed = its(s)
    torch.manual_seed(3)
    uniform = torch.rand(4, 5, 3, dtype=torch.float64)
    of_spikes, of_raw = torch.autograd.grad((passed * weight).sum(), [s, its.raw])
    opened = (uniform >= 1 - its.raw.detach()).double()
    assert 0 < opened.mean() < 1
    assert torch.equal(passed.detach(), spikes.detach() * opened)
    assert torch.equal(of_spikes, weight * opened)
    expected = (weight * spikes.detach() * gate_slope(its.raw.detach(), uniform, 0.5)).sum((0, 1))
    assert float(expected[2]) == 0  # no spikes
    torch.testing.assert_close(of_raw, expected)


def test_gradients_can_be_differentiated_again():
    """`g = d (w gate(p) x^2) / d x = 2 w gate x`: `d g / d x = 2 w gate`, `d g / d p = 2 w x slope`."""
    its, x = gates([0.6]).double(), torch.full((3, 4, 1), 1.5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 4, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(3)
    first = torch.autograd.grad((its(x.square()) * weight).sum(), x, create_graph=True)[0]
    torch.manual_seed(3)
    uniform = torch.rand(3, 4, 1, dtype=torch.float64)
    of_x, of_p = torch.autograd.grad(first.sum(), [x, its.raw])
    torch.testing.assert_close(of_x, 2 * weight * (uniform >= 1 - its.raw.detach()))
    slope = gate_slope(its.raw.detach(), uniform, 0.5)
    torch.testing.assert_close(of_p, (2 * weight * 1.5 * slope).sum((0, 1)))


@pytest.mark.parametrize(
    ("sign", "before", "after"), [(1, 1.0, "<"), (-1, 1.0, "="), (1, 1.5, "<"), (-1, 1.5, "="), (1, 0.1, "="),
                                  (-1, 0.1, ">"), (1, -0.5, "="), (-1, -0.5, ">"), (1, 0.5, "<"), (-1, 0.5, ">")]
)  # fmt: skip
def test_probabilities_follow_the_loss_and_stay_in_range(sign, before, after):
    """A loss of `sign` times the spikes that pass; from the ends, only steps inwards are taken."""
    torch.manual_seed(0)
    its = gates([before])
    start = float(its.raw.detach())
    (sign * its(torch.ones(20, 30, 1)).sum()).backward()
    torch.optim.SGD(its.parameters(), 1e-4).step()
    changed = float(its.raw.detach()) - start
    assert {"<": changed < 0, ">": changed > 0, "=": changed == 0}[after]


def test_when_it_draws():
    spikes = torch.ones(3, 50, 4)
    always, training = gates([0.5, 0.25, 1.0, 0.0]), gates([0.5, 0.25, 1.0, 0.0], when="training")
    assert (always.stochastic, training.stochastic) == (True, False)
    for its, mode in ((always, True), (always, False), (training, True)):
        assert not torch.equal(its.train(mode)(spikes), its(spikes))
    state = torch.get_rng_state()
    assert training.eval()(spikes)[0, 0].tolist() == pytest.approx([0.5, 0.25, 1.0, 0.1])
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_belong_to_the_sample():
    its, index = gates([0.5] * 20).eval(), torch.tensor([5, 3, 17])

    def passed(part: Tensor) -> Tensor:
        with per_sample(index[part], "gates"):
            return its(torch.ones(4, len(part), 20))

    whole = passed(torch.arange(3))
    for part in torch.arange(3).split([1, 2]):
        assert torch.equal(passed(part), whole[:, part])
    assert not torch.equal(whole[:, 0], whole[:, 1])


def test_half_precision_draws_in_full():
    """`U` in bfloat16 would come in steps of 1/256, and be 1/256 or more above 0."""
    torch.manual_seed(0)
    its = gates([0.5]).bfloat16()
    spikes = torch.ones(100, 1000, 1, dtype=torch.bfloat16, requires_grad=True)
    passed = its(spikes)
    passed.sum().backward()
    assert spikes.grad is not None
    assert its.raw.grad is not None
    assert passed.dtype == spikes.grad.dtype == its.raw.grad.dtype == torch.bfloat16
    assert float(passed.detach().float().mean()) == pytest.approx(0.5, abs=0.007)
    assert its.raw.grad.isfinite().all()


def test_a_probability_cannot_begin_below_the_minimum():
    with pytest.raises(ValueError, match=r"^neuron\.probability: got 0\.05; allowed: 0\.1 \(neuron\.minimum\) to 1$"):
        StochasticGates(lif, probability=0.05)
    StochasticGates(lif, probability=0.05, minimum=0.05)


def network(when: Literal["always", "training"]) -> SpikingClassifier:
    torch.manual_seed(0)
    factory = partial(StochasticGates, lif, when=when, probability=0.6)
    backbone = ConvNet((1, 8, 8), 4, factory, channels=(3,), hidden=5)
    classifier = SpikingClassifier(backbone, Direct(3), Normalize((0.5,), (0.3,)), Bounds())
    with torch.no_grad():
        for _ in range(20):
            classifier(torch.rand(32, 1, 8, 8))
        classifier.get_parameter("backbone.classifier.1.weight").mul_(8)  # makes the hidden layer fire
    return classifier


@pytest.mark.parametrize(("when", "stochastic"), [("always", True), ("training", False)])
def test_a_classifier_is_stochastic_if_its_gates_draw(when, stochastic):
    classifier, x = network(when), torch.rand(6, 1, 8, 8)
    assert classifier.stochastic == twin(classifier).stochastic == stochastic
    assert torch.equal(classifier.eval()(x), classifier(x)) != stochastic
    assert twin(classifier)(x).shape == (6, 4)


def test_its_parameters_are_described():
    classifier = network("always")
    found = [*layers(classifier, (1, 8, 8), torch.device("cpu"))]
    assert sum(layer.parameters for layer in found) == sum(p.numel() for p in classifier.parameters())
    assert [layer.parameters for layer in found if layer.kind == "Gates"] == [3 * 8 * 8, 5]
    assert [layer.neurons for layer in found if layer.neurons] == [3 * 8 * 8, 5]
