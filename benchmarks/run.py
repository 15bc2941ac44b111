"""Times a training step and an attack step of the default network; writes docs/benchmarks.md.

Run with: make bench
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torchattacks
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.pairs import Timing, measure
from snnrobust import environment
from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.config import build, compose
from snnrobust.data.dataset import Batch
from snnrobust.regularizers.gradient_sparsity import GradientSparsity
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.neuron import Neuron
from snnrobust.threat import Linf

BATCH, STEPS, EPS, WEIGHT = 64, 10, 0.1, 0.01


class Relu(nn.Module):
    """In place of a neuron: what a time step costs without dynamics."""

    def forward(self, current: Tensor) -> Tensor:
        return current.relu()


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


def attacks(model: SpikingClassifier, analog: SpikingClassifier, batch: Batch) -> Mapping[str, Callable[[], object]]:
    ours = ProjectedGradient(threat=Linf(EPS), steps=STEPS, random_start=False)
    theirs = torchattacks.PGD(model, eps=EPS, alpha=2.5 * EPS / STEPS, steps=STEPS, random_start=False)
    return {
        "torchattacks": lambda: theirs(batch.x, batch.y),
        "snnrobust": lambda: ours(model, batch.x, batch.y),
        "snnrobust, ReLU in place of neurons": lambda: ours(analog, batch.x, batch.y),
    }


def analog_twin(model: SpikingClassifier, twin: SpikingClassifier) -> SpikingClassifier:
    """`twin` with the weights of `model` and ReLU in place of its neurons."""
    twin.load_state_dict(model.state_dict())
    for parent in [*twin.modules()]:
        for name, child in [*parent.named_children()]:
            if isinstance(child, Neuron):
                setattr(parent, name, Relu())
    return twin


def table(title: str, timings: list[Timing]) -> str:
    rows = [f"| {t.name} | {t.median:.1f} | {t.lowest:.1f} - {t.highest:.1f} | {t.ratio:.2f} |" for t in timings]
    return "\n".join(
        [f"## {title}", "", "| | ms, median | range | ratio to the first |", "|---|---:|---:|---:|", *rows]
    )


def main() -> None:
    composed = compose("config", ["device=cpu", "tracker=none"])
    experiment, _ = build(composed.config)
    data = experiment.load().train
    batch = data.batch(torch.arange(BATCH))
    model, twin = experiment.classifier(), experiment.classifier()
    training = measure(training_steps(model.train(), batch))
    crafting = measure(attacks(model.eval(), analog_twin(model, twin).eval(), batch))
    commit = environment.commit()
    state = "unknown" if commit is None else str(commit["commit"])[:10] + " with changes" * bool(commit["dirty"])
    lines = [
        "# Benchmarks",
        "",
        f"`make bench`, commit {state}, {environment.hardware('cpu', 1)['cpu']}, one thread, "
        f"torch {torch.__version__}. The digits ConvNet (8x8, 16 and 32 channels), "
        f"T={composed.config['encoder']['steps']}, batch {BATCH}. In one process, in turn, 15 rounds after 3; "
        "the ratio is the median over rounds.",
        "",
        table("A training step (forward, loss, backward)", training),
        "",
        table(f"PGD with {STEPS} steps on one batch", crafting),
        "",
    ]
    Path("docs/benchmarks.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
