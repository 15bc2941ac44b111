"""DVS128 Gesture: 11 gestures of 29 people under three kinds of light, in front of a DVS128.

Source: Amir et al. (2017), "A low power, fully event-based gesture recognition system";
https://research.ibm.com/interactive/dvsgesture. The official split, by people: users 1 to 23 and 24 to 29.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from snnrobust.data.collections.base import Archive, Collection, Listing, complete, natural
from snnrobust.data.dataset import DataError
from snnrobust.data.recordings import Sensor, Take

SOURCE = "https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8"
TONIC = "https://figshare.com/ndownloader/files/38022171 and 38020584"
CLASSES = 11
WHOLE = Archive(("DvsGesture.tar.gz",), "8a5c71fb11e24e5ca5b11866ca6c00a1", "DvsGesture")
NUMBERS = {"aedat": (1176, 288), "npy": (1077, 264)}
"""Gestures for training and test; tonic's selection is the smaller one."""
CUT = (
    Archive(("ibmGestureTrain.tar.gz",), "3a8f0d4120a166bac7591f77409cb105", "ibmGestureTrain"),
    Archive(("ibmGestureTest.tar.gz",), "56070e45dadaa85fff82e0fbfbc06de5", "ibmGestureTest"),
)


@dataclass(frozen=True)
class DvsGesture(Collection):
    """Gestures, cut from the recordings of the authors by the times that they give, or as tonic distributes them.

    Args:
        files: `aedat`: `<root>/DvsGesture` with `trials_to_{train,test}.txt`, `user*.aedat` (AEDAT 3.1) and
            `user*_labels.csv`; `npy`: `<root>/DVSGesture/ibmGesture{Train,Test}/user*/<label>.npy`, times in ms.
        partial: also take a folder that holds fewer gestures than were published.
    """

    files: Literal["aedat", "npy"] = "aedat"
    partial: bool = False

    title = "DVS128 Gesture"
    sensor = Sensor(128, 128)
    classes = CLASSES

    def find(self, root: Path) -> Listing:
        parts = self._authors(root / WHOLE.holds) if self.files == "aedat" else self._tonic(root / "DVSGesture")
        train, test = parts
        return Listing(train, test)

    def _authors(self, folder: Path) -> list[list[Take]]:
        WHOLE.unpacked(folder.parent, SOURCE)
        parts = []
        for part, number in zip(("train", "test"), NUMBERS["aedat"], strict=True):
            expected = (
                f"expected trials_to_{part}.txt and the recordings that it lists, with their _labels.csv, of DVS128 "
                f"Gesture in {folder}, or {WHOLE.names[0]} (MD5 {WHOLE.md5}) in {folder.parent}, from {SOURCE}"
            )
            names = _lines(folder / f"trials_to_{part}.txt", expected)
            absent = [name for name in names if not (folder / name).is_file()]
            if absent and not self.partial:
                raise DataError(f"{folder / absent[0]} is absent ({len(absent)} of {len(names)} are): {expected}")
            takes = [take for name in names if name not in absent for take in _cut(folder / name, expected)]
            complete(folder, takes, number, self.partial, expected)
            parts.append(takes)
        return parts

    def _tonic(self, folder: Path) -> list[list[Take]]:
        parts = []
        for archive, number in zip(CUT, NUMBERS["npy"], strict=True):
            archive.unpacked(folder, TONIC)
            own = folder / archive.holds
            expected = (
                f"expected {number} gestures {own.name}/user*/<label>.npy, or {archive.names[0]} (MD5 {archive.md5}) "
                f"in {folder}, from {TONIC}"
            )
            if not own.is_dir():
                raise DataError(f"{own} is absent: {expected}")
            files = sorted(own.glob("user*/*.npy"), key=lambda file: natural(f"{file.parent.name}/{file.name}"))
            takes = [Take(file, _label(file)) for file in files]
            complete(own, takes, number, self.partial, expected)
            parts.append(takes)
        return parts


def _lines(file: Path, expected: str) -> Sequence[str]:
    try:
        lines = file.read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}; {expected}") from error
    if not lines:
        raise DataError(f"{file} is empty: {expected}")
    return lines


def _cut(recording: Path, expected: str) -> list[Take]:
    """The gestures of a recording, by its file of labels: class from 1, first and last microsecond."""
    file = recording.with_name(f"{recording.stem}_labels.csv")
    try:
        with file.open(newline="") as content:
            rows = [[int(value) for value in row] for row in list(csv.reader(content))[1:] if row]
        takes = [Take(recording, label - 1, start, stop) for label, start, stop in rows]
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}; {expected}") from error
    except ValueError as error:
        raise DataError(f"{file} is damaged: {error}; expected rows of class, startTime_usec, endTime_usec") from error
    for take, (label, start, stop) in zip(takes, rows, strict=True):
        if not 0 <= take.label < CLASSES or not 0 <= start < stop:
            raise DataError(
                f"{file} has the row {label},{start},{stop}: expected a class from 1 to {CLASSES}, and a start before "
                "the end"
            )
    return takes


def _label(file: Path) -> int:
    if not file.stem.isdecimal() or int(file.stem) >= CLASSES:
        raise DataError(f"{file} is named after no gesture: expected 0.npy to {CLASSES - 1}.npy")
    return int(file.stem)
