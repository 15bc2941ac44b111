"""Norms of the input gradient: of cross-entropy and of probabilities, exact and by a finite difference."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnrobust.regularizers.base import Pass
from snnrobust.regularizers.gradient_l1 import GradientL1
from snnrobust.regularizers.gradient_l2 import GradientL2
from snnrobust.regularizers.gradient_sparsity import GradientSparsity
from snnrobust.regularizers.input_gradient import InputGradient, kept_statistics
from snnrobust.spiking.neuron import IF
from snnrobust.spiking.recording import recorded
from snnrobust.spiking.surrogate import Surrogate, atan, rectangle, sigmoid, triangle
from snnrobust.threat import Bounds
from tests.contracts.toys import Linear, state_of
from tests.unit.test_gradient_sparsity import Smooth, sample

PENALTIES: list[tuple[type[GradientL1 | GradientL2], int]] = [(GradientL1, 1), (GradientL2, 2)]
"""Each takes the norm of that number, to that power."""
of_both = pytest.mark.parametrize(("penalty", "number"), PENALTIES)
of_all = pytest.mark.parametrize("of", ["cross_entropy", "probability"])


def term(regularizer: InputGradient, model: Any, x: Tensor, y: Tensor) -> Tensor:
    here = x.detach().clone().requires_grad_()
    with recorded(model) as layers:
        logits = model(here)
    return regularizer(model, Pass(x, here, y, torch.arange(len(y)), logits, tuple(layers)))


def loss(of: str, logits: list[float], label: int) -> float:
    """By the definitions."""
    exponentials = [math.exp(z - max(logits)) for z in logits]
    probability = exponentials[label] / sum(exponentials)
    return probability if of == "probability" else -math.log(probability)


def gradients(model: nn.Module, x: Tensor, y: Tensor, of: str) -> Tensor:
    """`[B, D]`, from the whole Jacobian of the logits and the derivatives of softmax by hand."""
    with recorded(model):
        logits = model(x).detach()
        jacobian = torch.autograd.functional.jacobian(model, x)  # [B, K, B, ...]
    softmax, rows = logits.exp() / logits.exp().sum(1, keepdim=True), []
    for i, label in enumerate(y.tolist()):
        true = torch.eye(logits.shape[1], dtype=logits.dtype)[label]
        slope = softmax[i] - true if of == "cross_entropy" else softmax[i, label] * (true - softmax[i])
        rows.append(slope @ jacobian[i, :, i].flatten(1))
    return torch.stack(rows)


def brute_force(model: nn.Module, x: Tensor, y: Tensor, of: str, number: int) -> float:
    return float(gradients(model, x, y, of).norm(number, dim=1).pow(number).mean())


@of_both
@of_all
def test_exact_is_the_norm_of_the_gradient_of_a_smooth_model(penalty, number, of):
    x, y = sample(9)
    expected = brute_force(Smooth(), x, y, of, number)
    assert expected > 0.01
    assert term(penalty(of=of), Smooth(), x, y).item() == pytest.approx(expected, rel=1e-12)


@of_both
@of_all
def test_exact_is_the_norm_of_the_surrogate_gradient_of_a_spiking_one(classifier, images, penalty, number, of):
    model, x, y = classifier.double(), images[0].double(), images[1]
    expected = brute_force(model, x, y, of, number)
    assert expected > 0.01
    assert term(penalty(of=of), model, x, y).item() == pytest.approx(expected, rel=1e-6)


@of_both
@of_all
def test_a_finite_difference_tends_to_it_at_first_order(penalty, number, of):
    x, y = sample()
    limit = brute_force(Smooth(), x, y, of, number)
    errors = [
        abs(term(penalty(of=of, method="finite_difference", step=h), Smooth(), x, y).item() - limit)
        for h in (1e-3, 1e-4, 1e-5)
    ]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.1)
    assert errors[2] < 1e-4 * limit


@of_both
@of_all
@pytest.mark.parametrize("step", [0.01, 0.3])
def test_a_finite_difference_equals_the_loop_over_samples(classifier, images, penalty, number, of, step):
    model, x, y = classifier.double(), images[0].double(), images[1]
    total = 0.0
    for i, label in enumerate(y.tolist()):
        slope = gradients(model, x[i : i + 1], y[i : i + 1], of).view_as(x[i : i + 1])
        there = x[i : i + 1] + step * (slope.sign() if number == 1 else slope / slope.norm())
        change = loss(of, model(there)[0].tolist(), label) - loss(of, model(x[i : i + 1])[0].tolist(), label)
        total += abs(change / step) ** number
    assert total > 0 or step == 0.01
    found = term(penalty(of=of, method="finite_difference", step=step), model, x, y).item()
    assert found == pytest.approx(total / len(x), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    "regularizer",
    [
        *(penalty(of=of) for (penalty, _), of in product(PENALTIES, ("cross_entropy", "probability"))),  # type: ignore[arg-type]
        *(GradientSparsity(method="exact", direction=d, power=p) for d, p in product(("sign", "gradient"), (1, 2))),  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_the_gradient_of_an_exact_norm_is_that_of_finite_differences_of_the_weights(regularizer):
    x, y = sample()
    model = Smooth()
    found = torch.autograd.grad(term(regularizer, model, x, y), [*model.parameters()])
    assert all(gradient.abs().max() > 1e-3 for gradient in found)
    for parameter, gradient in zip(model.parameters(), found, strict=True):
        flat = parameter.data.view(-1)  # shares memory
        for position in range(len(flat)):
            values = []
            for change in (1e-6, -2e-6, 1e-6):
                flat[position] += change
                values.append(term(regularizer, model, x, y).item())
            assert gradient.view(-1)[position].item() == pytest.approx(
                (values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-7
            )


class One(nn.Module):
    """One neuron, one step: logits `[scale s, 0]` with the spike `s` of `weight x`."""

    bounds = Bounds()
    stochastic = False

    def __init__(self, surrogate: Surrogate) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))
        self.neuron = IF(surrogate)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.neuron((self.weight * x).unsqueeze(0))[0]
        return torch.cat([2 * spikes, 0 * spikes], 1)


@pytest.mark.parametrize("x", [0.5, 0.8])  # below the threshold, and above
@pytest.mark.parametrize(
    ("surrogate", "shape", "bend"),
    [
        (triangle(), lambda q: 1 - abs(q), lambda q: -math.copysign(1, q)),
        (rectangle(), lambda q: 1.0, lambda q: 0.0),
        (
            atan(),
            lambda q: 1 / (1 + (math.pi * q) ** 2),
            lambda q: -2 * math.pi**2 * q / (1 + (math.pi * q) ** 2) ** 2,
        ),
    ],
    ids=["triangle", "rectangle", "atan"],
)
def test_the_surrogate_has_its_own_derivative(x, surrogate, shape, bend):
    """`df/dx = p (1 - p) a g(q) w`, and its derivative with respect to `w`, by hand: `dp/dw = p (1 - p) a g x`."""
    model, a, w = One(surrogate), 2.0, 1.5
    q = w * x - 1
    p = 1 / (1 + math.exp(-a * (q >= 0)))
    g, inner = shape(q), p * (1 - p)
    found = term(GradientL1(of="probability"), model, torch.tensor([[x]], dtype=torch.float64), torch.tensor([0]))
    assert found.item() == pytest.approx(inner * a * g * w, rel=1e-12)
    expected = a * ((1 - 2 * p) * inner * a * g * x * g * w + inner * (bend(q) * x * w + g))
    (slope,) = torch.autograd.grad(found, [model.weight])
    assert slope.item() == pytest.approx(expected, rel=1e-12)


EVERY = [penalty(of=of, method=m) for (penalty, _), of, m in product(  # type: ignore[arg-type]
    PENALTIES, ("cross_entropy", "probability"), ("exact", "finite_difference")
)]  # fmt: skip


@pytest.mark.parametrize("regularizer", EVERY, ids=str)
@pytest.mark.parametrize("sign", [-1, 1])
def test_value_and_gradient_are_finite_for_huge_logits(regularizer, sign):
    model = Linear(sign * 1e3 * torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.0, 1.0]]), torch.zeros(3))
    found = term(regularizer, model, torch.ones(3, 2), torch.arange(3))
    assert found.isfinite()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(found, [*model.parameters()]))


@pytest.mark.parametrize("regularizer", EVERY, ids=str)
def test_without_a_gradient_the_term_and_its_own_gradient_are_zero(regularizer):
    model = Linear(torch.tensor([[1.0, 2.0], [0.5, -1.0]]), torch.tensor([500.0, 0.0]))
    found = term(regularizer, model, torch.full((1, 2), 0.3), torch.tensor([0]))
    assert found.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(found, [*model.parameters()]))


def test_probabilities_of_two_classes_are_those_of_gradient_sparsity():
    x, y = sample()
    model = Smooth()
    model.second.data = model.second.data[:2].clone()
    y = y.clamp(max=1)
    for direction, penalty, power in (("sign", GradientL1, 1), ("gradient", GradientL2, 2)):
        own = GradientSparsity(method="exact", direction=direction, power=power)  # type: ignore[arg-type]
        same = term(penalty(of="probability"), model, x, y)
        assert same.item() == pytest.approx(term(own, model, x, y).item(), rel=1e-12)


# --- batch norm


@pytest.mark.parametrize("penalty", [GradientL1, GradientL2, GradientSparsity])
def test_the_second_pass_updates_statistics_or_keeps_them(make_tiny, images, penalty):
    norms = []
    for statistics in ("update", "keep"):
        model = make_tiny().train()
        regularizer = penalty(method="finite_difference", statistics=statistics, step=0.3)
        before = model.backbone.features[1].running_mean.clone()
        value = term(regularizer, model, *images)
        norm = model.backbone.features[1]
        assert norm.track_running_stats
        assert not torch.equal(norm.running_mean, before)
        norms.append((int(norm.num_batches_tracked), norm.running_mean.clone(), value.item()))
    assert norms[0][0] == norms[1][0] + 1
    assert not torch.equal(norms[0][1], norms[1][1])
    assert norms[0][2] == norms[1][2] > 0  # the batch is normalised with its own statistics either way
    once = make_tiny().train()
    once(images[0])
    assert torch.equal(once.backbone.features[1].running_mean, norms[1][1])


def test_statistics_are_tracked_again_after_an_error(classifier):
    with pytest.raises(RuntimeError), kept_statistics(classifier.train()):
        raise RuntimeError
    assert classifier.backbone.features[1].track_running_stats


def test_in_eval_mode_keeping_statistics_changes_nothing(classifier, images):
    before, expected = state_of(classifier), classifier(images[0])
    with kept_statistics(classifier):
        assert torch.equal(classifier(images[0]), expected)
    assert all(
        torch.equal(a, b)
        for a, b in zip(before.values(), state_of(classifier).values(), strict=True)
        if isinstance(a, Tensor)
    )


@pytest.mark.parametrize("surrogate", [triangle(), sigmoid()], ids=["triangle", "sigmoid"])
def test_a_pass_that_is_not_recorded_cannot_be_differentiated_twice(surrogate, images):
    """Rather than a wrong gradient without a word."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), _Once(IF(surrogate)), nn.Linear(8, 4))
    x = images[0].clone().requires_grad_()
    at = Pass(images[0], x, images[1], torch.arange(12), model(x))
    with pytest.raises(RuntimeError, match="once_differentiable"):
        GradientL1()(model, at).backward()  # type: ignore[arg-type]


class _Once(nn.Module):
    def __init__(self, neuron: IF) -> None:
        super().__init__()
        self.neuron = neuron

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.neuron(3 * x.unsqueeze(0))[0]
        return spikes
