"""Neurons that learn, that connect, that draw: against numbers worked by hand, against plain loops under autograd, and
against the integrate-and-fire neurons that they become at particular settings."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Literal

import pytest
import torch
from spikingjelly.activation_based import neuron as reference
from torch import Tensor

from snnrobust.estimators.assg import ASSG
from snnrobust.estimators.base import LayerEstimator
from snnrobust.estimators.hart import HART
from snnrobust.estimators.pdsg import PDSG
from snnrobust.estimators.rate import BPTR, RateGradient
from snnrobust.estimators.surrogate import TRAINED, Surrogate
from snnrobust.randomness import per_sample
from snnrobust.spiking.dynamics import Membrane, Number
from snnrobust.spiking.heaviside import Heaviside
from snnrobust.spiking.neuron import IF, LIF, Neuron
from snnrobust.spiking.neurons.evolving_leak import EvolvingLeak
from snnrobust.spiking.neurons.noisy_lif import NoisyLIF
from snnrobust.spiking.neurons.plif import PLIF
from snnrobust.spiking.neurons.psn import PSN
from snnrobust.spiking.neurons.recurrent import Recurrent
from snnrobust.spiking.neurons.self_prediction import SelfPrediction
from snnrobust.spiking.neurons.trainable_threshold import TrainableThreshold
from snnrobust.spiking.surrogate import sigmoid, triangle

WEIGHT = [1.0, 2.0, 3.0]
"""The loss of three steps is `s_1 + 2 s_2 + 3 s_3`; the surrogate is a triangle of width 1, the threshold 1."""


def column(numbers: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    """`[T, N, C]` of one neuron."""
    return torch.tensor(numbers, dtype=dtype).view(-1, 1, 1)


def three_steps(neuron: Neuron, current: list[float]) -> tuple[list[float], list[float], dict[str, list[float]]]:
    """Spikes, and the gradients with respect to the current and to what the neuron learns; the former under a rule
    as well, in double and single precision."""
    neuron(column(current, torch.float32))  # makes the parameters
    i = column(current).requires_grad_()
    spikes = neuron.double()(i)
    (spikes * column(WEIGHT)).sum().backward()
    assert i.grad is not None
    learned = {name: p.grad.flatten().tolist() for name, p in neuron.named_parameters() if p.grad is not None}
    for dtype in (torch.float64, torch.float32):
        given = column(current, dtype).requires_grad_()
        neuron.to(dtype).rule = TRAINED.rule()
        fired = neuron(given)
        found = torch.autograd.grad((fired * column(WEIGHT, dtype)).sum(), given)[0]
        assert fired.flatten().tolist() == spikes.flatten().tolist()
        assert found.flatten().tolist() == pytest.approx(i.grad.flatten().tolist(), abs=1e-6)
    return spikes.flatten().tolist(), i.grad.flatten().tolist(), learned


def having(neuron: Neuron, name: str, values: list[Any]) -> Neuron:
    """With a parameter set to the given values, made before if need be."""
    neuron(torch.zeros(3, 1, 1))
    with torch.no_grad():
        parameter = neuron.get_parameter(name)
        parameter.copy_(torch.tensor(values).view_as(parameter))
    return neuron


def test_a_soft_reset_by_hand():
    # u = 0.75, 1.125*, 0.5625 with half of 0.125 left over by the spike (*); g = 0.75, 0.875, 0.5625.
    # du_3 = 1.6875; du_2 = 1.75 + 0.84375 (1 - 0.875) = 1.85546875; du_1 = 0.75 + 0.927734375 (1 - 0.75)
    spikes, gradient, _ = three_steps(LIF(triangle(), reset="soft"), [0.75, 0.75, 0.5])
    assert spikes == [0, 1, 0]
    assert gradient == pytest.approx([0.98193359375, 1.85546875, 1.6875])
    # Detached: du_2 = 1.75 + 0.84375; du_1 = 0.75 + du_2 / 2
    _, gradient, _ = three_steps(LIF(triangle(), detach_reset=True, reset="soft"), [0.75, 0.75, 0.5])
    assert gradient == pytest.approx([2.046875, 2.59375, 1.6875])


def test_a_learned_time_constant_by_hand():
    # 1/tau = 1/2 on twice the current of `test_neuron.THREE`: u = 0.75, 1.125*, 0.5, du = 0.9713134765625, 1.01171875,
    # 1.5, of which half goes to the current. du_t / d(1/tau) = i_t - v_{t-1}: 1.5, 1.5 - 0.75, 1.0, times 1/4 for w.
    spikes, gradient, learned = three_steps(PLIF(triangle()), [1.5, 1.5, 1.0])
    assert spikes == [0, 1, 0]
    assert gradient == pytest.approx([0.48565673828125, 0.505859375, 0.75])
    of_decay = 0.9713134765625 * 1.5 + 1.01171875 * 0.75 + 1.5
    assert learned["w"] == pytest.approx([of_decay / 4])


def test_a_trainable_threshold_by_hand():
    # u = 0.75, 1.25*, 0.75; g = 0.75 each; du_3 = 2.25, du_2 = 1.5 - 2.25 * 1.25 * 0.75 = -0.609375,
    # du_1 = 0.75 - 0.609375 (1 - 0.75^2); dtheta = -(0.75 + 1.5 + 2.25) + sum_t dv_t u_t g_t, dv = du_2, du_3, 0
    spikes, gradient, learned = three_steps(TrainableThreshold(triangle()), [0.75, 0.5, 0.75])
    assert spikes == [0, 1, 0]
    assert gradient == pytest.approx([0.4833984375, -0.609375, 2.25])
    assert learned["threshold"] == pytest.approx([-4.5 - 0.609375 * 0.5625 + 2.25 * 0.9375])


def test_a_trainable_threshold_with_soft_reset_by_hand():
    # u = 0.75, 1.25*, 1.0*; g = 0.75, 0.75, 1; du_3 = 3, du_2 = 1.5 + 3 (1 - 0.75) = 2.25, du_1 = 0.75 + 2.25 / 4;
    # dtheta = -(0.75 + 1.5 + 3) + sum_t dv_t (g_t - s_t) = -5.25 + 2.25 * 0.75 + 3 (0.75 - 1)
    spikes, gradient, learned = three_steps(TrainableThreshold(triangle(), reset="soft"), [0.75, 0.5, 0.75])
    assert spikes == [0, 1, 1]
    assert gradient == pytest.approx([1.3125, 2.25, 3.0])
    assert learned["threshold"] == pytest.approx([-4.3125])


def test_an_evolving_leak_by_hand():
    # Leaks 7, 1/2, 2: u = 0.5, 0.5, 1.25*; g = 0.5, 0.5, 0.75. du_3 = 2.25; du_2 = 1 + 2 * 2.25 (1 - 0.25) = 4.375;
    # du_1 = 0.5 + 4.375 / 2 (1 - 0.25). dleak_t = du_t v_{t-1}
    neuron = having(EvolvingLeak(triangle()), "leak", [7.0, 0.5, 2.0])
    spikes, gradient, learned = three_steps(neuron, [0.5, 0.25, 0.25])
    assert spikes == [0, 0, 1]
    assert gradient == pytest.approx([2.140625, 4.375, 2.25])
    assert learned["leak"] == pytest.approx([0, 2.1875, 1.125])


@pytest.mark.parametrize("connections", ["self", "lateral"])
def test_a_recurrent_neuron_by_hand(connections):
    # V = -1/2, no leak: u = 1.25*, 0.25, 1.25*; g = 0.75, 0.25, 0.75. du_3 = 2.25;
    # du_2 = (2 - 1.125) 0.25 + 2.25 (1 - 0.0625) = 2.328125; du_1 = (1 - 1.1640625) 0.75 - 2.328125 * 1.25 * 0.75;
    # dV = du_2 s_1 + du_3 s_2
    neuron = having(Recurrent(triangle(), connections, tau=None), "weight", [-0.5])
    spikes, gradient, learned = three_steps(neuron, [1.25, 0.75, 1.0])
    assert spikes == [1, 0, 1]
    assert gradient == pytest.approx([-2.3056640625, 2.328125, 2.25])
    assert learned["weight"] == pytest.approx([2.328125])


def test_a_parallel_neuron_by_hand():
    # b = -1: u = 0.25*, -0.125, -0.125; g = 0.75, 0.875, 0.875; du = 0.75, 1.75, 2.625;
    # di = W^T du, dW = du i^T, db = du
    neuron = having(PSN(triangle(), steps=3), "weight", [[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.0, 0.5, 1.0]])
    spikes, gradient, learned = three_steps(neuron, [1.25, 0.25, 0.75])
    assert spikes == [1, 0, 0]
    assert gradient == pytest.approx([1.625, 3.0625, 2.625])
    assert learned["bias"] == pytest.approx([0.75, 1.75, 2.625])
    assert learned["weight"] == pytest.approx([du * i for du in (0.75, 1.75, 2.625) for i in (1.25, 0.25, 0.75)])


Reset = Literal["hard", "soft"]


def plain(current: Tensor, leak: Any, gain: Any, threshold: Any, v_to: Any, reset: Reset, detach: bool) -> Tensor:
    """The recursion in one loop, for autograd. `leak` and `gain` per step; `v_to`: spikes `[N, C, ...]` to currents."""
    v = s = torch.zeros_like(current[0])
    spikes = []
    for t, i in enumerate(current):
        u = leak[t] * v + gain * i + v_to(s)
        s = Heaviside.apply(u - threshold, triangle().derivative)
        fired = s.detach() if detach else s
        v = u * (1 - fired) if reset == "hard" else u - threshold * fired
        spikes.append(s)
    return torch.stack(spikes)


def of_threshold(neuron: Any, i: Tensor) -> dict[str, Any]:
    return {"leak": [2 / 3] * len(i), "gain": 1 / 3, "threshold": neuron.threshold, "v_to": torch.zeros_like}


def of_leak(neuron: Any, i: Tensor) -> dict[str, Any]:
    return {"leak": neuron.leak, "gain": 1.0, "threshold": 0.8, "v_to": torch.zeros_like}


def of_self(neuron: Any, i: Tensor) -> dict[str, Any]:
    return {
        "leak": [2 / 3] * len(i), "gain": 1 / 3, "threshold": 0.8,
        "v_to": lambda s: neuron.weight.view(-1, *[1] * (s.dim() - 2)) * s,
    }  # fmt: skip


def of_lateral(neuron: Any, i: Tensor) -> dict[str, Any]:
    return of_self(neuron, i) | {"v_to": lambda s: torch.einsum("dc,nc...->nd...", neuron.weight, s)}


VARIANTS: dict[str, tuple[Callable[..., Neuron], Callable[[Any, Tensor], dict[str, Any]]]] = {
    "threshold": (partial(TrainableThreshold, threshold=0.8, tau=3.0, decay_input=True), of_threshold),
    "leak": (partial(EvolvingLeak, threshold=0.8), of_leak),
    "self": (partial(Recurrent, connections="self", threshold=0.8, tau=3.0, decay_input=True), of_self),
    "lateral": (partial(Recurrent, connections="lateral", threshold=0.8, tau=3.0, decay_input=True), of_lateral),
}
RESETS: list[tuple[Reset, bool]] = [("hard", False), ("hard", True), ("soft", False), ("soft", True)]
SHAPES = [(6, 3, 4, 3, 2), (6, 3, 5), (1, 3, 4, 3, 2), (6, 1, 5)]
every_variant = pytest.mark.parametrize(("kind", "reset", "detach"), [(k, *r) for k, r in product(VARIANTS, RESETS)])


def draws(*shape: int, number: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def made(neuron: Neuron, current: Tensor) -> Neuron:
    """In double precision, with parameters that are made and moved away from where they start."""
    neuron.double()(current)
    with torch.no_grad():
        for number, parameter in enumerate(neuron.parameters()):
            parameter.add_(0.3 * draws(*parameter.shape, number=number + 7))
    return neuron


@every_variant
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_gradients_are_those_of_a_plain_loop(kind, reset, detach, shape):
    build, constants = VARIANTS[kind]
    current, weight = 2 * draws(*shape) + 0.5, draws(*shape, number=1)
    neuron = made(build(triangle(), reset=reset, detach_reset=detach), current)
    learned = [*neuron.parameters()]
    i = current.clone().requires_grad_()
    expected = plain(i, **constants(neuron, i), reset=reset, detach=detach)
    expected_gradients = torch.autograd.grad((expected * weight).sum(), [i, *learned], materialize_grads=True)
    spikes = neuron(i)
    gradients = torch.autograd.grad((spikes * weight).sum(), [i, *learned], materialize_grads=True)
    assert torch.equal(spikes, expected)
    assert 0.05 < float(spikes.detach().mean()) < 0.95
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-10)
    neuron.rule = TRAINED.rule()
    under = neuron(i)
    assert torch.equal(under, expected)
    found = torch.autograd.grad((under * weight).sum(), i)[0]
    torch.testing.assert_close(found, expected_gradients[0], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("steps", [1, 6])
def test_parallel_neurons_equal_spikingjellys(steps):
    current, weight = 2 * draws(steps, 3, 4, 2, 2), draws(steps, 3, 4, 2, 2, number=1)
    ours, theirs = PSN(sigmoid(), steps).double(), reference.PSN(steps, sigmoid().spike).double()
    assert ours.bias.shape == theirs.bias.shape
    assert (theirs.bias == ours.bias).all()
    with torch.no_grad():
        ours.weight.copy_(draws(steps, steps, number=2))
    theirs.load_state_dict(ours.state_dict())
    results = []
    for layer in (theirs, ours):
        i = current.clone().requires_grad_()
        spikes = layer(i)
        gradients = torch.autograd.grad((spikes * weight).sum(), [i, layer.weight, layer.bias])
        results.append((spikes.detach(), *gradients))
    assert 0.05 < float(results[0][0].mean()) < 0.95
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


PLACES: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, x.shape[:2]),
    "constant": lambda x: x[:1].expand_as(x),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", [*VARIANTS, "psn", "plif"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_spikes_are_the_same_under_a_rule_bit_for_bit(kind, place, dtype):
    others: dict[str, Callable[..., Neuron]] = {"psn": partial(PSN, steps=5), "plif": partial(PLIF, threshold=0.5)}
    torch.manual_seed(0)
    current = PLACES[place](2 * draws(5, 2, 6, 4, 4)).to(dtype)
    neuron = made((others | {name: build for name, (build, _) in VARIANTS.items()})[kind](triangle()), current.double())
    neuron.to(dtype)
    expected = neuron(current)
    neuron.rule = TRAINED.rule()
    assert expected.dtype == dtype
    assert 0 < float(expected.detach().float().mean()) < 1
    assert torch.equal(neuron(current), expected)


RULES: dict[str, LayerEstimator] = {
    "trained": TRAINED,
    "sigmoid": Surrogate(sigmoid()),
    "bptr": BPTR(),
    "rate": RateGradient(),
    "hart": HART(1.4),
    "pdsg": PDSG(),
    "assg": ASSG(),
}
TWINS: dict[str, tuple[Neuron, Neuron]] = {  # neurons that are equal at these settings
    "plif": (PLIF(triangle(), 3.0, 0.4), LIF(triangle(), 3.0, 0.4, decay_input=True)),
    "plif, undecayed": (PLIF(triangle(), 3.0, decay_input=False), LIF(triangle(), 3.0)),
    "threshold": (TrainableThreshold(triangle(), 0.625), IF(triangle(), 0.625)),
    "threshold, leaky": (
        TrainableThreshold(triangle(), 0.625, tau=3.0, reset="soft"),
        LIF(triangle(), 3.0, 0.625, reset="soft"),
    ),
    "leak": (EvolvingLeak(triangle(), 0.75, 0.6), LIF(triangle(), 4.0, 0.6)),
    "self": (Recurrent(triangle()), LIF(triangle())),
    "lateral": (Recurrent(triangle(), "lateral", tau=None, reset="soft"), IF(triangle(), reset="soft")),
    "prediction": (SelfPrediction(triangle(), 3.0), LIF(triangle())),
    "prediction, soft": (SelfPrediction(triangle(), tau=None, reset="soft"), IF(triangle(), reset="soft")),
    "noisy": (NoisyLIF(triangle(), 0.0, "always"), LIF(triangle())),
    "noisy at rest": (NoisyLIF(triangle(), 0.5, tau=None).eval(), IF(triangle())),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_at_these_settings_every_estimator_gives_what_it_gives_for_plain_neurons(name, rule, dtype):
    current, weight = (2 * draws(6, 3, 2, 4)).to(dtype), draws(6, 3, 2, 4, number=1).to(dtype)
    results = []
    for neuron in TWINS[name]:
        neuron.to(dtype).rule = None
        free = neuron(current)
        neuron.rule = RULES[rule].rule()
        i = current.clone().requires_grad_()
        spikes = neuron(i)
        assert torch.equal(spikes, free)
        results.append((spikes.detach(), torch.autograd.grad((spikes * weight).sum(), i)[0]))
    assert results[1][1].any()
    assert torch.equal(results[0][0], results[1][0])
    atol = 1e-12 if dtype == torch.float64 else 1e-5
    # A learned 1/tau is a float32 that was rounded on the way through w.
    torch.testing.assert_close(results[0][1], results[1][1], atol=max(atol, 1e-6 * ("plif" in name)), rtol=0)


@pytest.mark.parametrize("kind", ["threshold", "plif"])
def test_rules_use_the_value_that_is_learned(kind):
    neuron: Neuron = TrainableThreshold(triangle(), 1.0) if kind == "threshold" else PLIF(triangle())
    current = column([0.75, 0.5, 0.75])
    found = []
    for step in range(2):
        neuron.rule = BPTR().rule() if kind == "threshold" else TRAINED.rule()
        i = current.clone().requires_grad_()
        found.append(torch.autograd.grad(neuron(i).sum(), i)[0].flatten().tolist())
        with torch.no_grad():
            next(neuron.parameters()).fill_(3.0)
        assert step == 0 or found[0] != found[1]
    assert kind == "plif" or found == [[1, 1, 1], [0, 0, 0]]


def test_a_threshold_cannot_begin_below_the_minimum():
    with pytest.raises(ValueError, match=r"neuron\.minimum: got 0\.6; allowed: at most neuron\.threshold, 0\.5"):
        TrainableThreshold(triangle(), 0.5, minimum=0.6)
    TrainableThreshold(triangle(), 0.5, minimum=0.5)


def test_a_threshold_below_the_minimum_has_no_effect_but_a_gradient():
    current = 0.02 * draws(6, 4, 5)
    results = []
    for threshold in (0.03, 0.001, -1.0):
        neuron = TrainableThreshold(triangle(0.02)).double()
        with torch.no_grad():
            neuron.threshold.fill_(threshold)
        spikes = neuron(current)
        spikes.sum().backward()
        assert neuron.threshold.grad is not None
        results.append((spikes.detach(), neuron.threshold.grad))
    assert 0 < float(results[0][0].mean()) < 1
    assert results[0][1] != 0
    for spikes, gradient in results[1:]:
        assert torch.equal(spikes, results[0][0])
        torch.testing.assert_close(gradient, results[0][1], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", [*VARIANTS, "plif", "if"])
def test_written_out_steps_back_are_those_of_autograd(kind):
    others: dict[str, Callable[..., Neuron]] = {"plif": PLIF, "if": IF}
    build = (others | {name: build for name, (build, _) in VARIANTS.items()})[kind]
    dynamics = made(build(triangle()), 2 * draws(3, 2, 4)).dynamics
    assert isinstance(dynamics, Membrane)
    du, before = draws(2, 4), 1.5 * draws(2, 4, number=1)
    found, expected = dynamics.discharge(du, before, 1), Membrane.discharge(dynamics, du, before, 1)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        torch.testing.assert_close(one, other)


@dataclass(frozen=True, eq=False)
class Bent(Membrane):
    """Neither linear in the potential nor without connections; says how it is charged and nothing else."""

    bend: Tensor
    threshold: Number = 0.8
    detach_reset: bool = False
    reset: Reset = "hard"

    @property
    def leak(self) -> Number:
        return 1.0

    @property
    def gain(self) -> Number:
        return 0.5

    def charge(self, v: Tensor, s: Tensor, i: Tensor, t: int) -> Tensor:
        return v + self.bend * v * (v - 1) - s.roll(1, -1) * (1 + v) + 0.5 * i


class Bending(Neuron):
    surrogate = triangle()

    def __init__(self, reset: Reset, detach_reset: bool) -> None:
        super().__init__()
        self.bend = torch.nn.Parameter(torch.tensor(0.4, dtype=torch.float64))
        self.made = partial(Bent, reset=reset, detach_reset=detach_reset)

    @property
    def dynamics(self) -> Bent:
        return self.made(self.bend)


@pytest.mark.parametrize(("reset", "detach"), RESETS)
def test_to_say_how_it_is_charged_is_enough_for_a_new_neuron(reset, detach):
    """The spikes under a rule are those of the loop, the gradient is that of autograd through the loop."""
    neuron = Bending(reset, detach)
    i, weight = (2 * draws(6, 3, 5)).requires_grad_(), draws(6, 3, 5, number=1)
    spikes = neuron(i)
    expected = torch.autograd.grad((spikes * weight).sum(), [i, neuron.bend])
    assert 0.05 < float(spikes.detach().mean()) < 0.95
    assert expected[1] != 0
    neuron.rule = TRAINED.rule()
    under = neuron(i)
    assert torch.equal(under, spikes)
    torch.testing.assert_close(torch.autograd.grad((under * weight).sum(), i)[0], expected[0], atol=1e-12, rtol=1e-12)


def test_another_number_of_steps_is_one_line_for_parallel_neurons():
    neuron = PSN(triangle(), steps=4)
    with pytest.raises(ValueError, match=r"^neuron.steps: got 4; allowed: 6, the steps of the input$"):
        neuron(torch.zeros(6, 2, 3))
    neuron.rule = TRAINED.rule()
    with pytest.raises(ValueError, match=r"^neuron.steps: got 4; allowed: 1, "):
        neuron(torch.zeros(1, 2, 3))


def test_noise_is_on_the_potential():
    """Its size does not depend on the scale of the input; it is carried over like the rest."""
    torch.manual_seed(0)
    for decay_input in (False, True):
        neuron = NoisyLIF(triangle(), 0.5, "always", tau=4.0, threshold=100.0, decay_input=decay_input)
        noisy = neuron.dynamics.potentials(neuron.driven(torch.zeros(2, 200, 500)), 2)
        assert float(noisy[0].std()) == pytest.approx(0.5, rel=0.02)
        assert float(noisy[1].var()) == pytest.approx(0.25 * (1 + 0.75**2), rel=0.03)


@pytest.mark.parametrize(("when", "training", "drawn"), [("training", True, True), ("training", False, False),
                                                         ("always", True, True), ("always", False, True)])  # fmt: skip
def test_noise_is_drawn_when_it_should_be(when, training, drawn):
    neuron = NoisyLIF(triangle(), 0.5, when).train(training)
    assert neuron.stochastic == (when == "always")
    assert not NoisyLIF(triangle(), 0.0, when).stochastic
    current = draws(4, 3, 20)
    for rule in (None, TRAINED.rule()):
        neuron.rule = rule
        assert torch.equal(neuron(current), neuron(current)) != drawn


def test_noise_belongs_to_the_sample():
    neuron, index = NoisyLIF(triangle(), 0.5, "always"), torch.tensor([5, 3, 17])
    current = draws(4, 3, 20).float()

    def spikes(part: Tensor) -> Tensor:
        with per_sample(index[part], "noise"):
            return neuron(current[:, part])

    whole = spikes(torch.arange(3))
    for part in torch.arange(3).split([1, 2]):
        assert torch.equal(spikes(part), whole[:, part])
    neuron.rule = TRAINED.rule()
    assert torch.equal(spikes(torch.arange(3)), whole)
