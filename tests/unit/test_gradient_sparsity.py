"""SR against a plain loop over samples, its limit, and its gradients."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnrobust.regularizers.base import Pass
from snnrobust.regularizers.gradient_sparsity import GradientSparsity, runner_up, true_against
from snnrobust.regularizers.input_gradient import steepest
from snnrobust.threat import Bounds
from tests.contracts.toys import Linear

EVERY: list[dict[str, Any]] = [
    {"method": method, "direction": direction, "power": power}
    for method in ("finite_difference", "exact")
    for direction in ("sign", "gradient")
    for power in (1, 2)
]


class Smooth(nn.Module):
    """Four tanh neurons between 6 inputs and 3 logits, in double precision."""

    bounds = Bounds()
    stochastic = False

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.first, self.second = (
            nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in ((4, 6), (3, 4))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1) @ self.first.T) @ self.second.T


def sample(number: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return torch.rand(number, 6, generator=generator, dtype=torch.float64), torch.arange(number) % 3


def term(model: Any, x: Tensor, y: Tensor, step: float = 0.01, **settings: Any) -> Tensor:
    here = x.clone().requires_grad_()
    at = Pass(x, here, y, torch.arange(len(y)), model(here))
    return GradientSparsity(step=step, **settings)(model, at)


def value(model: Any, x: Tensor, y: Tensor, step: float = 0.01, **settings: Any) -> float:
    return float(term(model, x, y, step, **settings).detach())


def probability(z: list[float], true: int, other: int) -> float:
    return math.exp(z[true]) / (math.exp(z[true]) + math.exp(z[other]))


def loop(model: nn.Module, x: Tensor, y: Tensor, step: float) -> float:
    """The published definition, sample by sample, with the quotient of exponentials."""
    total = 0.0
    for one, label in zip(x, y.tolist(), strict=True):
        one = one.unsqueeze(0).clone().requires_grad_()
        logits = model(one)[0]
        other = max((j for j in range(len(logits)) if j != label), key=logits.tolist().__getitem__)
        f = logits[label].exp() / (logits[label].exp() + logits[other].exp())
        direction = torch.autograd.grad(f, one)[0].sign()
        there = model(one.detach() + step * direction)[0].tolist()
        here = probability(logits.tolist(), label, other)
        total += ((probability(there, label, other) - here) / step) ** 2
    return total / len(x)


def gradients(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """`[B, D]`: input gradients of the two-class probability, from the whole Jacobian of the logits."""
    logits = model(x).detach()
    jacobian = torch.autograd.functional.jacobian(model, x)  # [B, K, B, ...]
    rows = []
    for i, label in enumerate(y.tolist()):
        other = int(runner_up(logits[i : i + 1], y[i : i + 1]))
        p = probability(logits[i].tolist(), label, other)
        own = jacobian[i, :, i].flatten(1)
        rows.append(p * (1 - p) * (own[label] - own[other]))
    return torch.stack(rows)


def test_the_runner_up_is_the_largest_class_but_the_true_one():
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [-5.0, -7.0, -6.0]])
    assert runner_up(logits, torch.tensor([0, 1, 2, 0])).tolist() == [2, 0, 0, 2]


def test_the_probability_is_that_of_the_two_class_softmax():
    logits = torch.tensor([[1.0, 3.0, 0.0], [2.0, 0.5, -1.0]], dtype=torch.float64)
    found = true_against(torch.tensor([1, 0]), logits, torch.tensor([0, 2]))
    expected = [probability(logits[0].tolist(), 0, 1), probability(logits[1].tolist(), 2, 0)]
    assert found.tolist() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("step", [0.001, 0.01, 0.1])
def test_it_equals_the_loop_on_a_smooth_model(step):
    x, y = sample(9)
    assert value(Smooth(), x, y, step) == pytest.approx(loop(Smooth(), x, y, step), rel=1e-9)


def test_it_equals_the_loop_on_a_spiking_classifier(classifier, images):
    x, y = images
    found = value(classifier.double(), x.double(), y, 0.1)
    assert found > 0
    assert found == pytest.approx(loop(classifier, x.double(), y, 0.1), rel=1e-9)


@pytest.mark.parametrize(("direction", "norm"), [("sign", 1), ("gradient", 2)])
@pytest.mark.parametrize("power", [1, 2])
def test_it_tends_to_the_norm_of_the_gradient_at_first_order(direction, norm, power):
    x, y = sample()
    limit = float(gradients(Smooth(), x, y).norm(norm, dim=1).pow(power).mean())
    settings = {"direction": direction, "power": power}
    coarse, fine, finest = (abs(value(Smooth(), x, y, h, **settings) - limit) for h in (1e-3, 1e-4, 1e-5))
    assert limit > 0.01
    assert coarse / fine == pytest.approx(10, rel=0.1)
    assert fine / finest == pytest.approx(10, rel=0.1)
    assert finest < 1e-4 * limit


@pytest.mark.parametrize(("direction", "norm"), [("sign", 1), ("gradient", 2)])
@pytest.mark.parametrize("power", [1, 2])
def test_exact_is_the_norm_of_the_gradient(direction, norm, power):
    x, y = sample(9)
    expected = float(gradients(Smooth(), x, y).norm(norm, dim=1).pow(power).mean())
    found = value(Smooth(), x, y, method="exact", direction=direction, power=power)
    assert found == pytest.approx(expected, rel=1e-12)


def test_it_has_the_closed_form_on_a_linear_model():
    weight = torch.tensor([[1.0, -2.0], [0.5, 1.0]], dtype=torch.float64)
    x, h = torch.tensor([[0.3, 0.6]], dtype=torch.float64), 0.1
    margin = (weight[0] - weight[1]) @ x[0]
    climb = h * float((weight[0] - weight[1]).abs().sum())
    expected = ((torch.sigmoid(margin + climb) - torch.sigmoid(margin)) / h) ** 2
    found = value(Linear(weight, torch.zeros(2, dtype=torch.float64)), x, torch.tensor([0]), h)
    assert found == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("settings", EVERY, ids=str)
def test_value_and_gradient_are_finite_for_huge_logits(sign, settings):
    weight = sign * 1e3 * torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
    model = Linear(weight, torch.zeros(3))
    found = term(model, torch.ones(3, 2), torch.arange(3), **settings)
    assert found.isfinite()
    for gradient in torch.autograd.grad(found, [*model.parameters()]):
        assert gradient.isfinite().all()


def test_the_gradient_to_the_parameters_is_that_of_finite_differences():
    x, y = sample()
    model = Smooth()
    found = torch.autograd.grad(term(model, x, y, 0.05), [*model.parameters()])
    assert all(g.abs().max() > 1e-4 for g in found)
    for parameter, gradient in zip(model.parameters(), found, strict=True):
        for position in range(parameter.numel()):
            values = []
            for change in (1e-6, -1e-6):
                with torch.no_grad():
                    parameter.view(-1)[position] += change
                values.append(loop(model, x, y, 0.05))
                with torch.no_grad():
                    parameter.view(-1)[position] -= change
            numeric = (values[0] - values[1]) / 2e-6
            assert float(gradient.view(-1)[position]) == pytest.approx(numeric, rel=1e-5, abs=1e-7)


def test_no_gradient_flows_through_the_direction():
    """With the direction as a constant the gradient is the same, and the second input has no graph."""
    x, y = sample()
    model, seen = Smooth(), []
    model.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    found = torch.autograd.grad(term(model, x, y), [*model.parameters()])
    here, there = seen
    assert here.requires_grad
    assert not there.requires_grad
    assert torch.allclose((there - x).abs(), torch.tensor(0.01, dtype=torch.float64))
    logits = model(x)
    other = runner_up(logits, y)
    constant = ((true_against(other, model(there), y) - true_against(other, logits, y)) / 0.01).square().mean()
    for gradient, expected in zip(found, torch.autograd.grad(constant, [*model.parameters()]), strict=True):
        torch.testing.assert_close(gradient, expected)


def test_both_passes_use_the_runner_up_of_the_first():
    """The step changes the order of the other classes; the definition keeps the first."""
    weight = torch.tensor([[0.0, 0.0], [0.0, 1.0], [10.0, -10.0]], dtype=torch.float64)
    model = Linear(weight, torch.tensor([0.0, 0.0, -0.09], dtype=torch.float64))
    x, y, h = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0]), 0.1
    there = torch.tensor([[0.0, -0.1]], dtype=torch.float64)  # against class 1, down the second input
    assert runner_up(model(x), y).item() == 1
    assert runner_up(model(there), y).item() == 2
    expected = ((1 / (1 + math.exp(-0.1)) - 0.5) / h) ** 2
    assert value(model, x, y, h) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("settings", EVERY, ids=str)
def test_without_a_gradient_the_term_and_its_own_gradient_are_zero(settings):
    """Also beside a sample that has one, which is not disturbed."""
    weight, x = torch.tensor([[100.0, 1.0], [0.0, 0.0]]), torch.tensor([[5.0, 0.0], [0.0, 0.0]])
    model, y = Linear(weight, torch.zeros(2)), torch.tensor([0, 0])  # probabilities 1 (in float32) and 0.5
    none = term(model, x[:1], y[:1], **settings)
    assert none == 0
    assert not torch.autograd.grad(none, model.weight)[0].any()
    both, alone = term(model, x, y, **settings), term(model, x[1:], y[1:], **settings)
    assert 2 * both.item() == pytest.approx(alone.item(), rel=1e-6)
    assert torch.autograd.grad(both, model.weight)[0].isfinite().all()


@pytest.mark.parametrize("settings", EVERY, ids=str)
def test_one_sample_and_two_classes_are_enough(settings):
    model = Linear(torch.tensor([[1.0, 2.0], [0.5, -1.0]]), torch.zeros(2))
    assert value(model, torch.full((1, 2), 0.3), torch.tensor([1]), **settings) > 0


def test_a_direction_of_tiny_gradients_has_length_one():
    gradient = torch.tensor([[3e-30, -4e-30], [0.0, 0.0], [3e20, 4e20]])
    expected = torch.tensor([[0.6, -0.8], [0.0, 0.0], [0.6, 0.8]])
    torch.testing.assert_close(steepest(gradient, 2), expected)
    assert steepest(gradient.view(3, 1, 2), 1).tolist() == [[[1, -1]], [[0, 0]], [[1, 1]]]


def test_no_gradient_is_written():
    x, y = sample()
    model = Smooth()
    for settings in EVERY:
        here = x.clone().requires_grad_()
        GradientSparsity(**settings)(model, Pass(x, here, y, torch.arange(len(y)), model(here)))
        assert here.grad is None
        assert all(parameter.grad is None for parameter in model.parameters())
