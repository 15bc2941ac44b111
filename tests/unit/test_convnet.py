"""The convolutional network."""

from functools import partial

import pytest
import torch

from snnrobust.models.convnet import ConvNet
from snnrobust.spiking.neuron import IF, Neuron
from snnrobust.spiking.surrogate import triangle

NEURON = partial(IF, surrogate=triangle())


def test_the_parameters_are_those_counted_by_hand():
    # conv 1*16*9 + bn 32, conv 16*32*9 + bn 64, linear 32*2*2*64 + 64, read-out 64*10 + 10
    count = sum(p.numel() for p in ConvNet((1, 8, 8), 10, NEURON).parameters())
    assert count == 144 + 32 + 4608 + 64 + 8256 + 650


@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13)])
def test_logits_per_step_and_sample(pool, shape):
    model = ConvNet(shape, 7, NEURON, channels=(4, 6), hidden=5, pool=pool)
    assert model(torch.rand(3, 2, *shape)).shape == (3, 2, 7)


def test_there_is_a_neuron_per_block_and_a_hidden_one():
    neurons = [m for m in ConvNet((1, 8, 8), 10, NEURON, channels=(2, 2, 2)).modules() if isinstance(m, Neuron)]
    assert len(neurons) == 4
    assert len({id(n) for n in neurons}) == 4


def test_too_many_blocks_are_refused_with_the_number_allowed():
    with pytest.raises(ValueError, match=r"model\.channels: got 4 blocks, each halving 8x8; allowed: at most 3 blocks"):
        ConvNet((1, 8, 8), 10, NEURON, channels=(2, 2, 2, 2))


def test_as_many_blocks_as_fit_are_accepted():
    assert ConvNet((1, 8, 8), 10, NEURON, channels=(2, 2, 2))(torch.rand(2, 1, 1, 8, 8)).shape == (2, 1, 10)


def test_time_and_batch_are_not_mixed_in_eval_mode():
    torch.manual_seed(0)
    model = ConvNet((1, 8, 8), 3, NEURON, channels=(4,), hidden=8).double().eval()
    x = 4 * torch.rand(5, 4, 1, 8, 8, dtype=torch.float64)
    whole = model(x)
    torch.testing.assert_close(model(x[:, [2]]), whole[:, [2]], atol=1e-12, rtol=0)
    torch.testing.assert_close(model(x[:3]), whole[:3], atol=1e-12, rtol=0)  # the past does not see the future
