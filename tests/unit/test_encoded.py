"""Attacks behind the encoder."""

import pytest
import torch
from torch import Tensor

from snnrobust.attacks.encoded import Encoded
from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.attacks.square import Square
from snnrobust.estimators.ensemble import Ensemble
from snnrobust.estimators.surrogate import Surrogate, Trained
from snnrobust.spiking.classifier import Normalize, SpikingClassifier
from snnrobust.spiking.encoder import Direct, Encoder, Frames, Poisson
from snnrobust.spiking.encoders.frequency import Frequency
from snnrobust.spiking.encoders.latency import Latency
from snnrobust.spiking.encoders.phase import Phase
from snnrobust.spiking.fuse import fused
from snnrobust.spiking.surrogate import atan
from snnrobust.threat import Bounds, Linf
from tests.contracts.toys import Toy, assert_same, state_of, streams

STEPS = 3
PGD = ProjectedGradient(Linf(6 / 255), steps=7, step_size=0.01, seed=5)
ENCODED = Encoded(PGD)


@pytest.fixture(params=[Direct, Poisson, Frames, Latency, Phase, Frequency])
def model(request, make_tiny) -> SpikingClassifier:
    return make_tiny(request.param(STEPS), channels=2 if request.param is Frames else 1)


def inputs(model: SpikingClassifier, number: int = 10) -> tuple[Tensor, Tensor]:
    shape = (STEPS, 2, 8, 8) if isinstance(model.encoder, Frames) else (1, 8, 8)
    x = torch.rand(number, *shape, generator=torch.Generator().manual_seed(0))
    return x, torch.arange(number) % 4


def test_the_target_gives_the_logits_of_the_model_on_the_code(model):
    x, _ = inputs(model)
    target, code = ENCODED.target(model, x)
    assert code.shape == (len(x), STEPS, *x.shape[-3:])
    assert not code.requires_grad
    assert not target.stochastic
    if isinstance(model.encoder, Phase | Latency):
        assert set(code.unique().tolist()) == {0.0, 1.0}
    if model.stochastic:
        assert set(code.unique().tolist()) == {0.0, 1.0}
        expected = model.backbone(code.transpose(0, 1)).mean(0)
    else:
        expected = model(x)
    with torch.no_grad():
        torch.testing.assert_close(target(code), expected, atol=1e-6, rtol=0)


def test_the_result_is_a_code_inside_budget_and_range_and_not_the_code_it_was(model):
    x, y = inputs(model)
    target, code = ENCODED.target(model, x)
    found = ENCODED(target, code, y)
    assert found.shape == code.shape
    assert float((found - code).abs().max()) == pytest.approx(6 / 255, abs=1e-6)
    assert found.min() >= target.bounds.low
    assert found.max() <= target.bounds.high


def test_every_step_of_the_code_is_perturbed_by_its_own_gradient(make_tiny):
    model = make_tiny(Direct(STEPS))
    x, y = inputs(model)
    target, code = ENCODED.target(model, x)
    found = Encoded(ProjectedGradient(Linf(0.1), steps=1, step_size=0.1, start="input"))(target, code, y)
    assert not torch.equal(found[:, 0], found[:, 1])
    code.requires_grad_()
    loss = torch.nn.functional.cross_entropy(target(code), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, code)
    assert (gradient.flatten(2).abs().sum(2) > 0).all()  # at every step of every sample
    expected = (code + 0.1 * gradient.sign()).clamp(target.bounds.low, target.bounds.high)
    torch.testing.assert_close(found, expected.detach(), atol=1e-6, rtol=0)


def test_spikes_range_from_zero_to_one_and_analog_codes_over_the_normalised_inputs(make_tiny):
    assert ENCODED.target(make_tiny(Poisson(2)), torch.rand(1, 1, 8, 8))[0].bounds == Bounds(0.0, 1.0)
    backbone = torch.nn.Identity()
    model = SpikingClassifier(backbone, Direct(2), Normalize((0.5, 0.25), (0.5, 0.125)), Bounds(0.0, 2.0))
    target, code = ENCODED.target(model, torch.tensor([0.0, 2.0]).view(2, 1, 1, 1).expand(2, 2, 1, 1))
    assert target.bounds == Bounds(-2.0, 14.0)
    assert code[:, 0].flatten(1).tolist() == [[-1.0, -2.0], [3.0, 14.0]]


def test_a_code_that_is_drawn_belongs_to_the_sample_and_the_seed(make_tiny):
    model = make_tiny(Poisson(STEPS))
    x, index = torch.full((4, 1, 8, 8), 0.5), torch.tensor([3, 8, 1, 40])
    torch.manual_seed(0)
    before = streams()
    _, code = ENCODED.target(model, x, index)
    assert_same(before, streams())
    assert torch.equal(ENCODED.target(model, x[2:], index[2:])[1], code[2:])
    assert not torch.equal(code[0], code[1])
    assert not torch.equal(Encoded(ProjectedGradient(Linf(0.1), seed=6)).target(model, x, index)[1], code)


def test_the_model_is_left_as_it_was(make_tiny):
    model = make_tiny(Direct(STEPS)).train()
    x, y = inputs(model)
    before = state_of(model)
    target, code = ENCODED.target(model, x)
    ENCODED(target, code, y)
    assert_same(before, state_of(model))


def test_what_is_found_on_the_fused_network_lies_in_the_code_of_the_network_itself(make_tiny):
    model = make_tiny(Direct(STEPS))
    x, y = inputs(model)
    quick, code = ENCODED.target(fused(model), x)
    target, origin = ENCODED.target(model, x)
    assert torch.equal(code, origin)
    assert quick.bounds == target.bounds
    assert PGD.threat.excess(ENCODED(quick, code, y), origin).max() <= 1e-6


def test_estimators_are_those_of_the_attack(make_tiny):
    model = make_tiny(Direct(STEPS))
    x, y = inputs(model)
    inner = ProjectedGradient(Linf(0.1), steps=2, estimator=Ensemble({"own": Trained(), "wide": Surrogate(atan(0.5))}))
    variants = Encoded(inner).variants()
    assert list(variants) == ["own", "wide"]
    target, code = ENCODED.target(model, x)
    for name, variant in variants.items():
        assert torch.equal(variant(target, code, y), inner.variants()[name](target, code, y))
    assert list(ENCODED.variants()) == [""]


def test_budget_seed_and_space():
    assert ENCODED.threat == Linf(6 / 255)
    assert ENCODED.seed == 5
    assert Encoded.space == "code"
    assert PGD.space == "input"


def test_any_attack_can_be_run_on_the_code(make_tiny):
    model = make_tiny(Poisson(STEPS))
    x, y = inputs(model)
    attack = Encoded(Square(Linf(0.3), queries=20))
    target, code = attack.target(model, x)
    assert attack.threat is not None
    assert attack.threat.excess(attack(target, code, y), code).max() <= 1e-6


def test_models_without_a_code_are_refused():
    with pytest.raises(ValueError, match=r"model: got Toy, which has no code; allowed: SpikingClassifier"):
        ENCODED.target(Toy(64), torch.rand(2, 1, 8, 8))


@pytest.mark.parametrize("encoder", [Direct(STEPS), Poisson(STEPS)])
def test_the_model_with_its_encoder_is_refused(make_tiny, images, encoder: Encoder):
    """Or an attack on inputs would be taken for one on codes."""
    with pytest.raises(ValueError, match=r"model: got one with its encoder; allowed: what `target` returns"):
        ENCODED(make_tiny(encoder), *images)
