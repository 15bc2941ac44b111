"""SR: gradient-sparsity regularization (Liu et al., ICML 2024, arXiv 2405.20355)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from snnrobust.regularizers.base import Pass
from snnrobust.regularizers.input_gradient import InputGradient
from snnrobust.settings import NonNegative, Positive
from snnrobust.spiking.classifier import Classifier


def runner_up(logits: Tensor, y: Tensor) -> Tensor:
    """`[B]`: the class with the largest logit apart from the true one."""
    return logits.scatter(1, y[:, None], -torch.inf).argmax(1)


def true_against(other: Tensor, logits: Tensor, y: Tensor) -> Tensor:
    """`[B]`: probability of the true class in the two-class softmax against class `other`, finite for any logits.

    `exp(z_y) / (exp(z_y) + exp(z_other)) = sigmoid(z_y - z_other)`; the quotient itself overflows beyond |z| = 88.
    """
    return torch.sigmoid((logits.gather(1, y[:, None]) - logits.gather(1, other[:, None])).squeeze(1))


@dataclass(frozen=True)
class GradientSparsity(InputGradient):
    """`R = mean_i ((f_i(x + h d) - f_i(x)) / h)^2`, which tends to `mean_i ||grad_x f_i||_1^2` as `h` goes to 0.

    `f` is the probability of the true class against the runner-up (frozen at the first pass) and
    `d = sign(grad_x sum_i f_i)`, detached. The gradient of `R` flows through both passes. As published, `x + h d` is
    not clipped to the range of the inputs. The `l_1` norm stands for the number of entries that are not 0, which bounds
    how much more an adversary achieves than noise.

    Args:
        weight: factor of the term in the loss; the papers' values per dataset are not known.
        warmup: epochs over which the weight rises linearly from 0.
        step: h, in units of the input: of every entry, or the `l_2` length with `gradient`; of no effect if exact.
        direction: `d`. `sign`: as above; `gradient`: the gradient at length 1, for the `l_2` norm (an earlier version
            of the authors' code); 0 where the gradient is 0.
        power: of the norm; 2 as published.
        method: `finite_difference` as published, or `exact`: the norm itself, differentiated twice, in a slower pass.
        statistics: of batch norm in the second pass, which is normalised with its own batch either way: `update` the
            running ones as published, so that they are of both passes, or `keep` them.
    """

    weight: NonNegative = 0.01
    warmup: NonNegative = 0.0
    step: Positive = 0.01
    direction: Literal["sign", "gradient"] = "sign"
    power: Literal[1, 2] = 2
    method: Literal["finite_difference", "exact"] = "finite_difference"
    statistics: Literal["update", "keep"] = "update"

    def __call__(self, model: Classifier, at: Pass) -> Tensor:
        other = runner_up(at.logits.detach(), at.y)
        norms = self.norms(model, at, lambda z: true_against(other, z, at.y), 1 if self.direction == "sign" else 2)
        return (norms.square() if self.power == 2 else norms.abs()).mean()
