"""MNIST and Fashion-MNIST: 60,000 + 10,000 grey images of 28x28 pixels, 10 classes, read by torchvision.

Sources: LeCun, Bottou, Bengio and Haffner (1998), "Gradient-based learning applied to document recognition"; Xiao,
Rasul and Vollgraf (2017), "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms".
"""

from __future__ import annotations

import gzip
import shutil
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal
from uuid import uuid4

from torch import Tensor

from snnrobust.data.archives import verify
from snnrobust.data.dataset import DataError, Split
from snnrobust.data.images import ImageCollection
from snnrobust.data.pictures import GREY_LEVELS, downloading

SIDE = 28
CLASSES = 10
SOURCES = {"MNIST": "yann.lecun.com/exdb/mnist", "FashionMNIST": "github.com/zalandoresearch/fashion-mnist"}
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True)
class Mnist(ImageCollection):
    """`<root>/MNIST/raw/*-ubyte`, or the same files as `.gz`, to be unpacked there."""

    title = "MNIST"
    shape = (1, SIDE, SIDE)
    classes = CLASSES

    def read(self, root: Path, download: bool, cache: Path) -> tuple[Split, Split]:
        return _read("MNIST", root, download)


@dataclass(frozen=True)
class FashionMnist(ImageCollection):
    """`<root>/FashionMNIST/raw/*-ubyte`, or the same files as `.gz`, to be unpacked there."""

    title = "Fashion-MNIST"
    shape = (1, SIDE, SIDE)
    classes = CLASSES

    def read(self, root: Path, download: bool, cache: Path) -> tuple[Split, Split]:
        return _read("FashionMNIST", root, download)


def _read(name: Literal["MNIST", "FashionMNIST"], root: Path, download: bool) -> tuple[Split, Split]:
    """The official training and test parts."""
    from torchvision import datasets

    source = {"MNIST": datasets.MNIST, "FashionMNIST": datasets.FashionMNIST}[name]
    folder = root / name / "raw"
    for archive, md5 in source.resources:
        _decompressed(folder / archive, md5, SOURCES[name])
    absent = [file for file in FILES if not (folder / file).is_file()]
    if absent and not download:
        wanted = ", ".join(absent)
        raise DataError(
            f"{name} is not in {folder}: expected {wanted} (from {SOURCES[name]}); dataset.download=true fetches them"
        )
    if absent:
        with downloading(f"{name} ({', '.join(FILES)})", folder):
            source(root, download=True)
    images, labels = _pair(folder, "train")
    test_images, test_labels = _pair(folder, "t10k")
    return (
        Split(images.unsqueeze(1), labels, GREY_LEVELS),
        Split(test_images.unsqueeze(1), test_labels, GREY_LEVELS),
    )


def _decompressed(archive: Path, md5: str, source: str) -> None:
    """Puts the content of a .gz file beside it, where it is there and its content is not."""
    file = archive.with_suffix("")
    if file.is_file() or not archive.is_file():
        return
    verify(archive, md5, None, source)
    unfinished = archive.with_name(f".{file.name}.{uuid4().hex}")
    try:
        with gzip.open(archive) as content, unfinished.open("xb") as copy:
            shutil.copyfileobj(content, copy)
        unfinished.rename(file)
    except OSError as error:
        raise DataError(f"cannot unpack {archive} to {file}: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _pair(folder: Path, part: Literal["train", "t10k"]) -> tuple[Tensor, Tensor]:
    """Images `[N, 28, 28]` uint8 and labels `[N]` int64."""
    from torchvision.datasets.mnist import read_image_file, read_label_file

    image_file, label_file = folder / f"{part}-images-idx3-ubyte", folder / f"{part}-labels-idx1-ubyte"
    (count, *sides), (label_count,) = _sizes(image_file, 3), _sizes(label_file, 1)
    if sides != [SIDE, SIDE]:
        raise DataError(f"{image_file} holds images of {sides[0]}x{sides[1]} pixels: expected {SIDE}x{SIDE}")
    if count != label_count:
        raise DataError(f"{label_file} holds {label_count} labels: expected {count}, as {image_file.name} has")
    labels: Tensor = read_label_file(str(label_file))
    if int(labels.max()) >= CLASSES:
        raise DataError(f"{label_file} holds the label {int(labels.max())}: expected 0 to {CLASSES - 1}")
    return read_image_file(str(image_file)), labels


def _sizes(file: Path, dimensions: int) -> list[int]:
    """The sizes in the header of an idx file of bytes, after a check that the file is as long as they say.

    Header: two zero bytes, 8 for unsigned bytes, the number of dimensions, then each size as a big-endian int32.
    """
    expected = f"expected an idx{dimensions} file of unsigned bytes; delete it and set dataset.download=true"
    try:
        with file.open("rb") as content:
            header = content.read(4 + 4 * dimensions)
        actual = file.stat().st_size
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}; {expected}") from error
    if header[:4] != bytes((0, 0, 8, dimensions)) or len(header) < 4 + 4 * dimensions:
        raise DataError(f"{file} is damaged: its header is {header[:4].hex(' ') or 'empty'}; {expected}")
    sizes = [int.from_bytes(header[4 * i : 4 * i + 4], "big") for i in range(1, dimensions + 1)]
    stated = len(header) + prod(sizes)
    if actual != stated or not sizes[0]:
        raise DataError(f"{file} is damaged: {actual} bytes, its header says {stated}; {expected}")
    return sizes
