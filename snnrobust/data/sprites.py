"""CIFAR-10 as lossless sprites: pictures of 100 x 100 images of 32x32 pixels each, in the official split and order.

The same images as `cifar.py` in a form that nothing has to be unpickled for: `train_0.webp` to `train_4.webp`,
`test.webp`, and `meta.npz` with the labels (`y_train`, `y_test`) and with masks of the images that are exact
(`lossless_train`, `lossless_test`). The others were only to be had as JPEG: they look the same, but not to a study of
small perturbations of single pixels.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snnrobust.data.dataset import DataError, Split
from snnrobust.data.images import ImageCollection
from snnrobust.data.pictures import pictures

SHAPE = (3, 32, 32)
GRID = 100  # images per row and per column of a sprite
TRAIN = tuple(f"train_{i}.webp" for i in range(5))
TEST = ("test.webp",)
META = "meta.npz"


@dataclass(frozen=True)
class Cifar10Sprites(ImageCollection):
    """`<root>/cifar10/{train_0..4,test}.webp` and `meta.npz`; they are decoded at every reading, in some seconds.

    Args:
        lossless_only: leave out the images that are JPEG decodes, in training and test.
    """

    lossless_only: bool = False

    title = "the CIFAR-10 sprites"
    shape = SHAPE
    classes = 10

    def read(self, root: Path, download: bool, cache: Path) -> tuple[Split, Split]:
        folder = root / "cifar10"
        absent = [name for name in (*TRAIN, *TEST, META) if not (folder / name).is_file()]
        if absent:
            hint = "; dataset.download=true cannot fetch them" if download else ""
            raise DataError(f"{self.title} are not in {folder}: expected {', '.join(absent)}{hint}")
        meta = _meta(folder / META)
        return self._part(folder, TRAIN, "train", meta), self._part(folder, TEST, "test", meta)

    def _part(self, folder: Path, names: tuple[str, ...], part: str, meta: dict[str, NDArray[np.generic]]) -> Split:
        images = np.concatenate([_decoded(folder / name) for name in names])
        labels, lossless = meta[f"y_{part}"], meta[f"lossless_{part}"]
        if labels.shape != (len(images),) or lossless.shape != labels.shape:
            raise DataError(f"{folder / META} is of {labels.size} {part} images: expected {len(images)}")
        chosen = lossless.astype(bool) if self.lossless_only else np.ones(len(images), bool)
        return pictures(folder, images[chosen], labels[chosen].astype(np.int64), SHAPE, self.classes)


def _meta(file: Path) -> dict[str, NDArray[np.generic]]:
    names = [f"{what}_{part}" for what in ("y", "lossless") for part in ("train", "test")]
    try:
        with file.open("rb") as raw, np.load(raw, allow_pickle=False) as content:
            return {name: content[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file} is damaged: {reason}; expected a .npz file with {', '.join(names)}") from error


def _decoded(file: Path) -> NDArray[np.uint8]:
    """The images of one sprite, row by row: `[10000, 3, 32, 32]`."""
    from PIL import Image

    channels, height, width = SHAPE
    expected = f"{GRID * width}x{GRID * height}"
    try:
        with Image.open(file, formats=("WEBP",)) as sprite:
            found = "x".join(map(str, sprite.size))
            if found != expected:
                raise DataError(f"{file} has {found} pixels: expected {expected}")
            pixels = np.asarray(sprite.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is damaged: {error}; expected a lossless WebP of {expected} pixels") from error
    grid = pixels.reshape(GRID, height, GRID, width, channels)
    return grid.transpose(0, 2, 4, 1, 3).reshape(-1, *SHAPE)
