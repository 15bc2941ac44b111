"""Event recordings per second: converted with tonic, converted by us, and read from the cache.

Files of 40-bit events at random places and times, as many as recordings of the datasets have; one process, one thread.
Converting is reading the files, checking the events, making frames, and writing these; an epoch from the cache is every
sample once, in a new order, in batches, of bytes as they are stored, or of floats as a network takes them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tonic.io import read_mnist_file
from tonic.transforms import ToFrame
from torch import Tensor

from benchmarks.pairs import Timing, measure
from snnrobust.data.conversion import Conversion
from snnrobust.data.dataset import Split
from snnrobust.data.frames import Framing
from snnrobust.data.recordings import Sensor, Take
from snnrobust.data.saccades import EVENT
from snnrobust.randomness import generator

BATCH = 64
STEPS = 10
MAX_COUNT = 20
ROUNDS = 3


@dataclass(frozen=True)
class Case:
    """Recordings of `events` events each, of a square sensor, as square frames."""

    name: str
    recordings: int
    events: int
    sensor: int
    size: int

    @property
    def framing(self) -> Framing:
        sensor = Sensor(self.sensor, self.sensor)
        return Framing(sensor, STEPS, "count", None, (self.size, self.size), MAX_COUNT)


CASES = (
    Case("N-MNIST", 1024, 4_000, 34, 34),
    Case("CIFAR10-DVS", 64, 200_000, 128, 48),
    Case("DVS128 Gesture", 32, 400_000, 128, 64),
)


def written(folder: Path, case: Case) -> list[Take]:
    draw = np.random.default_rng(0)
    takes = []
    for i in range(case.recordings):
        content = np.frombuffer(draw.bytes(5 * case.events), dtype=np.uint8).reshape(-1, 5).copy()
        content[:, :2] %= case.sensor
        t = np.sort(draw.integers(1_000_000, size=case.events))
        content[:, 2] = content[:, 2] & 128 | t >> 16
        content[:, 3], content[:, 4] = t >> 8 & 255, t & 255
        takes.append(Take(folder / f"{i}.bin", 0))
        takes[-1].path.write_bytes(content.tobytes())
    return takes


def tonic(case: Case, takes: Sequence[Take]) -> Callable[[], object]:
    """Frames of the whole sensor: tonic does not gather pixels while it counts."""
    to_frame = ToFrame(sensor_size=(case.sensor, case.sensor, 2), n_event_bins=STEPS)
    return lambda: [to_frame(read_mnist_file(take.path, dtype=EVENT)) for take in takes]


def converting(conversion: Conversion) -> Callable[[], object]:
    def convert() -> object:
        shutil.rmtree(conversion.parent, ignore_errors=True)
        return conversion()

    return convert


def reading(conversion: Conversion, deliver: Callable[[Split, Tensor], object]) -> Callable[[], object]:
    """An epoch in a new order; the cache is opened when the first one begins."""
    epochs = iter(range(10**6))
    opened: list[Split] = []

    def epoch() -> None:
        if not opened:
            opened.append(Split(torch.from_numpy(conversion()), torch.zeros(len(conversion.takes)), MAX_COUNT))
        (split,) = opened
        for index in torch.randperm(len(split), generator=generator("order", 0, next(epochs))).split(BATCH):
            deliver(split, index)

    return epoch


def _bytes(split: Split, index: Tensor) -> Tensor:
    return split.values.index_select(0, index)


def measured(case: Case) -> list[Timing]:
    with tempfile.TemporaryDirectory() as name, one_thread():
        root = Path(name)
        takes = written(root, case)
        conversion = Conversion(case.name, root, takes, case.framing, root / "cache", workers=1)
        alternatives = {
            "tonic: read, ToFrame": tonic(case, takes),
            "snnrobust: convert into the cache": converting(conversion),
            "snnrobust: an epoch from the cache": reading(conversion, _bytes),
            "the same as floats in [0, 1]": reading(conversion, Split.batch),
        }
        return measure(alternatives, rounds=ROUNDS, warmup=1)


def conversions() -> list[str]:
    """Lines of tables, one table per case."""
    lines = []
    for case in CASES:
        timings = measured(case)
        rows = [
            f"| {t.name} | {1e3 * case.recordings / t.median:,.0f} | {1e3 * case.recordings / t.highest:,.0f} - "
            f"{1e3 * case.recordings / t.lowest:,.0f} | {1 / t.ratio:.1f} |"
            for t in timings
        ]
        lines += [
            f"### As {case.name}: {case.events:,} events, {case.sensor}x{case.sensor} pixels, {STEPS} frames of "
            f"{case.size}x{case.size}",
            "",
            "| | recordings per second, median | range | times as fast as the first |",
            "|---|---:|---:|---:|",
            *rows,
            "",
            f"Reading the frames is {timings[1].median / timings[2].median:.0f} times as fast as converting, "
            f"{timings[1].median / timings[3].median:.0f} times where they become floats on the same thread.",
            "",
        ]
    return lines


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    print("\n".join(conversions()))
