"""Image datasets: whose pictures they are (a collection), and the settings that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from snnrobust.data.augmentation import NONE, Augmentation
from snnrobust.data.dataset import Cut, DataSource, Split, Splits
from snnrobust.settings import Fraction, HeldOut, LeftOpenFraction, NonNegativeInt, Positive, PositiveInt


class ImageCollection(ABC):
    """Pictures with an official test part. Subclasses are frozen dataclasses; their fields are settings of the yaml."""

    @property
    @abstractmethod
    def title(self) -> str:
        """For messages."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of one picture."""

    @property
    @abstractmethod
    def classes(self) -> int: ...

    @abstractmethod
    def read(self, root: Path, download: bool, cache: Path) -> tuple[Split, Split]:
        """The official training and test parts, whole, as uint8.

        Args:
            root: the files have one place in it.
            download: fetch what is absent.
            cache: folder for pictures that take long to decode.

        Raises:
            DataError: if files are absent and not to be downloaded, cannot be downloaded, are damaged or other ones.
        """


@dataclass(frozen=True)
class Images(DataSource):
    """Pictures; the validation part is cut from the training pictures, stratified by class.

    Args:
        images: which they are, and where their files lie.
        kind: decides which encoders fit.
        root: folder of the data.
        download: fetch the files if absent.
        cache: folder of decoded images, where decoding takes long; may be deleted at any time.
        validation: share of every class of the training images.
        split_seed: of the split and of the limits, apart from the seed of the run.
        train_limit: use only so many images for training, in equal numbers per class; None for all.
        test_limit: the same for the test.
        mean: per channel, in [0, 1], for the normalisation inside the model; by default that of CIFAR-10.
        std: the same.
        augmentation: of the training images.
        eps: customary l_inf budget, used where `threat.eps` is not given.

    Raises:
        ValueError: if mean, std or augmentation do not fit the shape of the pictures.
    """

    images: ImageCollection
    kind: Literal["images"] = "images"
    root: str = "data"
    download: bool = False
    cache: str = "data/cache"
    validation: HeldOut = 0.1
    split_seed: NonNegativeInt = 0
    train_limit: PositiveInt | None = None
    test_limit: PositiveInt | None = None
    mean: tuple[Fraction, ...] = (0.4914, 0.4822, 0.4465)
    std: tuple[LeftOpenFraction, ...] = (0.2023, 0.1994, 0.2010)
    augmentation: Augmentation = NONE
    eps: Positive = 8 / 255

    def __post_init__(self) -> None:
        self._refuse_misfits()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.images.shape

    @property
    def classes(self) -> int:
        return self.images.classes

    def load(self) -> Splits:
        """Reads the pictures.

        Raises:
            DataError: see `ImageCollection.read`; also if a class is too small to be split.
        """
        read = self.images.read(Path(self.root).expanduser(), self.download, Path(self.cache).expanduser())
        return Cut(self.validation, self.split_seed, self.train_limit, self.test_limit)(*read)

    def _refuse_misfits(self) -> None:
        """Statistics and augmentation must fit the shape, for which no picture has to be there."""
        channels = self.shape[0]
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != channels:
                allowed = f"{channels}, one per channel of {self.images.title}"
                raise ValueError(f"{name}: got {len(values)} values; allowed: {allowed}")
        try:
            self.augmentation.refuse_misfit(self.shape)
        except ValueError as error:
            raise ValueError(f"augmentation.{error}") from error
