"""The l_2 norm of the input gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from snnrobust.regularizers.base import Pass
from snnrobust.regularizers.input_gradient import InputGradient, objective_of
from snnrobust.settings import NonNegative, Positive
from snnrobust.spiking.classifier import Classifier


@dataclass(frozen=True)
class GradientL2(InputGradient):
    """`R = mean_i ||g_i||_2^2` with `g = grad_x sum_i v_i`; finite: `mean_i ((v_i(x + h g / ||g||_2) - v_i(x)) / h)^2`.

    Double backpropagation (Drucker and LeCun 1992; as a defence: Ross and Doshi-Velez 2018); the finite difference is
    that of Finlay and Oberman (2019).

    Args:
        weight: factor of the term in the loss.
        warmup: epochs over which the weight rises linearly from 0.
        of: `v`: cross-entropy, or the softmax probability of the true class.
        method: `exact`, differentiated twice, in a slower pass; or `finite_difference`.
        step: h, in units of the input: `l_2` length; of no effect if exact.
        statistics: of batch norm in the second pass of a finite difference: `update` the running ones, or `keep` them.
    """

    weight: NonNegative = 0.3
    warmup: NonNegative = 0.0
    of: Literal["cross_entropy", "probability"] = "cross_entropy"
    method: Literal["finite_difference", "exact"] = "exact"
    step: Positive = 0.1
    statistics: Literal["update", "keep"] = "update"

    def __call__(self, model: Classifier, at: Pass) -> Tensor:
        return self.norms(model, at, objective_of(self.of, at.y), 2).square().mean()
