"""Averaged weights: an exponential moving average beside the weights that are trained."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` whose every `update_parameters(model)` moves it by a share of `1 - decay` towards `model`.

    `a_1 = w_1`, then `a_k = decay a_{k-1} + (1 - decay) w_k`, for weights and buffers alike, so that the statistics of
    batch norm fit the weights that they were taken with.

    Args:
        model: whose parameters have their shapes.
        decay: in [0, 1); 0 is the model itself.
    """
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
