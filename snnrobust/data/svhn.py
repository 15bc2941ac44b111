"""SVHN: 73,257 + 26,032 house numbers as colour images of 32x32 pixels, 10 digits, read by torchvision.

Source: Netzer et al. (2011), "Reading digits in natural images with unsupervised feature learning"; format 2, cropped
digits, without the 531,131 extra images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from snnrobust.data.archives import verify
from snnrobust.data.dataset import DataError, Split
from snnrobust.data.images import ImageCollection
from snnrobust.data.pictures import downloading, pictures

SHAPE = (3, 32, 32)
CLASSES = 10


@dataclass(frozen=True)
class Svhn(ImageCollection):
    """`<root>/SVHN/{train,test}_32x32.mat`. The label is the digit."""

    title = "SVHN"
    shape = SHAPE
    classes = CLASSES

    def read(self, root: Path, download: bool, cache: Path) -> tuple[Split, Split]:
        return _part(root / "SVHN", "train", download), _part(root / "SVHN", "test", download)


def _part(folder: Path, part: Literal["train", "test"], download: bool) -> Split:
    from torchvision.datasets import SVHN

    url, name, md5 = SVHN.split_list[part]
    file = folder / name
    if not file.is_file() and not download:
        raise DataError(
            f"{file} is absent: expected this file (MD5 {md5}, from {url}); dataset.download=true fetches it"
        )
    if not file.is_file():
        with downloading(name, folder):
            SVHN(folder, part, download=True)
    verify(file, md5, None, url)
    read = SVHN(folder, part)
    return pictures(file, read.data, read.labels, SHAPE, CLASSES)
