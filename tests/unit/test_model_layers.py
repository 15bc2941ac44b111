"""Layers without time: computed once where all steps are one and the same tensor."""

import copy

import pytest
import torch
from torch import Tensor, nn

from snnrobust.models.layers import BatchNorm2d, Conv2d, Linear
from snnrobust.spiking.classifier import Normalize, SpikingClassifier
from snnrobust.spiking.encoder import Direct, Poisson
from snnrobust.spiking.fuse import fused
from snnrobust.spiking.neuron import LIF
from snnrobust.spiking.surrogate import triangle
from snnrobust.threat import Bounds

STEPS, BATCH = 5, 3


def stem() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Conv2d(1, 2, 3, padding=1, bias=False), BatchNorm2d(2)).double()


def constant() -> Tensor:
    return torch.rand(BATCH, 1, 4, 4, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def test_a_constant_sequence_stays_constant_and_gives_what_its_copies_give():
    x = constant()
    once = stem()(x.expand(STEPS, *x.shape))
    repeated = stem()(x.expand(STEPS, *x.shape).contiguous())
    assert once.stride(0) == 0
    assert repeated.stride(0) > 0
    torch.testing.assert_close(once, repeated, atol=1e-12, rtol=0)


def test_gradients_are_summed_over_the_steps():
    weights = torch.rand(STEPS, BATCH, 2, 4, 4, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    found = []
    for written_out in (False, True):
        model, x = stem(), constant().requires_grad_()
        sequence = x.expand(STEPS, *x.shape)
        out = model(sequence.contiguous() if written_out else sequence)
        found.append(torch.autograd.grad((out * weights).sum(), [x, *model.parameters()]))
    for once, repeated in zip(*found, strict=True):
        torch.testing.assert_close(once, repeated, atol=1e-10, rtol=0)


def test_running_statistics_differ_by_the_correction_of_the_variance_alone():
    x, count = constant(), BATCH * 16
    once, repeated = stem(), stem()
    once(x.expand(STEPS, *x.shape))
    repeated(x.expand(STEPS, *x.shape).contiguous())
    torch.testing.assert_close(once[1].running_mean, repeated[1].running_mean, atol=1e-12, rtol=0)
    assert once[1].num_batches_tracked == repeated[1].num_batches_tracked == 1
    unbiased = [model.state_dict()["1.running_var"] - 0.9 for model in (once, repeated)]
    ratio = (count / (count - 1)) / (STEPS * count / (STEPS * count - 1))
    torch.testing.assert_close(unbiased[0], unbiased[1] * ratio, atol=1e-12, rtol=0)


def test_other_sequences_are_computed_at_every_step():
    model = Linear(3, 2)
    sequence = torch.rand(STEPS, BATCH, 3)
    torch.testing.assert_close(model(sequence), torch.stack([nn.Linear.forward(model, x) for x in sequence]))


@pytest.mark.parametrize(("encoder", "pictures"), [(Direct(5), BATCH), (Poisson(5), 5 * BATCH), (Direct(1), BATCH)])
@pytest.mark.parametrize("arranged", [False, True])
def test_the_stem_of_a_network_is_computed_once_if_all_steps_are_equal(monkeypatch, encoder, pictures, arranged):
    backbone = nn.Sequential(Conv2d(1, 2, 3), LIF(triangle()), Conv2d(2, 2, 3), nn.Flatten(2))
    model = SpikingClassifier(backbone, copy.deepcopy(encoder), Normalize((0.5,), (0.2,)), Bounds())
    network, forward = fused(model) if arranged else model, nn.Conv2d.forward
    seen: list[int] = []

    def counting(self: nn.Conv2d, x: Tensor) -> Tensor:
        seen.append(len(x))
        return forward(self, x)

    monkeypatch.setattr(nn.Conv2d, "forward", counting)
    with torch.no_grad():
        network(torch.rand(BATCH, 1, 8, 8))
    assert seen == [pictures, encoder.steps * BATCH]
