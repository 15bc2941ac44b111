"""CIFAR10-DVS: 10,000 recordings of CIFAR-10 images that move in front of a DVS128.

Source: Li, Liu, Ji, Li and Shi (2017), "CIFAR10-DVS: an event-stream dataset for object classification";
https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671. There is no official split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from snnrobust.data.archives import unpack
from snnrobust.data.collections.base import Archive, Collection, Listing, by_class, complete, last_for_test
from snnrobust.data.dataset import DataError
from snnrobust.data.recordings import Sensor, Take
from snnrobust.settings import HeldOut

SOURCE = "https://figshare.com/ndownloader/files/38023437 (.aedat4) or https://figshare.com/s/d03a91081824536f12a8"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NUMBER = 10_000
ALL = Archive(("CIFAR10DVS.zip",), "ce3a4a0682dc0943703bd8f749a7701c", f"{CLASSES[0]}.zip")


@dataclass(frozen=True)
class Cifar10Dvs(Collection):
    """`<root>/CIFAR10DVS/<class>/*.aedat4`, or `*.aedat` (AEDAT 2) as first published, or `CIFAR10DVS.zip`.

    Args:
        test: share of every class for the test: the last by the number in the file's name.
        partial: also take a folder that holds fewer recordings than were published.
    """

    test: HeldOut = 0.1
    partial: bool = False

    title = "CIFAR10-DVS"
    sensor = Sensor(128, 128)
    classes = len(CLASSES)

    def find(self, root: Path) -> Listing:
        folder = root / "CIFAR10DVS"
        if not (folder / CLASSES[0]).exists():
            ALL.unpacked(folder, SOURCE)
        for name in CLASSES:
            # Verified as parts of the whole, or published without a checksum.
            if not (folder / name).exists() and (folder / f"{name}.zip").is_file():
                unpack(folder / f"{name}.zip", folder, name)
        expected = (
            f"expected {NUMBER // 10} recordings <class>/*.aedat4 or *.aedat of CIFAR10-DVS for each of "
            f"{', '.join(CLASSES)}, or {ALL.names[0]} (MD5 {ALL.md5}) in {folder}, from {SOURCE}"
        )
        takes = by_class(folder, CLASSES, (".aedat4", ".aedat"), expected)
        _refuse_mixture(takes, expected)
        complete(folder, takes, NUMBER, self.partial, expected)
        return last_for_test(takes, self.test)


def _refuse_mixture(takes: Sequence[Take], expected: str) -> None:
    """A recording in both formats would count twice, and might be in two parts."""
    first: dict[str, Path] = {}
    for take in takes:
        first.setdefault(take.path.suffix.lower(), take.path)
    if len(first) > 1:
        found = " and ".join(str(path) for path in first.values())
        raise DataError(f"{found} are of different formats, of which only one may be there: {expected}")
