"""ASL-DVS: 100,800 recordings of 24 letters of American sign language (without j and z, which move), a DAVIS240c.

Source: Bi, Chadha, Abbas, Bourtsoulatze and Andreopoulos (2019), "Graph-based object classification for neuromorphic
vision sensing"; https://github.com/PIX2NVS/NVS2Graph. There is no official split.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from snnrobust.data.collections.base import Collection, Listing, by_class, complete, last_for_test
from snnrobust.data.recordings import Sensor
from snnrobust.settings import HeldOut

SOURCE = "https://github.com/PIX2NVS/NVS2Graph (unpack its Yin_*.zip)"
LETTERS = tuple("abcdefghiklmnopqrstuvwxy")
NUMBER = 100_800


@dataclass(frozen=True)
class AslDvs(Collection):
    """`<root>/ASLDVS/<letter>/*.mat`.

    Args:
        test: share of every class for the test: the last by the number in the file's name.
        partial: also take a folder that holds fewer recordings than were published.
    """

    test: HeldOut = 0.2
    partial: bool = False

    title = "ASL-DVS"
    sensor = Sensor(180, 240)
    classes = len(LETTERS)

    def find(self, root: Path) -> Listing:
        folder = root / "ASLDVS"
        expected = (
            f"expected {NUMBER // self.classes} recordings <letter>/*.mat of ASL-DVS for each of "
            f"{', '.join(LETTERS)} in {folder}, from {SOURCE}"
        )
        takes = by_class(folder, LETTERS, (".mat",), expected)
        complete(folder, takes, NUMBER, self.partial, expected)
        return last_for_test(takes, self.test)
