"""CIFAR-10 and CIFAR-100: 50,000 + 10,000 colour images of 32x32 pixels, 10 or 100 classes, read by torchvision.

Source: Krizhevsky (2009), "Learning multiple layers of features from tiny images".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from snnrobust.data.archives import verify
from snnrobust.data.dataset import Split
from snnrobust.data.images import ImageCollection
from snnrobust.data.pictures import pictures, unpacked

SHAPE = (3, 32, 32)


@dataclass(frozen=True)
class Cifar10(ImageCollection):
    """`<root>/cifar-10-batches-py`, or its archive in `<root>`, to be unpacked there."""

    title = "CIFAR-10"
    shape = SHAPE
    classes = 10

    def read(self, root: Path, download: bool, cache: Path) -> tuple[Split, Split]:
        return _read("CIFAR10", root, download, self.classes)


@dataclass(frozen=True)
class Cifar100(ImageCollection):
    """`<root>/cifar-100-python`, or its archive in `<root>`, to be unpacked there."""

    title = "CIFAR-100"
    shape = SHAPE
    classes = 100

    def read(self, root: Path, download: bool, cache: Path) -> tuple[Split, Split]:
        return _read("CIFAR100", root, download, self.classes)


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
