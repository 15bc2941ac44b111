"""Copies of a model's modules around the same weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from snnrobust.spiking.classifier import Classifier


def replica(model: Classifier, instead: Mapping[nn.Module, nn.Module]) -> Classifier:
    """A copy of a model that can be changed without changing the model; parameters and buffers are the same tensors.

    Args:
        model: what is copied, in the mode that it is in.
        instead: modules that stand in the copy where others stood, everywhere that these are referred to.
    """
    memo: dict[int, Any] = {id(module): other for module, other in instead.items()}
    if isinstance(model, nn.Module):
        memo |= {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return copy.deepcopy(model, memo)
