"""Any folder of recordings, one folder per class, in any format that `recordings.py` reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from snnrobust.data.collections.base import Collection, Listing, by_class, last_for_test
from snnrobust.data.dataset import DataError
from snnrobust.data.recordings import READERS, Sensor, Take
from snnrobust.settings import HeldOut, PositiveInt

KNOWN = tuple(sorted(READERS))


@dataclass(frozen=True)
class Folder(Collection):
    """`<root>/<name>/<class>/*`, or `<root>/<name>/{train,test}/<class>/*`; labels follow the sorted names of classes.

    Args:
        name: of the folder.
        classes: number of classes that it must hold.
        sensor_size: rows and columns of the camera.
        test: share of every class for the test, the last by file name; without effect where there is a folder `test`.
    """

    name: str = "recordings"
    classes: PositiveInt = 10
    sensor_size: tuple[PositiveInt, PositiveInt] = (128, 128)
    test: HeldOut = 0.2

    @property
    def title(self) -> str:
        return self.name

    @property
    def sensor(self) -> Sensor:
        return Sensor(*self.sensor_size)

    def find(self, root: Path) -> Listing:
        folder = root / self.name
        expected = f"expected {self.classes} folders of classes (dataset.recordings.classes) with {', '.join(KNOWN)}"
        if not folder.is_dir():
            raise DataError(f"{folder} is absent: {expected}")
        if (folder / "train").is_dir() and (folder / "test").is_dir():
            names = self._names(folder / "train", expected)
            if self._names(folder / "test", expected) != names:
                raise DataError(f"{folder / 'test'} holds other classes than {folder / 'train'}: {expected}")
            train, test = (self._takes(folder / part, names, expected) for part in ("train", "test"))
            return Listing(train, test)
        return last_for_test(self._takes(folder, self._names(folder, expected), expected), self.test)

    def _names(self, folder: Path, expected: str) -> list[str]:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
        if len(names) != self.classes:
            raise DataError(f"{folder} holds {len(names)} folders of classes: {expected}")
        return names

    def _takes(self, folder: Path, names: list[str], expected: str) -> list[Take]:
        for name in names:
            unknown = [f for f in (folder / name).iterdir() if f.suffix.lower() not in KNOWN and f.name[0] != "."]
            if unknown:
                raise DataError(f"{sorted(unknown)[0]} is of no known format: expected {', '.join(KNOWN)}")
        return by_class(folder, names, KNOWN, expected)
