"""Gradient measures on hand-worked vectors; input gradients of several functions, under several estimators."""

import math

import pytest
import torch
from torch import Tensor

from snnrobust.attacks.losses import cross_entropy
from snnrobust.data.dataset import Batch
from snnrobust.estimators.rate import BPTR
from snnrobust.estimators.surrogate import Surrogate
from snnrobust.evaluation.measures import (
    GRADIENT_MEASURES,
    all_zero,
    binary,
    gini,
    gradient_measures,
    hoyer,
    input_gradient,
    l1,
    l2,
    probability,
    sparsity,
    zero_fraction,
)
from snnrobust.spiking.encoder import Poisson
from snnrobust.spiking.fuse import fused
from snnrobust.spiking.surrogate import triangle
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
    # 1 - 2 (3/7 (1.5/4) + 4/7 (0.5/4))
    "gradient_gini": {"zero": 1, "single": 0.75, "equal": 0, "mixed": 1 - 2 * (3 * 1.5 + 4 * 0.5) / 28},
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


def test_the_gini_index_ignores_scale_and_order_and_grows_as_entries_are_added_that_are_zero():
    g = torch.randn(50, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gini(-1e-30 * g.flip(1)), gini(g))
    assert (gini(torch.cat([g, torch.zeros_like(g)], 1)) > gini(g)).all()
    assert (gini(torch.ones(3, 64)).abs() < 1e-6).all()


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_never_sparse(odd):
    g = torch.tensor([[odd, 0.0, 1.0, 2.0]])
    for name in ("gradient_sparsity", "gradient_hoyer", "gradient_gini"):
        assert GRADIENT_MEASURES[name](g).isnan().all(), name
    assert zero_fraction(g).tolist() == [0.25]
    assert all_zero(g).tolist() == [0]


def test_tiny_gradients_have_not_vanished():
    g = torch.tensor([[1e-38, 0.0]])
    assert all_zero(g).tolist() == [0]
    assert zero_fraction(g).tolist() == [0.5]
    assert hoyer(g).tolist() == pytest.approx([1])


def test_norms_of_many_entries():
    g = torch.full((2, 3, 10), 0.1, dtype=torch.float64)
    assert l1(g).tolist() == pytest.approx([3, 3])
    assert l2(g).tolist() == pytest.approx([math.sqrt(0.3)] * 2)


@pytest.mark.parametrize("of", [probability, binary, cross_entropy])
def test_the_input_gradient_is_that_of_finite_differences(of):
    model = Toy(6).double().eval()
    x, y = (
        torch.rand(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 1, 2, 3, 0]),
    )
    found = input_gradient(model, x, y, of=of)
    numeric = torch.zeros_like(x)
    for i in range(6):
        change = torch.zeros(6, dtype=torch.float64)
        change[i] = 1e-6
        up, down = (of(model(x + s * change), y) for s in (1, -1))
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


def test_the_functions_are_the_probabilities_that_they_are_named_after():
    z, y = torch.tensor([[2.0, 1.0, -1.0], [0.0, 3.0, 5.0]]), torch.tensor([0, 1])
    assert probability(z, y).tolist() == pytest.approx(z.softmax(1)[[0, 1], y].tolist())
    assert binary(z, y).tolist() == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(2))])


def test_the_gradient_of_the_cross_entropy_has_the_same_sparsity(classifier, images):
    x, y = images
    of_p, of_ce = (gradient_measures(classifier, batches(x, y, 12), of=of) for of in (probability, cross_entropy))
    for name in ("gradient_sparsity", "gradient_zero_fraction", "gradient_hoyer", "gradient_gini"):
        assert of_ce[name] == pytest.approx(of_p[name], rel=1e-5)
    assert of_ce["gradient_l1"] > 1.01 * of_p["gradient_l1"]


def test_the_input_gradient_is_that_of_the_estimator(classifier, images):
    x, y = images
    with BPTR().applied(classifier) as view:
        inputs = x.clone().requires_grad_()
        expected = torch.autograd.grad(probability(view(inputs), y).sum(), inputs)[0]
    assert torch.equal(input_gradient(classifier, x, y, BPTR()), expected)
    assert not torch.equal(expected, input_gradient(classifier, x, y))


@pytest.mark.parametrize("width", [0.1, 0.02])
def test_a_fused_network_has_the_same_gradient_and_zeros_at_the_same_places(classifier, images, width):
    x, y = images
    estimator = Surrogate(triangle(width))
    plain, quick = (input_gradient(model, x, y, estimator) for model in (classifier, fused(classifier)))
    torch.testing.assert_close(quick, plain, rtol=1e-4, atol=1e-5 * float(plain.abs().max()))
    assert torch.equal(quick == 0, plain == 0)
    assert 0.1 < float((plain == 0).float().mean()) < 0.9


def test_draws_of_a_stochastic_model_belong_to_a_sample_and_a_seed(make_tiny, images):
    model = make_tiny(Poisson(3)).double()
    x, y = images[0].double(), images[1]
    found = [gradient_measures(model, batches(x, y, size), seed=seed) for size, seed in ((12, 0), (5, 0), (12, 1))]
    assert found[1] == pytest.approx(found[0], rel=1e-9)
    assert found[2]["gradient_l1"] != pytest.approx(found[0]["gradient_l1"], rel=1e-3)


def test_the_model_is_left_as_it_was(classifier, images):
    disturb(classifier)
    before, hooks = state_of(classifier), [len(m._forward_hooks) for m in classifier.modules()]
    around = streams()
    gradient_measures(classifier, batches(images[0], images[1], 5))
    assert_same(before, state_of(classifier))
    assert_same(around, streams())
    assert [len(m._forward_hooks) for m in classifier.modules()] == hooks
