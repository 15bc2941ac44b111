"""The 8x8 handwritten digits that scikit-learn ships: 1,797 real images, 10 classes, nothing to download.

Source: UCI "Optical Recognition of Handwritten Digits", test part (Alpaydin and Kaynak, 1998), 4-bit grey levels 0..16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from snnrobust.data.dataset import DataSource, Split, Splits, stratified
from snnrobust.settings import HeldOut, NonNegativeInt, Positive

GREY_LEVELS = 16


def read() -> tuple[Tensor, Tensor]:
    """Images `[1797, 8, 8]` uint8 in 0..16 and labels `[1797]`."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return torch.from_numpy(images.reshape(-1, 8, 8)).to(torch.uint8), torch.from_numpy(labels).long()


@dataclass(frozen=True)
class Digits(DataSource):
    """Digits as images, split into train, validation and test, stratified by class.

    Args:
        validation: share of every class for validation.
        test: share of every class for the test.
        split_seed: of the split, apart from the seed of the run, so that all runs are judged on the same test set.
        root: folder of data files, of which these digits need none; it is here for sweeps over datasets.
        eps: customary l_inf budget, used where `threat.eps` is not given.
    """

    kind: Literal["images"] = "images"
    validation: HeldOut = 0.2
    test: HeldOut = 0.2
    split_seed: NonNegativeInt = 0
    root: str = "data"
    eps: Positive = 0.1

    shape = (1, 8, 8)
    classes = 10
    mean = (0.305,)
    std = (0.376,)

    def load(self) -> Splits:
        images, labels = read()
        validation, test, train = stratified(labels, (self.validation, self.test), self.split_seed)

        def part(index: Tensor) -> Split:
            return Split(images[index].unsqueeze(1), labels[index], GREY_LEVELS)

        return Splits(part(train), part(validation), part(test))
