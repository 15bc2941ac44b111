"""MNIST and Fashion-MNIST: 60,000 + 10,000 grey images of 28x28 pixels, 10 classes, read by torchvision.

Sources: LeCun, Bottou, Bengio and Haffner (1998), "Gradient-based learning applied to document recognition"; Xiao,
Rasul and Vollgraf (2017), "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms".
"""

from __future__ import annotations

from dataclasses import dataclass
from http.client import HTTPException
from math import prod
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from snnrobust.data.dataset import DataError, DataSource, Split, Splits, stratified
from snnrobust.settings import HeldOut, NonNegativeInt, Positive, PositiveInt

GREY_LEVELS = 255
SIDE = 28
CLASSES = 10

# Mean and standard deviation of the 60,000 training images, in [0, 1].
STATISTICS = {"MNIST": (0.1307, 0.3081), "FashionMNIST": (0.2860, 0.3530)}

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True)
class Mnist(DataSource):
    """MNIST or Fashion-MNIST; the validation part is cut from the training images, stratified by class.

    Args:
        name: which of the two.
        eps: customary l_inf budget, used where `threat.eps` is not given.
        root: the files lie in `<root>/<name>/raw`.
        download: fetch the files if they are absent.
        validation: share of every class of the training images.
        split_seed: of the split and of the limits, apart from the seed of the run.
        train_limit: use only so many images for training, in equal numbers per class; None for all.
        test_limit: the same for the test.
    """

    name: Literal["MNIST", "FashionMNIST"]
    eps: Positive
    kind: Literal["images"] = "images"
    root: str = "data"
    download: bool = False
    validation: HeldOut = 0.1
    split_seed: NonNegativeInt = 0
    train_limit: PositiveInt | None = None
    test_limit: PositiveInt | None = None

    shape = (1, SIDE, SIDE)
    classes = CLASSES

    @property
    def mean(self) -> tuple[float, ...]:
        return (STATISTICS[self.name][0],)

    @property
    def std(self) -> tuple[float, ...]:
        return (STATISTICS[self.name][1],)

    def load(self) -> Splits:
        """Reads the four files.

        Raises:
            DataError: if they are absent and not to be downloaded, cannot be downloaded, or are damaged.
        """
        folder = Path(self.root).expanduser() / self.name / "raw"
        absent = [name for name in FILES if not (folder / name).is_file()]
        if absent and not self.download:
            wanted = ", ".join(absent)
            raise DataError(f"{self.name} is not in {folder}: expected {wanted}; dataset.download=true fetches them")
        if absent:
            _download(self.name, folder)
        images, labels = _pair(folder, "train")
        test_images, test_labels = _pair(folder, "t10k")
        validation, train = stratified(labels, (self.validation,), self.split_seed)
        train = train[balanced(labels[train], self.train_limit, self.split_seed)]
        test = balanced(test_labels, self.test_limit, self.split_seed)

        def part(index: Tensor, images: Tensor, labels: Tensor) -> Split:
            return Split(images[index].unsqueeze(1), labels[index], GREY_LEVELS)

        return Splits(
            train=part(train, images, labels),
            validation=part(validation, images, labels),
            test=part(test, test_images, test_labels),
        )


def balanced(labels: Tensor, limit: int | None, seed: int) -> Tensor:
    """Sorted positions of `limit` samples, the classes in numbers that differ by one at most where they last.

    The samples are shuffled and taken in turns from the classes: a smaller limit gives a subset of a larger one.

    Args:
        labels: `[N]`.
        limit: None, or at least N, for all.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    turn = torch.empty_like(order)
    for label in range(CLASSES):
        members = labels[order] == label
        turn[members] = torch.arange(int(members.sum()))
    return order[turn.argsort(stable=True)][:limit].sort().values


def _download(name: Literal["MNIST", "FashionMNIST"], folder: Path) -> None:
    from torchvision import datasets

    source = {"MNIST": datasets.MNIST, "FashionMNIST": datasets.FashionMNIST}[name]
    try:
        source(folder.parents[1], download=True)
    except (OSError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"cannot download {name} to {folder}: {reason}; expected there: {', '.join(FILES)}") from error


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
