"""The l_1 norm of the input gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from snnrobust.regularizers.base import Pass
from snnrobust.regularizers.input_gradient import InputGradient, objective_of
from snnrobust.settings import NonNegative, Positive
from snnrobust.spiking.classifier import Classifier


@dataclass(frozen=True)
class GradientL1(InputGradient):
    """`R = mean_i ||g_i||_1` with `g = grad_x sum_i v_i`; finite: `mean_i |v_i(x + h sign(g_i)) - v_i(x)| / h`.

    To first order, eps times the norm is what an l_inf adversary of budget eps gains (Goodfellow et al. 2015).

    Args:
        weight: factor of the term in the loss.
        warmup: epochs over which the weight rises linearly from 0.
        of: `v`: cross-entropy, or the softmax probability of the true class.
        method: `exact`, differentiated twice, in a slower pass; or `finite_difference`.
        step: h, in units of the input: of every entry; of no effect if exact.
        statistics: of batch norm in the second pass of a finite difference: `update` the running ones, or `keep` them.
    """

    weight: NonNegative = 0.03
    warmup: NonNegative = 0.0
    of: Literal["cross_entropy", "probability"] = "cross_entropy"
    method: Literal["finite_difference", "exact"] = "exact"
    step: Positive = 0.01
    statistics: Literal["update", "keep"] = "update"

    def __call__(self, model: Classifier, at: Pass) -> Tensor:
        return self.norms(model, at, objective_of(self.of, at.y), 1).abs().mean()
