"""One thread for every test, and a tiny spiking classifier."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import signal
from collections.abc import Callable
from functools import partial

import pytest
import torch

from snnrobust.models.convnet import ConvNet
from snnrobust.randomness import isolated
from snnrobust.spiking.classifier import Normalize, SpikingClassifier
from snnrobust.spiking.encoder import Direct, Encoder
from snnrobust.spiking.neuron import LIF
from snnrobust.spiking.surrogate import triangle
from snnrobust.threat import Bounds

torch.set_num_threads(1)
# Started in the background, Ctrl-C is ignored here and in all processes that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

STEPS, CLASSES = 3, 4


@pytest.fixture(autouse=True)
def one_thread():
    """Also after a test that built a config, which sets the number of threads."""
    torch.set_num_threads(1)


def tiny(encoder: Encoder | None = None, channels: int = 1, seed: int = 0) -> SpikingClassifier:
    """One block of 4 channels and 8 hidden neurons for 8x8 inputs and 4 classes, batch norm warmed up, in eval mode."""
    with isolated("tiny", seed):
        neuron = partial(LIF, surrogate=triangle())
        backbone = ConvNet((channels, 8, 8), CLASSES, neuron, channels=(4,), hidden=8)
        normalize = Normalize((0.5,) * channels, (0.3,) * channels)
        model = SpikingClassifier(backbone, encoder or Direct(STEPS), normalize, Bounds())
        steps = (model.encoder.steps,) if channels > 1 else ()
        with torch.no_grad():
            for _ in range(20):
                model(torch.rand(32, *steps, channels, 8, 8))
            hidden = backbone.classifier[1]
            assert isinstance(hidden, torch.nn.Linear)
            hidden.weight.mul_(8)  # makes the hidden layer fire
    return model.eval()


@pytest.fixture
def make_tiny() -> Callable[..., SpikingClassifier]:
    return tiny


@pytest.fixture
def classifier() -> SpikingClassifier:
    return tiny()


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor]:
    """Twelve random images `[12, 1, 8, 8]` in [0, 1] and labels below 4."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(12, 1, 8, 8, generator=generator)
    return x, torch.randint(CLASSES, (12,), generator=generator)
