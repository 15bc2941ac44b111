"""Gradient measures on hand-worked vectors; input gradients and firing rates."""

import math

import pytest
import torch
from torch import Tensor

from snnrobust.data.dataset import Batch
from snnrobust.evaluation.measures import (
    GRADIENT_MEASURES,
    all_zero,
    firing_rates,
    gradient_measures,
    hoyer,
    input_gradient,
    l1,
    l2,
    sparsity,
    zero_fraction,
)
from snnrobust.spiking.neuron import Neuron
from tests.contracts.toys import Toy, assert_same, disturb, state_of, streams

VECTORS = {
    "zero": [0.0, 0.0, 0.0, 0.0],
    "single": [0.0, -2.0, 0.0, 0.0],
    "equal": [0.5, -0.5, 0.5, -0.5],
    "mixed": [3.0, 0.0, -4.0, 0.0],
}
EXPECTED: dict[str, dict[str, float]] = {
    "gradient_sparsity": {"zero": 1, "single": 0.75, "equal": 0, "mixed": 0.5},
    "gradient_zero_fraction": {"zero": 1, "single": 0.75, "equal": 0, "mixed": 0.5},
    "gradient_l1": {"zero": 0, "single": 2, "equal": 2, "mixed": 7},
    "gradient_l2": {"zero": 0, "single": 2, "equal": 1, "mixed": 5},
    "gradient_hoyer": {"zero": 1, "single": 1, "equal": 0, "mixed": (2 - 7 / 5) / (2 - 1)},
    "gradient_vanished": {"zero": 1, "single": 0, "equal": 0, "mixed": 0},
}


def batches(x: Tensor, y: Tensor, size: int) -> list[Batch]:
    return [Batch(x[i], y[i], i) for i in torch.arange(len(x)).split(size)]


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("shape", [(4,), (1, 2, 2)])
def test_measures_on_vectors_worked_by_hand(name, shape):
    g = torch.tensor([*VECTORS.values()], dtype=torch.float64).view(-1, *shape)
    expected = [EXPECTED[name][vector] for vector in VECTORS]
    assert GRADIENT_MEASURES[name](g).tolist() == pytest.approx(expected, abs=1e-7)


def test_every_measure_has_an_example():
    assert EXPECTED.keys() == GRADIENT_MEASURES.keys()


def test_an_entry_at_the_threshold_of_sparsity_is_small():
    largest = 8.0
    limit = 1e-3 * largest
    above = math.nextafter(limit, 1)
    g = torch.tensor([[largest, limit, 0.0, -limit], [largest, above, 0.0, -above]], dtype=torch.float64)
    assert sparsity(g).tolist() == [0.75, 0.25]


def test_sparsity_is_relative_to_the_largest_entry_of_the_sample():
    g = torch.tensor([[1.0, 0.5, 1e-4, 0.0]])
    assert sparsity(torch.cat([g, 1e-20 * g, -1e20 * g])).tolist() == [0.5, 0.5, 0.5]


def test_hoyer_lies_between_zero_and_one_and_ignores_the_scale():
    g = torch.randn(200, 64, generator=torch.Generator().manual_seed(0)) ** 5
    values = hoyer(g)
    assert values.min() >= 0
    assert values.max() <= 1
    torch.testing.assert_close(hoyer(1e-30 * g), values, atol=1e-4, rtol=0)
    assert (hoyer(torch.ones(3, 64)) >= -1e-6).all()


def test_a_sparser_vector_has_a_larger_hoyer_measure():
    g = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]])
    values = hoyer(g).tolist()
    assert values == sorted(values)
    assert len(set(values)) == 4


def test_tiny_gradients_have_not_vanished():
    g = torch.tensor([[1e-38, 0.0]])
    assert all_zero(g).tolist() == [0]
    assert zero_fraction(g).tolist() == [0.5]
    assert hoyer(g).tolist() == pytest.approx([1])


def test_norms_of_many_entries():
    g = torch.full((2, 3, 10), 0.1, dtype=torch.float64)
    assert l1(g).tolist() == pytest.approx([3, 3])
    assert l2(g).tolist() == pytest.approx([math.sqrt(0.3)] * 2)


def test_the_input_gradient_is_that_of_finite_differences():
    model = Toy(6).double().eval()
    torch.manual_seed(0)
    x, y = torch.rand(5, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    found = input_gradient(model, x, y)
    numeric = torch.zeros_like(x)
    for i in range(6):
        change = torch.zeros(6, dtype=torch.float64)
        change[i] = 1e-6
        up, down = (model(x + s * change).softmax(1).gather(1, y[:, None]).squeeze(1) for s in (1, -1))
        numeric[:, i] = ((up - down) / 2e-6).detach()
    torch.testing.assert_close(found, numeric, atol=1e-8, rtol=1e-6)


def test_the_input_gradient_works_without_grad_mode_and_in_train_mode(images):
    x, y = images
    model = Toy(64).eval()
    expected = input_gradient(model, x, y)
    with torch.no_grad():
        found = input_gradient(model.train(), x, y)
    assert torch.equal(found, expected)
    assert not found.requires_grad


def test_measures_do_not_depend_on_the_batch_size(classifier, images):
    x, y = images[0].double(), images[1]
    whole, parts = (gradient_measures(classifier.double(), batches(x, y, size)) for size in (12, 5))
    assert whole.keys() == GRADIENT_MEASURES.keys()
    assert parts == pytest.approx(whole, rel=1e-9)


def test_measures_are_means_over_samples(classifier, images):
    x, y = images
    g = input_gradient(classifier, x, y)
    found = gradient_measures(classifier, batches(x, y, 12))
    assert found["gradient_l1"] == pytest.approx(float(g.flatten(1).abs().sum(1).double().mean()), rel=1e-6)
    assert found["gradient_zero_fraction"] == pytest.approx(float((g == 0).double().mean()), rel=1e-6)


def counted(model, x: Tensor) -> dict[str, float]:
    """Spikes per neuron and step, counted with hooks of its own."""
    counts: dict[str, float] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, Neuron):
            handles.append(
                module.register_forward_hook(
                    lambda _m, _i, spikes, name=name: counts.update({name: int((spikes == 1).sum()) / spikes.numel()})
                )
            )
    model.eval()(x)
    for handle in handles:
        handle.remove()
    return counts


def test_firing_rates_are_the_spikes_counted_by_hand(classifier, images):
    x, y = images
    expected = counted(classifier, x)
    assert len(expected) == 2
    assert all(0 < rate < 1 for rate in expected.values())
    for size in (12, 5):
        assert firing_rates(classifier.train(), batches(x, y, size)) == pytest.approx(expected, rel=1e-12)


def test_a_model_without_spikes_has_no_firing_rates(images):
    assert firing_rates(Toy(64), batches(images[0], images[1], 5)) == {}


def test_the_model_is_left_as_it_was(classifier, images):
    disturb(classifier)
    before, hooks = state_of(classifier), [len(m._forward_hooks) for m in classifier.modules()]
    around = streams()
    gradient_measures(classifier, batches(images[0], images[1], 5))
    firing_rates(classifier, batches(images[0], images[1], 5))
    assert_same(before, state_of(classifier))
    assert_same(around, streams())
    assert [len(m._forward_hooks) for m in classifier.modules()] == hooks
