"""ReLU in the place of spiking neurons."""

import pytest
import torch

from snnrobust.estimators.analog import Analog
from snnrobust.models.convnet import ConvNet
from snnrobust.spiking.activation import ReLU
from snnrobust.spiking.classifier import Normalize, SpikingClassifier
from snnrobust.spiking.encoder import Direct, Frames
from snnrobust.spiking.neuron import IF, LIF
from snnrobust.spiking.neurons.psn import PSN
from snnrobust.spiking.neurons.trainable_threshold import TrainableThreshold
from snnrobust.spiking.surrogate import triangle
from snnrobust.spiking.twin import twin
from snnrobust.threat import Bounds


def test_the_activation_scales_and_clips_at_zero():
    current = torch.tensor([[-1.0, 0.5], [3.0, 0.0]])
    assert torch.equal(ReLU(2.0)(current), torch.tensor([[0.0, 1.0], [6.0, 0.0]]))
    assert torch.equal(ReLU()(current), current.clamp_min(0))


def test_a_network_can_be_built_of_it():
    backbone = ConvNet((1, 8, 8), 4, ReLU, channels=(4,), hidden=8)
    model = SpikingClassifier(backbone, Direct(1), Normalize((0.5,), (0.3,)), Bounds()).eval()
    many = SpikingClassifier(backbone, Direct(5), Normalize((0.5,), (0.3,)), Bounds()).eval()
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(model(x), many(x))


def test_the_rate_of_a_neuron_without_leak_is_the_activation_of_its_twin(make_tiny):
    """Of `IF`, below one spike per step: the spikes of 1000 steps, to one spike."""
    neuron = IF(triangle(), threshold=0.5)
    current = torch.tensor([-0.2, 0.0, 0.013, 0.11, 0.45])
    rate = neuron(current.expand(1000, 1, 5)).mean(0)
    model = SpikingClassifier(neuron, Direct(1000), Normalize((0.5,), (0.3,)), Bounds())
    analog = twin(model).backbone
    assert isinstance(analog, ReLU)
    assert analog.scale == 2.0
    # A hard reset forgets what lies above the threshold.
    assert (rate <= analog(current) + 1e-6).all()
    torch.testing.assert_close(rate[0, :4], analog(current)[:4], rtol=0.15, atol=1e-3)


@pytest.mark.parametrize(("decay", "scale"), [(False, 4.0), (True, 1.0)])
def test_gain_and_threshold_become_the_scale(decay, scale):
    model = SpikingClassifier(
        LIF(triangle(), tau=4.0, threshold=0.25, decay_input=decay), Frames(3), Normalize((0.5,), (0.3,)), Bounds()
    )
    analog = twin(model)
    assert isinstance(analog.backbone, ReLU)
    assert analog.backbone.scale == scale
    assert isinstance(analog.encoder, Frames)


def test_learned_thresholds_count_as_they_stand():
    neuron = TrainableThreshold(triangle(), threshold=1.0)
    (threshold,) = neuron.parameters()
    with torch.no_grad():
        threshold.fill_(0.2)
    analog = twin(SpikingClassifier(neuron, Direct(3), Normalize((0.5,), (0.3,)), Bounds())).backbone
    assert isinstance(analog, ReLU)
    assert analog.scale == pytest.approx(5.0)


def test_neurons_without_a_membrane_are_refused():
    model = SpikingClassifier(PSN(triangle(), steps=3), Direct(3), Normalize((0.5,), (0.3,)), Bounds())
    with pytest.raises(ValueError, match=r"^twin: got PSN, which has no membrane; allowed: neurons that have one$"):
        twin(model)


def test_the_model_is_left_as_it_was_and_the_mode_is_kept(classifier, images):
    before = classifier(images[0])
    analog = twin(classifier)
    assert analog.encoder.steps == 1
    assert not any(module.training for module in analog.modules())
    with torch.no_grad():
        for parameter in analog.parameters():
            parameter.zero_()
    assert torch.equal(classifier(images[0]), before)
    with pytest.raises(ValueError, match=r"^twin: got a model without spiking neurons"):
        twin(analog)


def test_it_has_the_gradient_of_the_analog_estimator_where_the_loss_is_linear(classifier, images):
    x = images[0]
    weights = torch.randn(4, generator=torch.Generator().manual_seed(0))
    found = []
    analog = twin(classifier)
    for model in (Analog(), None):
        at = x.clone().requires_grad_()
        if model is None:
            (analog(at) @ weights).sum().backward()
        else:
            with model.applied(classifier) as view:
                (view(at) @ weights).sum().backward()
        found.append(at.grad)
    assert found[0] is not None
    assert found[0].abs().max() > 0
    torch.testing.assert_close(found[0], found[1])
