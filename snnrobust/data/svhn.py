"""SVHN: 73,257 + 26,032 house numbers as colour images of 32x32 pixels, 10 digits, read by torchvision.

Source: Netzer et al. (2011), "Reading digits in natural images with unsupervised feature learning"; format 2, cropped
digits, without the 531,131 extra images. Mean and standard deviation are those of the rate-gradient paper; robust
conversion uses 0.5 for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from snnrobust.data.archives import verify
from snnrobust.data.augmentation import NONE, Augmentation
from snnrobust.data.dataset import Cut, DataError, DataSource, Split, Splits
from snnrobust.data.images import downloading, pictures, refuse_misfits
from snnrobust.settings import Fraction, HeldOut, LeftOpenFraction, NonNegativeInt, Positive, PositiveInt

SHAPE = (3, 32, 32)


@dataclass(frozen=True)
class Svhn(DataSource):
    """SVHN; the validation part is cut from the training images, stratified by class. The label is the digit.

    Args:
        kind: decides which encoders fit.
        root: the files lie in `<root>/SVHN`.
        download: fetch the files if absent.
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
    mean: tuple[Fraction, ...] = (0.4377, 0.4438, 0.4728)
    std: tuple[LeftOpenFraction, ...] = (0.1980, 0.2010, 0.1970)
    augmentation: Augmentation = NONE
    eps: Positive = 8 / 255

    shape = SHAPE
    classes = 10

    def __post_init__(self) -> None:
        refuse_misfits(self)

    def load(self) -> Splits:
        """Reads the two MATLAB files, whose checksums are the official ones.

        Raises:
            DataError: if they are absent and not to be downloaded, cannot be downloaded, or are other files.
        """
        cut = Cut(self.validation, self.split_seed, self.train_limit, self.test_limit)
        folder = Path(self.root).expanduser() / "SVHN"
        return cut(*(_part(folder, part, self.download) for part in ("train", "test")))


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
    return pictures(file, read.data, read.labels, SHAPE, classes=10)
