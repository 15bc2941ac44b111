"""Latency, phase and frequency codes: against hand-computed values and SpikingJelly's encoders."""

import copy
import math
import pickle
from itertools import pairwise

import pytest
import torch
from spikingjelly.activation_based import encoding
from torch import Tensor

from snnrobust.attacks.encoded import code_bounds
from snnrobust.config import compose
from snnrobust.schema import ConfigError
from snnrobust.spiking.classifier import Normalize, SpikingClassifier
from snnrobust.spiking.encoder import Direct, Encoder, Poisson
from snnrobust.spiking.encoders.frequency import Frequency
from snnrobust.spiking.encoders.latency import Latency
from snnrobust.spiking.encoders.phase import Phase
from snnrobust.threat import Bounds

LEVELS = torch.arange(256) / 255
DETERMINISTIC = [Direct(5), Latency(5), Phase(10), Phase(10, weighted=True), Frequency(5), Frequency(5, "symmetric")]


def pixels(values: list[float]) -> Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def gradient_of(encoder: Encoder, x: Tensor, weight: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad((encoder(x) * weight).sum(), x)[0]


@pytest.mark.parametrize("encoder", DETERMINISTIC, ids=repr)
def test_codes_belong_to_their_samples_and_have_gradients(encoder):
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    code = encoder(x)
    assert code.shape == (encoder.steps, 4, 3, 8, 8)
    assert code.dtype == x.dtype
    weight = torch.randn(code.shape, generator=torch.Generator().manual_seed(1))
    gradient = gradient_of(encoder, x, weight)
    assert (gradient != 0).float().mean() > 0.99
    for k in range(4):
        torch.testing.assert_close(encoder(x[k : k + 1]), code[:, k : k + 1], atol=1e-6, rtol=0)
        alone = gradient_of(encoder, x[k : k + 1], weight[:, k : k + 1])
        torch.testing.assert_close(alone, gradient[k : k + 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("encoder", [*DETERMINISTIC[1:], Poisson(3)], ids=repr)
def test_entries_of_raw_codes_lie_within_the_bounds_that_attacks_on_codes_keep(encoder):
    model = SpikingClassifier(torch.nn.Identity(), encoder, Normalize((0.5,), (0.5,)), Bounds())
    hard = torch.stack([LEVELS[:64].view(1, 8, 8), torch.rand(1, 8, 8).round(), torch.ones(1, 8, 8)])
    code = encoder(hard).transpose(0, 1)
    bounds = code_bounds(model, code)
    assert bounds.low == 0
    assert bounds.low <= code.min()
    assert code.max() <= bounds.high + 1e-6
    assert encoder.raw


# --- latency


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 10])
def test_latency_is_that_of_spikingjelly(steps):
    x = torch.cat([LEVELS, torch.rand(200)]).view(1, 1, 1, -1)
    assert torch.equal(Latency(steps)(x), encoding.LatencyEncoder(steps, "linear").single_step_encode(x))


def test_the_brightest_pixel_fires_first_and_the_darkest_last():
    code = Latency(5)(pixels([1.0, 0.8, 0.5, 0.13, 0.12, 0.0]))
    assert code.argmax(0).flatten().tolist() == [0, 1, 2, 3, 4, 4]
    assert torch.equal(code.sum(0), torch.ones(1, 1, 1, 6))


def test_the_gradient_of_latency_is_that_of_a_spike_between_two_steps():
    # T = 5: times 4(1 - x) = 0.8, 2.4, 4 and 0; steps have weights 1, 10, 100, 1000, 10000
    weight = torch.tensor([1.0, 10, 100, 1000, 10000]).view(5, 1, 1, 1, 1)
    found = gradient_of(Latency(5), pixels([0.8, 0.4, 0.0, 1.0]), weight)
    expected = [4 * (1 - 10), 4 * (100 - 1000), 4 * (1000 - 10000), 4 * (1 - 10)]
    assert found.flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("steps", [2, 5, 8])
def test_the_time_of_a_latency_code_has_its_true_slope(steps):
    times = torch.arange(steps, dtype=torch.float32).view(-1, 1, 1, 1, 1)
    slope = gradient_of(Latency(steps), LEVELS.view(1, 1, 1, -1), times)
    torch.testing.assert_close(slope, torch.full_like(slope, -(steps - 1.0)))


# --- phase


def test_phase_of_eight_steps_is_that_of_spikingjelly():
    # SpikingJelly takes the grey level over 256
    reference = encoding.WeightedPhaseEncoder(8).single_step_encode(torch.arange(256) / 256)
    x = LEVELS.view(1, 1, 1, -1)
    assert torch.equal(Phase(8)(x).flatten(1), reference)
    weights = 2.0 ** -torch.arange(1.0, 9).view(-1, 1)
    assert torch.equal(Phase(8, weighted=True)(x).flatten(1), reference * weights)


def test_ten_steps_show_the_two_highest_bits_again():
    # 178 = 0b10110010
    code = Phase(10)(pixels([178 / 255])).flatten().tolist()
    assert code == [1, 0, 1, 1, 0, 0, 1, 0, 1, 0]
    assert torch.equal(Phase(3)(pixels([178 / 255])).flatten(), torch.tensor([1.0, 0, 1]))


def test_weighted_bits_add_up_to_the_grey_level():
    total = Phase(8, weighted=True)(LEVELS.view(1, 1, 1, -1)).sum(0).flatten()
    assert torch.equal(total, torch.arange(256) / 256)


def test_every_bit_passes_the_gradient_with_its_weight():
    each = torch.tensor([1.0, 10, 100, 1000]).view(4, 1, 1, 1, 1)
    assert float(gradient_of(Phase(4), pixels([0.3]), each)) == 1111
    assert float(gradient_of(Phase(4, weighted=True), pixels([0.3]), each)) == 0.5 + 2.5 + 12.5 + 62.5


def test_the_weighted_sum_of_the_bits_has_its_true_slope():
    weights = 2.0 ** -torch.arange(1.0, 9).view(-1, 1, 1, 1, 1)
    assert float(gradient_of(Phase(8), pixels([0.7]), weights)) == pytest.approx(255 / 256)


# --- frequency


def low_pass(image: Tensor, half: float, both_ends: bool) -> Tensor:
    """`[H, W]`, complex, by the definition of the discrete Fourier transform, frequency by frequency."""
    height, width = image.shape
    found = torch.zeros(height, width, dtype=torch.complex128)
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    for u in range(-(height // 2), height - height // 2):
        for v in range(-(width // 2), width - width // 2):
            if all(-half <= f < half or (both_ends and f == half) for f in (u, v)):
                wave = torch.exp(2j * math.pi * (u * y / height + v * x / width))
                found += (image * wave.conj()).sum() * wave / (height * width)
    return found


@pytest.mark.parametrize("mask", ["published", "symmetric"])
@pytest.mark.parametrize("steps", [4, 8])
def test_frequency_is_the_absolute_value_of_the_filtered_image(mask, steps):
    image = torch.rand(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    code = Frequency(steps, mask)(image.view(1, 1, 8, 8))
    for t in range(steps):
        filtered = low_pass(image, 4 - t / 2, both_ends=mask == "symmetric")
        torch.testing.assert_close(code[t, 0, 0], filtered.abs())
    assert filtered.imag.abs().max() < 1e-9 or mask == "published"


@pytest.mark.parametrize(
    ("steps", "halves"), [(8, [16, 14, 12, 10, 8, 6, 4, 2]), (4, [16, 14, 12, 10]), (16, [16, 15, 14])]
)
def test_the_published_half_widths_are_those_on_32_by_32(steps, halves):
    masks = Frequency(steps).masks((32, 32))
    for mask, half in zip(masks, halves, strict=False):
        assert torch.fft.fftshift(mask).nonzero().tolist() == [
            [i, j] for i in range(16 - half, 16 + half) for j in range(16 - half, 16 + half)
        ]
    assert all(wider.sum() > narrower.sum() for wider, narrower in pairwise(masks))


@pytest.mark.parametrize("mask", ["published", "symmetric"])
@pytest.mark.parametrize("size", [(32, 32), (28, 28), (7, 9)])
def test_the_first_step_is_the_image_and_the_gradient_of_a_black_pixel_has_no_random_sign(mask, size):
    x = torch.rand(2, 1, *size)
    x[..., : size[1] // 2] = 0
    assert torch.equal(Frequency(3, mask)(x)[0], x)
    only = torch.zeros(3, 1, 1, 1, 1)
    only[0] = 1
    assert torch.equal(gradient_of(Frequency(3, mask), x, only), torch.ones_like(x))
    assert Frequency(3, mask).masks(size)[:, 0, 0].all()  # the mean stays


def test_the_gradient_of_frequency_is_exact():
    x = torch.rand(2, 1, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(Frequency(4), x)


def test_masks_of_frequency_are_made_once(monkeypatch):
    x = torch.rand(2, 1, 6, 10)
    with torch.inference_mode():  # what was made here must serve gradients as well
        before = Frequency(3)(x)
    monkeypatch.setattr(torch.fft, "fftfreq", lambda *_: pytest.fail("masks were made again"))
    other = pickle.loads(pickle.dumps(copy.deepcopy(Frequency(3))))
    assert torch.equal(other(x), before)
    assert gradient_of(other, x, torch.ones(3, 1, 1, 1, 1)).isfinite().all()
    Frequency(3).masks((6, 10)).fill_(False)
    assert torch.equal(other(x), before)


# --- together with the rest


@pytest.mark.parametrize(("encoder", "said"), [("latency", "which pixels"), ("phase", "which bits")])
def test_a_finite_difference_across_the_rounding_of_a_code_is_refused(encoder, said):
    assert compose("config", [f"encoder={encoder}"]).choices["regularizer"] == "none"
    with pytest.raises(
        ConfigError, match=f"would measure {said} .* allowed: regularizer=none, which encoder={encoder}"
    ):
        compose("config", [f"encoder={encoder}", "regularizer=gradient_sparsity"])
    compose("config", [f"encoder={encoder}", "regularizer=gradient_sparsity", "regularizer.weight=0"])


def test_frequency_may_be_trained_with_a_finite_difference():
    assert compose("config", ["encoder=frequency"]).choices["regularizer"] == "gradient_sparsity"
