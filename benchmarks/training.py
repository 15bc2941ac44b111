"""A training step: cross-entropy alone, with SR, and with SR as it was published (sample by sample)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from snnrobust.data.dataset import Batch
from snnrobust.regularizers.gradient_sparsity import GradientSparsity
from snnrobust.spiking.classifier import SpikingClassifier

WEIGHT = 0.01


def per_sample_regularizer(model: SpikingClassifier, x: Tensor, y: Tensor, logits: Tensor, step: float) -> Tensor:
    """SR as it is published: sample by sample, with a copy to the host each."""

    def probabilities(z: Tensor, others: list[int]) -> list[Tensor]:
        return [
            torch.exp(z[i, y[i]]) / (torch.exp(z[i, y[i]]) + torch.exp(z[i, other])) for i, other in enumerate(others)
        ]

    others = []
    for i in range(len(x)):
        order = logits[i].argsort(descending=True).tolist()
        others.append(order[1] if order[0] == int(y[i].item()) else order[0])
    here = probabilities(logits, others)
    direction = torch.autograd.grad(torch.stack(here).sum(), x, retain_graph=True)[0].sign()
    there = probabilities(model(x.detach() + step * direction), others)
    return torch.stack([((b - a) / step) ** 2 for a, b in zip(here, there, strict=True)]).mean()


def training_steps(model: SpikingClassifier, batch: Batch) -> Mapping[str, Callable[[], object]]:
    ours = GradientSparsity(weight=WEIGHT)

    def plain() -> None:
        model.zero_grad()
        F.cross_entropy(model(batch.x), batch.y).backward()

    def regularized(term: Callable[[Tensor, Tensor], Tensor]) -> None:
        model.zero_grad()
        x = batch.x.detach().requires_grad_()
        logits = model(x)
        (F.cross_entropy(logits, batch.y) + WEIGHT * term(x, logits)).backward()

    return {
        "cross-entropy alone": plain,
        "SR": lambda: regularized(lambda x, z: ours(model, x, batch.y, z)),
        "SR, sample by sample": lambda: regularized(
            lambda x, z: per_sample_regularizer(model, x, batch.y, z, ours.step)
        ),
    }
