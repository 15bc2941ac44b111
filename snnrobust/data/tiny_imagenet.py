"""Tiny-ImageNet: 100,000 + 10,000 colour images of 64x64 pixels, 200 classes, from the folders of the official zip.

Source: Le and Yang (2015), "Tiny ImageNet visual recognition challenge". The labels of the official test part are not
public: as is customary, `val` is the test part here. The pictures are JPEG files; some are grey. They are decoded once
and kept as memory-mapped arrays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snnrobust.data.cache import Arrays, cached
from snnrobust.data.dataset import DataError, Split
from snnrobust.data.images import ImageCollection
from snnrobust.data.pictures import pictures, unpacked

SHAPE = (3, 64, 64)
CLASSES = 200
TRAIN_PER_CLASS = 500
TEST = 10_000
FOLDER = "tiny-imagenet-200"
ARCHIVE = "tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"

# Part of the key of the cache: to be raised with every change of this file that changes arrays.
FORMAT = 1

Labelled = tuple[Path, int]
"""A picture and its class."""


@dataclass(frozen=True)
class TinyImageNet(ImageCollection):
    """`<root>/tiny-imagenet-200`, or its archive in `<root>`, to be unpacked there; decoded once, in about a minute.

    The classes are numbered in the order of their WordNet names.
    """

    title = "Tiny-ImageNet"
    shape = SHAPE
    classes = CLASSES

    def read(self, root: Path, download: bool, cache: Path) -> tuple[Split, Split]:
        folder = root / FOLDER
        unpacked(folder, ARCHIVE, MD5, URL, download)
        parts = {"train": _training(folder), "test": _test(folder)}
        content = {"format": FORMAT, "files": {name: _fingerprint(folder, part) for name, part in parts.items()}}

        def build() -> Arrays:
            return {name: _decoded(part) for name, part in parts.items()}

        arrays = cached(cache / "tiny_imagenet", content, build, setting="dataset.cache")
        train, test = (
            pictures(folder, arrays[name], np.array([label for _, label in part]), SHAPE, CLASSES)
            for name, part in parts.items()
        )
        return train, test


def _classes(folder: Path) -> dict[str, int]:
    """The number of every WordNet name."""
    names = sorted(_lines(folder / "wnids.txt"))
    if len(set(names)) != CLASSES:
        raise DataError(f"{folder / 'wnids.txt'} names {len(set(names))} classes: expected {CLASSES}")
    return {name: number for number, name in enumerate(names)}


def _training(folder: Path) -> list[Labelled]:
    """`train/<class>/images/*.JPEG`, in the order of classes and names."""
    classes = _classes(folder)
    found = {name: _found(folder / "train" / name) for name in classes}
    for name, paths in found.items():
        _refuse_part(folder / "train" / name, len(paths), TRAIN_PER_CLASS)
    return [(path, classes[name]) for name, paths in found.items() for path in paths]


def _test(folder: Path) -> list[Labelled]:
    """`val/images/*.JPEG` in the order of `val/val_annotations.txt`: name, class and four numbers per line."""
    classes, annotations, images = _classes(folder), folder / "val" / "val_annotations.txt", folder / "val" / "images"
    labels = {}
    for number, line in enumerate(_lines(annotations), start=1):
        name, _, rest = line.partition("\t")
        label = classes.get(rest.partition("\t")[0])
        if label is None or Path(name).name != name:
            raise DataError(f"{annotations}, line {number}: got {line!r}; expected a file name, a tab, a class")
        labels[images / name] = label
    found = set(_found(folder / "val"))
    _refuse_part(folder / "val", len(found), TEST)
    if labels.keys() != found:
        lost, left = len(labels.keys() - found), len(found - labels.keys())
        raise DataError(f"{annotations} does not fit {images}: {lost} of its files are absent, {left} have no line")
    return [*labels.items()]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text"
        raise DataError(f"cannot read {file}: {reason}; expected the file of {ARCHIVE} ({URL})") from error


def _found(folder: Path) -> list[Path]:
    """The pictures in `<folder>/images`, by name."""
    found = sorted((folder / "images").glob("*.JPEG"))
    if not found:
        raise DataError(f"{folder / 'images'} holds no .JPEG file: expected those of {ARCHIVE} ({URL})")
    return found


def _refuse_part(folder: Path, found: int, expected: int) -> None:
    """A copy that was interrupted must not pass for the dataset."""
    if found != expected:
        raise DataError(f"{folder / 'images'} holds {found} pictures: expected {expected}, as in {ARCHIVE} ({URL})")


def _fingerprint(folder: Path, part: Sequence[Labelled]) -> str:
    """SHA-256 of names, sizes and labels."""
    rows = (f"{path.relative_to(folder).as_posix()} {path.stat().st_size} {label}\n" for path, label in part)
    return hashlib.sha256("".join(rows).encode()).hexdigest()


def _decoded(part: Sequence[Labelled]) -> NDArray[np.uint8]:
    values = np.empty((len(part), *SHAPE), np.uint8)
    for row, (path, _) in zip(values, part, strict=True):
        row[:] = _picture(path)
    return values


def _picture(path: Path) -> NDArray[np.uint8]:
    """`[3, 64, 64]`; grey pictures have three equal channels."""
    from PIL import Image

    size = (SHAPE[2], SHAPE[1])
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as picture:
            if picture.size != size:
                found = "x".join(map(str, picture.size))
                raise DataError(f"{path} has {found} pixels: expected {SHAPE[2]}x{SHAPE[1]}")
            return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is damaged: {error}; expected the file of {ARCHIVE} ({URL})") from error
