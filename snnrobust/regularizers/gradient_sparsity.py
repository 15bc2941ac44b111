"""SR: gradient-sparsity regularization by a finite difference (Liu et al., ICML 2024, arXiv 2405.20355)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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
class GradientSparsity:
    """`R = mean_i ((f_i(x + h d) - f_i(x)) / h)^2`, which tends to `mean_i ||grad_x f_i||_1^2` as `h` goes to 0.

    `f` is the probability of the true class against the runner-up (frozen at the first pass) and
    `d = sign(grad_x sum_i f_i)`, detached. The gradient of `R` flows through both passes. As published, `x + h d` is
    not clipped to the range of the inputs and the second pass updates batch-norm statistics like the first.

    Args:
        weight: factor of the term in the loss; the papers' values per dataset are not known.
        step: h, in units of the input.
    """

    weight: NonNegative = 0.01
    step: Positive = 0.01

    needs_input_gradient = True

    def __call__(self, model: Classifier, x: Tensor, y: Tensor, logits: Tensor) -> Tensor:
        other = runner_up(logits.detach(), y)
        here = true_against(other, logits, y)
        direction = torch.autograd.grad(here.sum(), x, retain_graph=True)[0].sign()
        there = true_against(other, model(x.detach() + self.step * direction), y)
        return ((there - here) / self.step).square().mean()
