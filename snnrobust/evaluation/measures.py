"""Scalar measures of a model's input gradient: one definition each.

Let `p_y(x)` be the softmax probability of the true class and `g = grad_x p_y(x)` with n entries, taken in eval mode
with respect to the input in its own units (pixels in [0, 1], scaled event counts), under a named gradient estimator.
All measures are means over samples; those of a gradient that is not finite are NaN or count it as dense, never as
sparse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from snnrobust.attacks.guard import untouched
from snnrobust.data.dataset import Batch
from snnrobust.estimators.base import Estimator
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.randomness import per_sample
from snnrobust.regularizers.gradient_sparsity import runner_up, true_against
from snnrobust.spiking.classifier import Classifier

SMALL = 1e-3
"""An entry counts as small if |g_i| is at most this share of the sample's largest |g_i|."""
Function = Callable[[Tensor, Tensor], Tensor]
"""Of logits `[B, K]` and labels `[B]`, per sample: what is differentiated.

`snnrobust.attacks.losses.cross_entropy` is one, with the gradient `-g / p_y`: of all measures only the norms differ.
"""


def probability(z: Tensor, y: Tensor) -> Tensor:
    """`p_y`."""
    return z.softmax(1).gather(1, y[:, None]).squeeze(1)


def binary(z: Tensor, y: Tensor) -> Tensor:
    """`sigmoid(z_y - max_{j != y} z_j)`, whose gradient the regularizer of Liu et al. (ICML 2024) makes sparse."""
    return true_against(runner_up(z.detach(), y), z, y)


def input_gradient(
    model: Classifier, x: Tensor, y: Tensor, estimator: Estimator = TRAINED, of: Function = probability
) -> Tensor:
    """`grad_x p_y(x)` per sample, `[B, ...]`, or that of another function; the model is left as it was.

    Raises:
        ValueError: if the estimator does not apply to the model.
    """
    with untouched(model), torch.enable_grad(), estimator.applied(model) as view:
        x = x.detach().requires_grad_()
        gradient: Tensor = torch.autograd.grad(of(view(x), y).sum(), x)[0]
    return gradient


def sparsity(g: Tensor) -> Tensor:
    """`gradient_sparsity` `[B]`: fraction of entries with `|g_i| <= 1e-3 max_j |g_j|`; 1 for an all-zero gradient."""
    size = g.flatten(1).abs()
    largest = size.amax(1, keepdim=True)
    share = (size <= SMALL * largest).float().mean(1)
    # Beside an infinite entry every other one is small, which says nothing.
    return torch.where(largest.squeeze(1).isfinite(), share, torch.nan)


def zero_fraction(g: Tensor) -> Tensor:
    """`gradient_zero_fraction` `[B]`: fraction of entries that are exactly 0 (the complement of l0 / n)."""
    return (g.flatten(1) == 0).float().mean(1)


def l1(g: Tensor) -> Tensor:
    """`gradient_l1` `[B]`: `sum_i |g_i|`."""
    return g.flatten(1).abs().sum(1)


def l2(g: Tensor) -> Tensor:
    """`gradient_l2` `[B]`: `sqrt(sum_i g_i^2)`."""
    length: Tensor = torch.linalg.vector_norm(g.flatten(1), dim=1)
    return length


def hoyer(g: Tensor) -> Tensor:
    """`gradient_hoyer` `[B]`: `(sqrt(n) - l1 / l2) / (sqrt(n) - 1)`, 0 for equal entries, 1 for a single one.

    Hoyer (2004). An all-zero gradient, for which the quotient is undefined, counts as 1, as the sparsest there is.
    Computed on `g / max|g|`, since the squares of tiny gradients underflow.
    """
    scaled, zero = _scaled(g)
    root = math.sqrt(scaled.shape[1])
    if root == 1:
        return torch.ones(len(scaled), device=g.device)
    quotient = l1(scaled) / l2(scaled).clamp_min(1.0)
    return torch.where(zero, 1.0, (root - quotient) / (root - 1))


def gini(g: Tensor) -> Tensor:
    """`gradient_gini` `[B]`: `1 - 2 sum_k (|g|_(k) / l1) (n - k + 1/2) / n`, sizes in increasing order, k from 1.

    Hurley and Rickard (2009), eq. 15; 0 for equal entries, `1 - 1/n` for a single one, 1 for an all-zero gradient.
    """
    scaled, zero = _scaled(g)
    size = scaled.abs().sort(1).values
    n = size.shape[1]
    weight = (n - 0.5 - torch.arange(n, device=g.device, dtype=size.dtype)) / n
    return torch.where(zero, 1.0, 1 - 2 * (size * weight).sum(1) / size.sum(1).clamp_min(1.0))


def _scaled(g: Tensor) -> tuple[Tensor, Tensor]:
    """`g / max|g|` `[B, n]`, and which samples have a gradient of nothing but zeros `[B]`."""
    flat = g.flatten(1)
    largest = flat.abs().amax(1, keepdim=True)
    zero = largest == 0
    return flat / torch.where(zero, 1.0, largest), zero.squeeze(1)


def all_zero(g: Tensor) -> Tensor:
    """`gradient_vanished` `[B]`: 1 where every entry is exactly 0, so that a gradient attack cannot move."""
    return (g.flatten(1) == 0).all(1).float()


GRADIENT_MEASURES = {
    "gradient_sparsity": sparsity,
    "gradient_zero_fraction": zero_fraction,
    "gradient_l1": l1,
    "gradient_l2": l2,
    "gradient_hoyer": hoyer,
    "gradient_gini": gini,
    "gradient_vanished": all_zero,
}


def gradient_measures(
    model: Classifier,
    batches: Iterable[Batch],
    estimator: Estimator = TRAINED,
    of: Function = probability,
    seed: int = 0,
) -> dict[str, float]:
    """The mean over samples of every gradient measure.

    Args:
        model: what is differentiated.
        batches: the samples.
        estimator: how; no ensemble.
        of: which function of the logits.
        seed: of a stochastic model's draws, which belong to a sample whatever batch it is in.

    Raises:
        ValueError: if the estimator does not apply to the model.
    """
    values: dict[str, list[Tensor]] = {name: [] for name in GRADIENT_MEASURES}
    for batch in batches:
        with per_sample(batch.index, "measures", seed):
            g = input_gradient(model, batch.x, batch.y, estimator, of)
        for name, measure in GRADIENT_MEASURES.items():
            values[name].append(measure(g))
    return {name: float(torch.cat(v).double().mean()) for name, v in values.items()}
