"""CIFAR-10 and CIFAR-100: 50,000 + 10,000 colour images of 32x32 pixels, 10 or 100 classes, read by torchvision.

Source: Krizhevsky (2009), "Learning multiple layers of features from tiny images". Means and standard deviations are
those of the sparse-gradient papers and their baselines. The standard deviations of CIFAR-10 are smaller than those of
all of its pixels, which are (0.2470, 0.2435, 0.2616): they are means over images of the deviation within an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from snnrobust.data.archives import verify
from snnrobust.data.augmentation import NONE, Augmentation
from snnrobust.data.dataset import Cut, DataSource, Split, Splits
from snnrobust.data.images import pictures, refuse_misfits, unpacked
from snnrobust.settings import Fraction, HeldOut, LeftOpenFraction, NonNegativeInt, Positive, PositiveInt

SHAPE = (3, 32, 32)


@dataclass(frozen=True)
class Cifar10(DataSource):
    """CIFAR-10; the validation part is cut from the training images, stratified by class.

    Args:
        kind: decides which encoders fit.
        root: the files lie in `<root>/cifar-10-batches-py`, or their archive in `<root>`.
        download: fetch the archive if absent.
        validation: share of every class of the training images.
        split_seed: of the split and of the limits, apart from the seed of the run.
        train_limit: use only so many images for training, in equal numbers per class; None for all.
        test_limit: the same for the test.
        mean: per channel, in [0, 1], for the normalisation inside the model.
        std: the same.
        augmentation: of the training images.
        eps: customary l_inf budget, used where `threat.eps` is not given.
    """

    kind: Literal["images"] = "images"
    root: str = "data"
    download: bool = False
    validation: HeldOut = 0.1
    split_seed: NonNegativeInt = 0
    train_limit: PositiveInt | None = None
    test_limit: PositiveInt | None = None
    mean: tuple[Fraction, ...] = (0.4914, 0.4822, 0.4465)
    std: tuple[LeftOpenFraction, ...] = (0.2023, 0.1994, 0.2010)
    augmentation: Augmentation = NONE
    eps: Positive = 8 / 255

    shape = SHAPE
    classes = 10

    def __post_init__(self) -> None:
        refuse_misfits(self)

    def load(self) -> Splits:
        """Reads the pickled batches, whose checksums are the official ones.

        Raises:
            DataError: if they are absent and not to be downloaded, cannot be downloaded, or are other files.
        """
        cut = Cut(self.validation, self.split_seed, self.train_limit, self.test_limit)
        return cut(*_read("CIFAR10", Path(self.root).expanduser(), self.download, self.classes))


@dataclass(frozen=True)
class Cifar100(DataSource):
    """CIFAR-100; the validation part is cut from the training images, stratified by class.

    Args:
        kind: decides which encoders fit.
        root: the files lie in `<root>/cifar-100-python`, or their archive in `<root>`.
        download: fetch the archive if absent.
        validation: share of every class of the training images.
        split_seed: of the split and of the limits, apart from the seed of the run.
        train_limit: use only so many images for training, in equal numbers per class; None for all.
        test_limit: the same for the test.
        mean: per channel, in [0, 1], for the normalisation inside the model.
        std: the same.
        augmentation: of the training images.
        eps: customary l_inf budget, used where `threat.eps` is not given.
    """

    kind: Literal["images"] = "images"
    root: str = "data"
    download: bool = False
    validation: HeldOut = 0.1
    split_seed: NonNegativeInt = 0
    train_limit: PositiveInt | None = None
    test_limit: PositiveInt | None = None
    mean: tuple[Fraction, ...] = (0.5071, 0.4867, 0.4408)
    std: tuple[LeftOpenFraction, ...] = (0.2675, 0.2565, 0.2761)
    augmentation: Augmentation = NONE
    eps: Positive = 8 / 255

    shape = SHAPE
    classes = 100

    def __post_init__(self) -> None:
        refuse_misfits(self)

    def load(self) -> Splits:
        """Reads the pickled batches, whose checksums are the official ones.

        Raises:
            DataError: if they are absent and not to be downloaded, cannot be downloaded, or are other files.
        """
        cut = Cut(self.validation, self.split_seed, self.train_limit, self.test_limit)
        return cut(*_read("CIFAR100", Path(self.root).expanduser(), self.download, self.classes))


def _read(name: Literal["CIFAR10", "CIFAR100"], root: Path, download: bool, classes: int) -> tuple[Split, Split]:
    """The official training and test parts. No file is unpickled whose MD5 is not the official one."""
    from torchvision import datasets

    source = {"CIFAR10": datasets.CIFAR10, "CIFAR100": datasets.CIFAR100}[name]
    folder = root / source.base_folder
    unpacked(folder, source.filename, source.tgz_md5, source.url, download)
    official = dict([*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])])
    for file, md5 in official.items():
        verify(folder / file, md5, None, f"{source.filename} ({source.url})")
    parts = []
    for train in (True, False):
        read = source(root, train=train)  # checks the MD5 once more, in the same breath as it reads
        parts.append(pictures(folder, read.data.transpose(0, 3, 1, 2), np.asarray(read.targets), SHAPE, classes))
    return parts[0], parts[1]
