"""The same network, arranged for attacks: fewer operations, the same logits up to rounding (1e-5).

Batch norm is folded into the convolution before it, average pooling joined to the neurons before it; what knows no time
and sees the same input at every step (the stem under direct coding) is computed once; weights lie channels-last, as the
processor's convolutions like them. For evaluation alone: the arranged network cannot be trained.
"""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
from spikingjelly.activation_based.base import MemoryModule, StepModule
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.neuron import Neuron
from snnrobust.spiking.pooled import Pooled


class Once(nn.Module):
    """A layer without time or state on `[T, N, ...]`; computed once where all steps are one and the same tensor."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, sequence: Tensor) -> Tensor:
        steps, batch = sequence.shape[:2]
        if steps > 1 and sequence.stride(0) == 0:
            once: Tensor = self.layer(sequence[0])
            return once.unsqueeze(0).expand(steps, *once.shape)
        folded: Tensor = self.layer(sequence.flatten(0, 1))
        unfolded: Tensor = folded.unflatten(0, (steps, batch))
        return unfolded


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
    copied: SpikingClassifier = copy.deepcopy(model).eval().requires_grad_(False)
    for module in [*copied.modules()]:
        if isinstance(module, nn.Sequential):
            _fold_batch_norms(module)
    wrapped: dict[nn.Module, Once] = {}
    for module in [*copied.modules()]:
        for name, child in module._modules.items():  # a layer may stand in several places
            if isinstance(child, StepModule) and not isinstance(child, MemoryModule) and child.step_mode == "m":
                child.step_mode = "s"
                wrapped[child] = Once(child)
            if child in wrapped:
                module._modules[name] = wrapped[child]
    for module in [*copied.modules()]:
        if isinstance(module, nn.Sequential):
            _join_pooling(module)
    for parameter in copied.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    if dtype == torch.bfloat16:
        copied.backbone = Half(copied.backbone)
    return copied.eval()  # the new modules too


def _fold_batch_norms(layers: nn.Sequential) -> None:
    """Replaces each pair of convolution and batch norm by one convolution."""
    kept: OrderedDict[str, nn.Module] = OrderedDict()
    last = ""
    for name, layer in layers._modules.items():  # `named_children` would skip a layer that stands here twice
        assert layer is not None
        before = kept.get(last)
        if isinstance(layer, nn.BatchNorm2d) and isinstance(before, nn.Conv2d) and layer.track_running_stats:
            kept[last] = fuse_conv_bn_eval(before, layer).requires_grad_(False)
        else:
            kept[name] = layer
            last = name
    if len(kept) < len(layers):
        layers._modules = dict(kept)


def _join_pooling(layers: nn.Sequential) -> None:
    """Replaces each pair of neurons and 2x2 average pooling by one module."""
    kept: OrderedDict[str, nn.Module] = OrderedDict()
    last = ""
    for name, layer in layers._modules.items():
        assert layer is not None
        before = kept.get(last)
        if isinstance(before, Neuron) and isinstance(layer, Once) and _halves(layer.layer):
            kept[last] = Pooled(before, layer)
        else:
            kept[name] = layer
            last = name
    if len(kept) < len(layers):
        layers._modules = dict(kept)


def _halves(layer: nn.Module) -> bool:
    """True for plain average pooling over 2x2 entries."""
    if not isinstance(layer, nn.AvgPool2d) or layer.divisor_override is not None:
        return False
    two = (2, (2, 2))
    return layer.kernel_size in two and layer.stride in two and layer.padding in (0, (0, 0))
