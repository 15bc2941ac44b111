"""Attacks behind the encoder: the code of an input is perturbed, not the input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from snnrobust.attacks.base import Attack
from snnrobust.randomness import isolated, per_sample
from snnrobust.spiking.classifier import Classifier, Normalize, SpikingClassifier
from snnrobust.spiking.encoder import Frames
from snnrobust.threat import Bounds, Threat


@dataclass(frozen=True)
class Encoded(Attack):
    """`attack` on the code of an input, `[B, T, C, H, W]`: the threat model of Luu et al. 2025 (arXiv 2509.23762).

    To be called as `encoded(*encoded.target(model, x), y)`; the result is a code. No image need have such a code (an
    entry of a spike train becomes 0.02, say), so that what it finds is no adversarial image and counts in no worst case
    over images. Budget, seed and estimators are those of `attack`.

    Args:
        attack: run on the code.
    """

    attack: Attack

    space: ClassVar[Literal["input", "code"]] = "code"

    @property
    def threat(self) -> Threat | None:  # type: ignore[override]
        return self.attack.threat

    @property
    def seed(self) -> int:  # type: ignore[override]
        return self.attack.seed

    def variants(self) -> Mapping[str, Self]:
        return {name: replace(self, attack=attack) for name, attack in self.attack.variants().items()}

    def renewed(self, *words: object) -> Self:
        return replace(self, attack=self.attack.renewed(*words))

    def target(self, model: Classifier, x: Tensor, index: Tensor | None = None) -> tuple[Classifier, Tensor]:
        """The network behind the encoder, and the code of `x`, which a stochastic encoder draws once.

        Raises:
            ValueError: if the model has no encoder.
        """
        if not isinstance(model, SpikingClassifier):
            raise ValueError(f"model: got {type(model).__name__}, which has no code; allowed: SpikingClassifier")
        index = torch.arange(len(x)) if index is None else index
        words = ("code", self.seed)
        with torch.no_grad(), isolated(*words, *index[:1].tolist()), per_sample(index, *words):
            code = model.encoder(x if model.encoder.raw else model.normalize(x)).transpose(0, 1).contiguous()
        # Codes are event frames to the network; they have been normalised where they should be.
        identity = Normalize((0.0,), (1.0,)).to(model.normalize.mean)
        return SpikingClassifier(model.backbone, Frames(code.shape[1]), identity, code_bounds(model, code)), code

    def search(self, model: Classifier, x: Tensor, y: Tensor, index: Tensor, restart: int) -> Tensor:
        if isinstance(model, SpikingClassifier) and not isinstance(model.encoder, Frames):
            raise ValueError("model: got one with its encoder; allowed: what `target` returns")
        return self.attack(model, x, y, index)


def code_bounds(model: SpikingClassifier, code: Tensor) -> Bounds:
    """Range of the entries of a code `[B, T, C, H, W]`: of normalised inputs, the widest of all channels."""
    if model.encoder.raw:
        return Bounds(0.0, model.encoder.peak((code.shape[-2], code.shape[-1])))
    ends = torch.tensor([model.bounds.low, model.bounds.high]).to(model.normalize.mean).view(2, 1, 1, 1)
    low, high = model.normalize(ends)
    return Bounds(float(low.min()), float(high.max()))
