"""What a dataset is: facts that are known without reading it, and the tensors once it is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from snnrobust.threat import Bounds


@dataclass(frozen=True)
class Batch:
    """Inputs `x` `[B, ...]` within the bounds, labels `y` `[B]`, and the samples' positions in their split `[B]`."""

    x: Tensor
    y: Tensor
    index: Tensor


@dataclass(frozen=True)
class Split:
    """One part of a dataset, whole: `values` `[N, ...]` and `labels` `[N]` int64.

    Datasets hold small integers, uint8 in 0..scale. An input is `values / scale`, so that every input lies in [0, 1]
    and `scale` is the fixed constant that links a budget in input units to grey levels or event counts. Values that
    are floats are the inputs themselves.
    """

    values: Tensor
    labels: Tensor
    scale: int = 1

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        """The same split with its tensors on `device`."""
        return Split(self.values.to(device), self.labels.to(device), self.scale)

    def batch(self, index: Tensor) -> Batch:
        """The samples at `index` `[B]`, as floats, on the device of the split."""
        on_device = index.to(self.values.device)
        values = self.values[on_device]
        x = values if values.is_floating_point() else values.float().div_(self.scale)
        return Batch(x, self.labels[on_device], index)

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, in batches of `size` (the last one may be smaller)."""
        for index in torch.arange(len(self)).split(size):
            yield self.batch(index)


@dataclass(frozen=True)
class Splits:
    """The three parts. Every choice is made on `validation`; `test` is for the final figures alone."""

    train: Split
    validation: Split
    test: Split


class DataSource(ABC):
    """A dataset that can be loaded. Subclasses are frozen dataclasses; their fields are the settings of the yaml."""

    @property
    @abstractmethod
    def kind(self) -> Literal["images", "events"]:
        """Decides which encoders fit."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one input: `(C, H, W)` for images, `(T, C, H, W)` for event frames."""

    @property
    @abstractmethod
    def classes(self) -> int: ...

    @property
    @abstractmethod
    def mean(self) -> tuple[float, ...]:
        """Per channel, for the normalisation inside the model."""

    @property
    @abstractmethod
    def std(self) -> tuple[float, ...]: ...

    @property
    def bounds(self) -> Bounds:
        return Bounds(0.0, 1.0)

    @abstractmethod
    def load(self) -> Splits:
        """Reads the data. Raises `DataError` where files are absent or damaged."""


class DataError(Exception):
    """Data that cannot be used: one line that says what, where, and what is expected."""


def stratified(labels: Tensor, fractions: tuple[float, ...], seed: int) -> tuple[Tensor, ...]:
    """Disjoint, sorted index sets with the given fractions of every class, and the rest of the data as the last set.

    Args:
        labels: `[N]` int64.
        fractions: of each class, each in (0, 1), sum below 1.
        seed: of the shuffle; the same seed gives the same sets on every machine.

    Raises:
        DataError: if a class is too small to give every set a sample.
    """
    generator = torch.Generator().manual_seed(seed)
    parts: list[list[Tensor]] = [[] for _ in range(len(fractions) + 1)]
    for label in labels.unique(sorted=True):
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        counts = [round(fraction * len(members)) for fraction in fractions]
        counts.append(len(members) - sum(counts))
        if min(counts) < 1:
            raise DataError(f"class {int(label)} has {len(members)} samples: too few for the parts {counts}")
        for part, chosen in zip(parts, members.split(counts), strict=True):
            part.append(chosen)
    return tuple(torch.cat(part).sort().values for part in parts)
