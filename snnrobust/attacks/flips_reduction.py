"""How few of the flips of a successful attack are needed."""

from __future__ import annotations

import torch
from torch import Tensor

from snnrobust.attacks.flips import after_each
from snnrobust.attacks.losses import margin
from snnrobust.flips import flipped
from snnrobust.spiking.classifier import Classifier


@torch.no_grad()
def reduced(model: Classifier, x: Tensor, y: Tensor, flips: Tensor, importance: Tensor) -> Tensor:
    """Takes back a prefix of the flips, the least important first, so that the inputs stay misclassified.

    The longest such prefix is looked for by bisection, which finds it if every shorter prefix leaves the sample
    misclassified too, and otherwise another one. Either way the result was tried.

    Args:
        x: original inputs `[B, ...]`, correctly classified unless they have no flips.
        y: true classes.
        flips: bool `[B, N]`; with them the samples are misclassified.
        importance: `[B, N]`, read where there are flips; the first of equals goes first.

    Returns:
        The flips that remain, `[B, N]`.
    """
    rank = importance.masked_fill(~flips, torch.inf).argsort(dim=1, stable=True).argsort(1)
    fine, spoiled = torch.zeros_like(y), flips.sum(1)  # lengths of prefixes
    for _ in range(int(spoiled.max()).bit_length()):
        middle = (fine + spoiled) // 2
        tried = flipped(x, (flips & (rank >= middle[:, None])).view_as(x), model.bounds)
        adversarial = margin(model(tried), y) > 0
        fine, spoiled = torch.where(adversarial, middle, fine), torch.where(adversarial, spoiled, middle)
    return flips & (rank >= fine[:, None])


@torch.no_grad()
def importance_of(model: Classifier, x: Tensor, y: Tensor, flips: Tensor, chunk: int) -> Tensor:
    """`[B, N]`: by how much the margin falls if one of the flips alone is taken back; 0 where there is no flip.

    Up to the margin itself, which is the same for all flips of a sample.
    """
    most = int(flips.sum(1).max())
    entries = flips.byte().topk(max(1, most), dim=1).indices
    at = flipped(x, flips.view_as(x), model.bounds)
    lost = -after_each(model, at, y, entries, chunk)
    # Samples with fewer flips than others lend further entries to their rows.
    return torch.zeros_like(flips, dtype=lost.dtype).scatter(1, entries, lost).masked_fill(~flips, 0)
