"""N-Caltech101: 8,709 recordings of Caltech101 images, 101 classes, in front of a moving ATIS sensor.

Source: Orchard, Jayawant, Cohen and Thakor (2015), "Converting static image datasets to spiking neuromorphic datasets
using saccades"; https://www.garrickorchard.com/datasets/n-caltech101. There is no official split.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from snnrobust.data.archives import unpack
from snnrobust.data.collections.base import Archive, Collection, Listing, by_class, complete, last_for_test
from snnrobust.data.dataset import DataError
from snnrobust.data.recordings import Sensor
from snnrobust.settings import HeldOut

SOURCE = "https://www.garrickorchard.com/datasets/n-caltech101"
CLASSES, NUMBER = 101, 8_709


@dataclass(frozen=True)
class NCaltech101(Collection):
    """`<root>/NCALTECH101/Caltech101/<class>/*.bin`, or `Caltech101.zip` in the folder `NCALTECH101`.

    Images have different sizes; a recording's coordinates begin at the upper left corner of a plane of 180x240.

    Args:
        test: share of every class for the test: the last by the number in the file's name.
        partial: also take a folder that holds fewer recordings than were published; it must have all classes.
    """

    test: HeldOut = 0.1
    partial: bool = False

    title = "N-Caltech101"
    sensor = Sensor(180, 240)
    classes = CLASSES

    def find(self, root: Path) -> Listing:
        folder = root / "NCALTECH101"
        whole = Archive(("N-Caltech101-archive.zip",), "66201824eabb0239c7ab992480b50ba3", "Caltech101.zip")
        own = folder / "Caltech101"
        if not own.exists():
            whole.unpacked(folder, SOURCE)
            if (folder / whole.holds).is_file():
                unpack(folder / whole.holds, folder, own.name)
        expected = (
            f"expected {NUMBER} recordings <class>/*.bin of N-Caltech101 in {CLASSES} folders, or {whole.names[0]} "
            f"(MD5 {whole.md5}) in {folder}, from {SOURCE}"
        )
        names = sorted(path.name for path in own.iterdir() if path.is_dir()) if own.is_dir() else []
        if own.is_dir() and len(names) != CLASSES:
            raise DataError(f"{own} holds {len(names)} folders of classes: {expected}")
        takes = by_class(own, names, (".bin",), expected)
        complete(own, takes, NUMBER, self.partial, expected)
        return last_for_test(takes, self.test)
