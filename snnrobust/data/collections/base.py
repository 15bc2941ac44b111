"""What all collections of recordings share: folders of classes, archives beside them, a cut by file name."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from snnrobust.data.archives import unpack, verify
from snnrobust.data.dataset import DataError
from snnrobust.data.recordings import Sensor, Take


@dataclass(frozen=True)
class Listing:
    """The recordings for training and validation, and those for the test, in a fixed order."""

    train: Sequence[Take]
    test: Sequence[Take]


class Collection(ABC):
    """Recordings of a dataset. Subclasses are frozen dataclasses; their fields are settings of the yaml."""

    @property
    @abstractmethod
    def title(self) -> str:
        """For messages."""

    @property
    @abstractmethod
    def sensor(self) -> Sensor: ...

    @property
    @abstractmethod
    def classes(self) -> int: ...

    @abstractmethod
    def find(self, root: Path) -> Listing:
        """The recordings in their folder of `root`; no recording is opened.

        Raises:
            DataError: if the folder, a class or a recording is missing; it says what belongs there, and where from.
        """


@dataclass(frozen=True)
class Archive:
    """A file that may lie in a collection's folder instead of the folder `holds` that is packed in it.

    Args:
        names: of the file; publishers differ in capitals.
        md5: of its content, as published.
    """

    names: tuple[str, ...]
    md5: str
    holds: str

    def unpacked(self, folder: Path, source: str) -> None:
        """Unpacks it where it is there and what it holds is not.

        Raises:
            DataError: if it is not the published one, or cannot be unpacked.
        """
        if (folder / self.holds).exists():
            return
        for name in self.names:
            if (folder / name).is_file():
                verify(folder / name, self.md5, None, source)
                unpack(folder / name, folder, self.holds)
                return


def by_class(folder: Path, classes: Sequence[str], endings: Sequence[str], expected: str) -> list[Take]:
    """The recordings `<folder>/<class>/*<ending>`, by class, then by name, numbers in names taken as numbers.

    Args:
        folder: of the classes.
        classes: names of their folders; the position is the label.
        endings: of the recordings' names, with the dot. Other files are not looked at.
        expected: what belongs there, and where from, for messages.

    Raises:
        DataError: if a folder is absent or holds no recording.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is absent: {expected}")
    takes = []
    for label, name in enumerate(classes):
        own = folder / name
        try:
            files = [file for file in own.iterdir() if file.suffix.lower() in endings and file.name[0] != "."]
        except OSError as error:
            raise DataError(f"cannot read {own}: {error.strerror}; {expected}") from error
        if not files:
            raise DataError(f"{own} holds no recording ({', '.join(endings)}): {expected}")
        takes += [Take(file, label) for file in sorted(files, key=lambda file: natural(file.name))]
    return takes


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """A key that sorts `a_9` before `a_10`."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name))


def complete(folder: Path, takes: Sequence[Take], number: int, partial: bool, expected: str) -> None:
    """Refuses a folder that holds another number of recordings than was published, if not `partial`.

    Raises:
        DataError: with both numbers, and the setting that accepts what is there.
    """
    if len(takes) != number and not partial:
        raise DataError(
            f"{folder} holds {len(takes)} of {number} recordings: {expected}; dataset.recordings.partial=true "
            "uses what is there"
        )


def last_for_test(takes: Sequence[Take], share: float) -> Listing:
    """Every class cut by file name: the last `share` of it, at least one recording, is for the test.

    Args:
        takes: in the order of `by_class`.

    Raises:
        DataError: if a class has a single recording.
    """
    train: list[Take] = []
    test: list[Take] = []
    for label, members in groupby(takes, key=lambda take: take.label):
        own = list(members)
        number = max(1, round(share * len(own)))
        if number >= len(own):
            raise DataError(f"{own[0].path.parent} holds {len(own)} recordings of class {label}: too few to cut")
        train += own[:-number]
        test += own[-number:]
    return Listing(train, test)
