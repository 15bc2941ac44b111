"""Whether a model is right: one forward for a deterministic model, several for a stochastic one."""

from __future__ import annotations

import torch
from torch import Tensor

from snnrobust.estimators.surrogate import Trained
from snnrobust.randomness import isolated, per_sample
from snnrobust.spiking.classifier import Classifier


class Judge:
    """Judges inputs on the network itself, in full precision, not on the one that the attacks were run on.

    Args:
        model: in eval mode.
        draws: forwards of a stochastic model.
        seed: of its draws.
    """

    def __init__(self, model: Classifier, draws: int, seed: int) -> None:
        self.model = model
        self.draws = draws if model.stochastic else 1
        self.seed = seed

    def __call__(
        self, name: str, model: Classifier, x: Tensor, y: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """`[B]` bool: correct in every draw; and, for a stochastic model, the class of most draws is correct.

        Args:
            name: of what is judged; together with draw and sample the key of the draws.
            model: the judge's own, or the part of it that `x` is an input of.
            x: inputs.
            y: true classes.
            index: the samples' positions in their split.
        """
        votes = []
        # The compiled dynamics give the same spikes as the plain ones, and are faster.
        with torch.no_grad(), Trained().applied(model) as same:
            for draw in range(self.draws):
                words = ("judge", self.seed, name, draw)
                with isolated(*words, int(index[0]) if len(index) else 0), per_sample(index, *words):
                    votes.append(same(x).argmax(1))
        predicted = torch.stack(votes)
        right = (predicted == y).all(0).cpu()
        return right, (predicted.mode(0).values == y).cpu() if self.model.stochastic else None
