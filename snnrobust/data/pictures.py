"""What reading image datasets has in common: a look at the pixels, archives that are fetched, downloads that fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from snnrobust.data.archives import unpack, verify
from snnrobust.data.dataset import DataError, Split

GREY_LEVELS = 255


def pictures(
    where: Path, values: NDArray[np.uint8], labels: NDArray[np.integer], shape: tuple[int, ...], classes: int
) -> Split:
    """Pictures as a split, after a look whether they are what the dataset says.

    Args:
        where: file or folder that they were read from, for messages.
        values: `[N, C, H, W]`.
        labels: `[N]`.
        shape: `(C, H, W)` of one picture.
        classes: labels lie in 0 to classes - 1.

    Raises:
        DataError: if they are not.
    """
    if values.dtype != np.uint8 or values.shape[1:] != shape or not len(values):
        wanted = "x".join(map(str, shape))
        raise DataError(f"{where} holds {values.dtype} of shape {values.shape}: expected uint8, N x {wanted}")
    if labels.shape != values.shape[:1]:
        raise DataError(f"{where} holds {labels.size} labels: expected {len(values)}, one per picture")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{where} holds the labels {labels.min()} to {labels.max()}: expected 0 to {classes - 1}")
    # Copied where it is read-only or a view with other strides: torch wants writable, batches want contiguous memory.
    whole = np.require(values, requirements=("C", "W"))
    return Split(torch.from_numpy(whole), torch.from_numpy(labels.astype(np.int64)), GREY_LEVELS)


@contextmanager
def downloading(what: str, folder: Path) -> Iterator[None]:
    """Turns the errors of a download by torchvision into one line.

    Raises:
        DataError: if the body fails for want of a network, of space, or because other bytes came than should.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"cannot download {what} to {folder}: {reason}") from error


def unpacked(folder: Path, archive: str, md5: str, url: str, download: bool) -> None:
    """Makes sure that a folder is there: from its archive beside it, which is fetched if it may be.

    Args:
        folder: what the archive unpacks to.
        archive: file name.
        md5: of the archive, 32 hexadecimal digits.
        url: where it comes from.
        download: whether it may be fetched.

    Raises:
        DataError: if the folder is not there afterwards; it says which file belongs where.
    """
    if folder.is_dir():
        return
    root, file = folder.parent, folder.parent / archive
    if not file.exists() and not download:
        raise DataError(
            f"{folder} is absent: expected this folder, or {file} (MD5 {md5}, from {url}); "
            "dataset.download=true fetches it"
        )
    if not file.exists():
        from torchvision.datasets.utils import download_url

        with downloading(archive, root):
            download_url(url, root, archive, md5)
    verify(file, md5, None, url)
    unpack(file, root, folder.name)
    if not folder.is_dir():
        raise DataError(f"{file} holds no folder {folder.name}")
