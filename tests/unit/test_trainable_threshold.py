"""The gradient of a learned threshold by the compiled kernels, against autograd through the dynamics as written."""

from itertools import product

import pytest
import torch
from torch import nn

from snnrobust.spiking import kernels
from snnrobust.spiking.neurons.trainable_threshold import TrainableThreshold
from snnrobust.spiking.pooled import Chain
from snnrobust.spiking.surrogate import atan, triangle

LEAKS = [(None, False), (2.0, False), (2.0, True), (3.7, False), (3.7, True)]
KINDS = [(*leak, *reset) for leak, reset in product(LEAKS, product([False, True], ["hard", "soft"]))]


def made(tau, decay, detach, reset, threshold=0.6, surrogate=triangle):
    return TrainableThreshold(surrogate(), threshold, 0.03, tau, decay, detach, reset)


def gradients(layer, current, weight, threshold=None):
    """Of a weighted sum of spikes, to the current and to the threshold."""
    current = current.detach().clone().requires_grad_()
    spikes = layer(current if current.shape[0] > 1 else current.expand(len(weight), *current.shape[1:]))
    (spikes * weight).sum().backward()
    return spikes.detach(), current.grad, layer.threshold.grad


def expected(layer, current, weight):
    """In double precision, by autograd, through `Dynamics.run`."""
    double = made(layer.tau, layer.decay_input, layer.detach_reset, layer.reset).double()
    double.surrogate = layer.surrogate
    double.threshold.data.fill_(float(layer.threshold.detach()))
    current = current.detach().double().requires_grad_()
    sequence = current if len(current) > 1 else current.expand(len(weight), *current.shape[1:])
    spikes = double.dynamics.run(sequence, len(sequence), double.surrogate.spike)[1]
    (spikes * weight.double()).sum().backward()
    return spikes.detach(), current.grad, double.threshold.grad


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("tau", "decay", "detach", "reset"), KINDS)
@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("surrogate", [triangle, atan])
def test_gradients_are_those_of_the_dynamics(tau, decay, detach, reset, steps, constant, surrogate):
    layer = made(tau, decay, detach, reset, surrogate=surrogate)
    current = draws(1 if constant else steps, 40, 9).abs()
    weight = draws(steps, 40, 9, seed=1)
    spikes, current_grad, threshold_grad = gradients(layer, current, weight)
    other = expected(layer, current, weight)
    assert torch.equal(spikes.double(), other[0])
    torch.testing.assert_close(current_grad.double(), other[1], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(threshold_grad.double(), other[2], atol=2e-4, rtol=1e-4)


def test_by_hand():
    """Two steps, IF, hard reset attached: u = 0.5, 1.1; s = 0, 1; g = 0.5, 0.9 under the triangle of half-width 1."""
    layer = made(None, False, False, "hard", threshold=1.0)
    spikes, _, grad = gradients(layer, torch.tensor([[[0.5]], [[0.6]]]), torch.tensor([[[2.0]], [[3.0]]]))
    assert spikes.flatten().tolist() == [0, 1]
    # du_2 = 3 * 0.9; ds_1 = 2 - dv_1 u_1 with dv_1 = du_2; the gradient is -(ds_1 g_1 + ds_2 g_2)
    assert float(grad) == pytest.approx(-((2 - 2.7 * 0.5) * 0.5 + 2.7), rel=1e-6)


def test_the_compiled_kernels_are_what_trains(monkeypatch):
    layer = made(None, False, False, "hard")
    used: list[int] = []
    kernel = kernels.through_time

    def counting(*arguments):
        used.append(1)
        return kernel(*arguments)

    monkeypatch.setattr(kernels, "through_time", counting)
    gradients(layer, draws(4, 3, 5), draws(4, 3, 5, seed=1))
    assert used == [1]


def test_pooling_behind_the_layer_changes_nothing():
    layer, current, weight = made(None, False, False, "hard"), draws(5, 2, 3, 4, 6), draws(5, 2, 3, 2, 3, seed=1)
    plain = (nn.functional.avg_pool2d(layer(current).flatten(0, 1), 2).unflatten(0, (5, 2)) * weight).sum()
    (separate,) = torch.autograd.grad(plain, [layer.threshold])
    joined = (Chain(layer, nn.AvgPool2d(2))(current) * weight).sum()
    (together,) = torch.autograd.grad(joined, [layer.threshold])
    torch.testing.assert_close(together, separate, rtol=1e-4, atol=1e-5)


def test_a_threshold_below_the_minimum_gets_the_gradient_there():
    low, at = made(None, False, False, "hard"), made(None, False, False, "hard")
    low.threshold.data.fill_(-0.2)
    at.threshold.data.fill_(0.03)
    current, weight = draws(4, 30, 5), draws(4, 30, 5, seed=1)
    for one, other in zip(gradients(low, current, weight), gradients(at, current, weight), strict=True):
        torch.testing.assert_close(one, other)


def test_a_frozen_threshold_has_no_gradient():
    layer = made(None, False, False, "hard").requires_grad_(False)
    assert gradients(layer, draws(4, 3, 5), draws(4, 3, 5, seed=1))[2] is None
