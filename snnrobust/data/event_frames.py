"""Event recordings as frames: what is found (`collections`), how it is framed, and the cache that holds the frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from snnrobust.data.augmentation import NONE, Augmentation
from snnrobust.data.collections.base import Collection
from snnrobust.data.conversion import Conversion, split_digest
from snnrobust.data.dataset import Cut, DataError, DataSource, Split, Splits
from snnrobust.data.frames import Framing
from snnrobust.data.recordings import Take
from snnrobust.settings import Byte, HeldOut, NonNegativeInt, Positive, PositiveInt


class Parts(NamedTuple):
    """The recordings of each part, in the order of its samples."""

    train: Sequence[Take]
    validation: Sequence[Take]
    test: Sequence[Take]


@dataclass(frozen=True)
class EventFrames(DataSource):
    """Recordings as frames; the validation part is cut from the training recordings, stratified by class.

    Inputs are counts divided by `max_count`, and not normalised further, as in the papers on event cameras.

    Args:
        recordings: where they lie and how they are split.
        steps: number of frames T.
        slices: `count` for frames of equal numbers of events, `time` for frames of equal duration (`frames.py`).
        window_us: duration of a frame in microseconds, for `time`; None for a T-th of the recording.
        size: rows and columns of a frame, whose cells gather the sensor's pixels; None for those of the sensor.
        max_count: of events per cell; more are clipped. 1 gives binary frames.
        validation: share of every class of the training recordings.
        split_seed: of the split and of the limits, apart from the seed of the run.
        train_limit: use only so many recordings for training, in equal numbers per class; None for all.
        test_limit: the same for the test.
        augmentation: of the training inputs.
        root: folder of the data.
        cache: folder of the frames, which may be deleted at any time.
        workers: processes that convert; None for one per processor.
        eps: customary l_inf budget, used where `threat.eps` is not given.

    Raises:
        ValueError: if `size` is larger than the sensor, `window_us` is given for slices by count, or the augmentation
            does not fit the shape of the frames.
    """

    recordings: Collection
    kind: Literal["events"] = "events"
    steps: PositiveInt = 10
    slices: Literal["count", "time"] = "count"
    window_us: PositiveInt | None = None
    size: tuple[PositiveInt, PositiveInt] | None = None
    max_count: Byte = 5
    validation: HeldOut = 0.1
    split_seed: NonNegativeInt = 0
    train_limit: PositiveInt | None = None
    test_limit: PositiveInt | None = None
    augmentation: Augmentation = NONE
    root: str = "data"
    cache: str = "data/cache"
    workers: PositiveInt | None = None
    eps: Positive = 0.02

    mean = (0.0, 0.0)
    std = (1.0, 1.0)

    def __post_init__(self) -> None:
        # Refuses settings that do not fit together before anything is read.
        shape = self.shape
        try:
            self.augmentation.refuse_misfit(shape)
        except ValueError as error:
            raise ValueError(f"augmentation.{error}") from error

    @property
    def framing(self) -> Framing:
        size = None if self.size is None else (self.size[0], self.size[1])
        return Framing(self.recordings.sensor, self.steps, self.slices, self.window_us, size, self.max_count)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.framing.shape

    @property
    def classes(self) -> int:
        return self.recordings.classes

    def parts(self) -> Parts:
        """The recordings of each part.

        Raises:
            DataError: if files are absent, or a class is too small to be split.
        """
        try:
            found = self.recordings.find(self._folder)
        except OSError as error:
            raise DataError(f"cannot read {error.filename}: {error.strerror} (dataset.root)") from error
        cut = Cut(self.validation, self.split_seed, self.train_limit, self.test_limit)
        splits = cut(_numbers(found.train), _numbers(found.test))
        return Parts(
            train=[found.train[i] for i in splits.train.values.tolist()],
            validation=[found.train[i] for i in splits.validation.values.tolist()],
            test=[found.test[i] for i in splits.test.values.tolist()],
        )

    def split_digests(self) -> dict[str, str]:
        """SHA-256 by part of the recordings' names, sizes, labels and times: what it holds, wherever the data lie.

        Raises:
            DataError: see `parts`.
        """
        return {name: split_digest(takes, self._folder) for name, takes in self.parts()._asdict().items()}

    def load(self) -> Splits:
        """Opens the frames, memory-mapped, after converting the recordings that are not in the cache.

        Raises:
            DataError: if a file is absent or damaged, or the cache cannot be written.
        """
        parts = {name: self._conversion(name, takes) for name, takes in self.parts()._asdict().items()}
        splits = {name: self._split(conversion) for name, conversion in parts.items()}
        return Splits(**splits, digests={name: conversion.split for name, conversion in parts.items()})

    def _conversion(self, name: str, takes: Sequence[Take]) -> Conversion:
        title = f"{self.recordings.title} {name}"
        parent = Path(self.cache).expanduser() / "events"
        return Conversion(title, self._folder, takes, self.framing, parent, self.workers)

    def _split(self, conversion: Conversion) -> Split:
        return Split(torch.from_numpy(conversion()), _labels(conversion.takes), self.max_count)

    @property
    def _folder(self) -> Path:
        return Path(self.root).expanduser()


def _labels(takes: Sequence[Take]) -> Tensor:
    return torch.tensor([take.label for take in takes], dtype=torch.int64)


def _numbers(takes: Sequence[Take]) -> Split:
    """The positions of the recordings, in the place of their frames."""
    return Split(torch.arange(len(takes)), _labels(takes))
