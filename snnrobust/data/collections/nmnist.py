"""N-MNIST: 60,000 + 10,000 recordings of the MNIST digits, in front of which a 34x34 sensor makes three saccades.

Source: Orchard, Jayawant, Cohen and Thakor (2015), "Converting static image datasets to spiking neuromorphic datasets
using saccades"; https://www.garrickorchard.com/datasets/n-mnist. The official split.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from snnrobust.data.collections.base import Archive, Collection, Listing, by_class, complete
from snnrobust.data.recordings import Sensor, Take

SOURCE = "https://www.garrickorchard.com/datasets/n-mnist"
DIGITS = tuple("0123456789")
PARTS = (
    (Archive(("Train.zip", "train.zip"), "20959b8e626244a1b502305a9e6e2031", "Train"), 60_000),
    (Archive(("Test.zip", "test.zip"), "69ca8762b2fe404d9b9bad1103e97832", "Test"), 10_000),
)


@dataclass(frozen=True)
class NMnist(Collection):
    """`<root>/NMNIST/{Train,Test}/<digit>/*.bin`, or `Train.zip` and `Test.zip` in that folder, to be unpacked there.

    Args:
        partial: also take a folder that holds fewer recordings than were published.
    """

    partial: bool = False

    title = "N-MNIST"
    sensor = Sensor(34, 34)
    classes = len(DIGITS)

    def find(self, root: Path) -> Listing:
        train, test = (self._part(root / "NMNIST", archive, number) for archive, number in PARTS)
        return Listing(train, test)

    def _part(self, folder: Path, archive: Archive, number: int) -> list[Take]:
        archive.unpacked(folder, SOURCE)
        own = folder / archive.holds
        expected = (
            f"expected {number} recordings {own.name}/<digit>/*.bin of N-MNIST, or {archive.names[0]} "
            f"(MD5 {archive.md5}) in {folder}, from {SOURCE}"
        )
        takes = by_class(own, DIGITS, (".bin",), expected)
        complete(own, takes, number, self.partial, expected)
        return takes
