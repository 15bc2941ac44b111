"""The same network, arranged for attacks: fewer operations, the same logits up to rounding.

Rounding may move a potential across its threshold, and with it a logit by far more; on the digits that happens to none
of 359 test samples, and decisions are the same (tested). Results are judged on the network itself.

Batch norm is folded into the convolution or linear layer before it, average pooling joined to the neurons before it;
weights lie channels-last, as the processor's convolutions like them. For evaluation alone: the arranged network cannot
be trained.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.neuron import Neuron
from snnrobust.spiking.pooled import Pooled, halves


class Half(nn.Module):
    """A backbone that computes in bfloat16; membranes are integrated in float32, logits come back in float32."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone.bfloat16()

    def forward(self, sequence: Tensor) -> Tensor:
        constant = len(sequence) > 1 and sequence.stride(0) == 0
        rounded = sequence[:1].bfloat16().expand_as(sequence) if constant else sequence.bfloat16()
        logits: Tensor = self.backbone(rounded)
        return logits.float()


def fused(model: SpikingClassifier, dtype: torch.dtype = torch.float32) -> SpikingClassifier:
    """A frozen copy in eval mode that shares no weights with `model`; the model is left as it was.

    Args:
        model: what is copied.
        dtype: float32, or bfloat16 for convolutions that are two to four times as fast on processors that have it;
            logits are then rounded, so that results have to be judged by the model itself.
    """
    copied = folded(model)
    for module in [*copied.modules()]:
        if isinstance(module, nn.Sequential):
            _merge_pairs(module, _pooled)
    for parameter in copied.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    if dtype == torch.bfloat16:
        copied.backbone = Half(copied.backbone)
    return copied.eval()  # the new modules too


def folded(model: SpikingClassifier) -> SpikingClassifier:
    """A frozen copy in eval mode whose layers contain the batch norm that came after them."""
    copied: SpikingClassifier = copy.deepcopy(model)
    _settle_weights(copied)  # before the mode changes, which may decide of them
    copied.eval().requires_grad_(False)
    for module in [*copied.modules()]:
        if isinstance(module, nn.Sequential):
            _merge_pairs(module, _folded)
    return copied


def _settle_weights(model: nn.Module) -> None:
    """Weights that are computed from other tensors, such as masked ones, become plain weights.

    By hand: torch's own removal takes the property from a class that a copied module shares with the original.
    """
    for module in [*model.modules()]:
        if parametrize.is_parametrized(module):
            assert isinstance(module.parametrizations, nn.ModuleDict)
            weights = {name: getattr(module, name).detach() for name in module.parametrizations}
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            for name, weight in weights.items():
                module.register_parameter(name, nn.Parameter(weight))


def _merge_pairs(layers: nn.Sequential, merged: Callable[[nn.Module, nn.Module], nn.Module | None]) -> None:
    """Replaces neighbours by what `merged` makes of them; None leaves them as they are."""
    kept: OrderedDict[str, nn.Module] = OrderedDict()
    last = ""
    for name, layer in layers._modules.items():  # `named_children` would skip a layer that stands here twice
        assert layer is not None
        both = merged(kept[last], layer) if last else None
        if both is None:
            kept[name] = layer
            last = name
        else:
            kept[last] = both
    if len(kept) < len(layers):
        layers._modules = dict(kept)


def _folded(before: nn.Module, layer: nn.Module) -> nn.Module | None:
    """Convolution and batch norm as one convolution, linear layer and batch norm as one linear layer."""
    if isinstance(before, nn.Conv2d) and isinstance(layer, nn.BatchNorm2d) and layer.track_running_stats:
        return fuse_conv_bn_eval(before, layer).requires_grad_(False)
    if isinstance(before, nn.Linear) and isinstance(layer, nn.BatchNorm1d) and layer.track_running_stats:
        return fuse_linear_bn_eval(before, layer).requires_grad_(False)
    return None


def _pooled(before: nn.Module, layer: nn.Module) -> nn.Module | None:
    """Neurons and plain average pooling over 2x2 entries as one module."""
    return Pooled(before, layer) if isinstance(before, Neuron) and halves(layer) else None
