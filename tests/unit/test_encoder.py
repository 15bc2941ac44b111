"""Input codes."""

import pytest
import torch

from snnrobust.spiking.encoder import Direct, Frames, Poisson


def test_direct_repeats_the_image():
    x = torch.rand(3, 1, 4, 4)
    sequence = Direct(5)(x)
    assert sequence.shape == (5, 3, 1, 4, 4)
    assert all(torch.equal(step, x) for step in sequence)


@pytest.mark.parametrize("encoder", [Direct(6), Poisson(6)])
def test_the_gradient_is_summed_over_the_steps(encoder):
    x = torch.rand(2, 1, 3, 3).requires_grad_()
    assert torch.equal(torch.autograd.grad(encoder(x).sum(), x)[0], torch.full_like(x, 6))
    weight = torch.rand(6, 2, 1, 3, 3)
    gradient = torch.autograd.grad((encoder(x) * weight).sum(), x)[0]
    torch.testing.assert_close(gradient, weight.sum(0))


def test_poisson_gives_spikes_with_the_pixel_as_rate():
    x = torch.linspace(0, 1, 11).view(1, 1, 1, 11)
    torch.manual_seed(0)
    draws = 20_000
    spikes = Poisson(draws)(x)
    assert spikes.shape == (draws, 1, 1, 1, 11)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    deviation = (x * (1 - x) / draws).sqrt()
    assert ((spikes.mean(0) - x).abs() <= 4.5 * deviation).all()


def test_poisson_is_silent_at_zero_and_always_fires_at_one():
    spikes = Poisson(5000)(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2))
    assert spikes[..., 0].sum() == 0
    assert spikes[..., 1].mean() == 1


def test_poisson_draws_anew_at_every_step_pixel_and_call():
    torch.manual_seed(0)
    encoder, x = Poisson(2000), torch.full((2, 1, 1, 2), 0.5)
    first, second = encoder(x).flatten(1), encoder(x).flatten(1)
    assert not torch.equal(first, second)
    columns = torch.cat([first, second, first.roll(1, 0)], 1)
    correlation = torch.corrcoef(columns.T) - torch.eye(columns.shape[1])
    assert correlation.abs().max() < 5 / 2000**0.5


def test_poisson_repeats_itself_under_the_same_seed():
    encoder, x = Poisson(8), torch.rand(3, 1, 4, 4)
    found = []
    for _ in range(2):
        torch.manual_seed(4)
        found.append(encoder(x))
    assert torch.equal(*found)


def test_frames_become_time_major():
    x = torch.rand(3, 5, 2, 4, 4).requires_grad_()
    sequence = Frames(5)(x)
    assert torch.equal(sequence[4], x[:, 4])
    assert torch.equal(torch.autograd.grad(sequence.sum(), x)[0], torch.ones_like(x))


@pytest.mark.parametrize("shape", [(3, 4, 2, 4, 4), (3, 2, 4, 4)])
def test_frames_of_another_number_are_refused(shape):
    with pytest.raises(ValueError, match=r"event frames \[B, 5, C, H, W\] expected"):
        Frames(5)(torch.rand(shape))


def test_only_poisson_draws_and_it_sees_raw_inputs():
    assert [(e.raw, e.stochastic) for e in (Direct(1), Poisson(1), Frames(1))] == [
        (False, False),
        (True, True),
        (False, False),
    ]
