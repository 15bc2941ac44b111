"""Normalisation, code and read-out in the right order."""

import pytest
import torch
from torch import Tensor, nn

from snnrobust.spiking.classifier import Normalize, SpikingClassifier
from snnrobust.spiking.encoder import Direct, Poisson
from snnrobust.spiking.encoders.frequency import Frequency
from snnrobust.threat import Bounds


class Recorder(nn.Module):
    """A backbone that keeps its input and numbers its steps."""

    def forward(self, sequence: Tensor) -> Tensor:
        self.seen = sequence
        steps, batch = sequence.shape[:2]
        return torch.arange(steps, dtype=torch.float32).view(-1, 1, 1).expand(steps, batch, 3)


def recorded(encoder) -> tuple[SpikingClassifier, Recorder]:
    backbone = Recorder()
    return SpikingClassifier(backbone, encoder, Normalize((0.25, 0.5), (0.5, 0.25)), Bounds()), backbone


def test_normalisation_is_per_channel():
    x = torch.tensor([[0.75, 0.25], [0.75, 0.5]]).view(1, 2, 1, 2)
    expected = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).view(1, 2, 1, 2)
    normalize = Normalize((0.25, 0.5), (0.5, 0.25))
    assert torch.equal(normalize(x), expected)
    assert torch.equal(normalize(x.unsqueeze(1).expand(1, 5, 2, 1, 2))[:, 3], expected)


def test_a_code_sees_normalised_inputs():
    classifier, backbone = recorded(Direct(3))
    x = torch.rand(2, 2, 4, 4)
    classifier(x)
    assert torch.equal(backbone.seen[1], classifier.normalize(x))


def test_a_raw_code_sees_raw_inputs():
    torch.manual_seed(0)
    classifier, backbone = recorded(Poisson(500))
    classifier(torch.full((2, 2, 4, 4), 0.25))
    assert float(backbone.seen.mean()) == pytest.approx(0.25, abs=0.02)
    x = torch.rand(2, 2, 4, 4)
    classifier, backbone = recorded(Frequency(3))
    classifier(x)
    assert torch.equal(backbone.seen[0], x)


def test_logits_are_the_mean_over_time():
    classifier, _ = recorded(Direct(4))
    assert torch.equal(classifier(torch.rand(2, 2, 4, 4)), torch.full((2, 3), 1.5))


def test_it_is_stochastic_if_its_code_is():
    assert not recorded(Direct(3))[0].stochastic
    assert recorded(Poisson(3))[0].stochastic


def test_normalisation_is_kept_in_the_state():
    state = recorded(Direct(3))[0].state_dict()
    assert {"normalize.mean", "normalize.std"} <= state.keys()
