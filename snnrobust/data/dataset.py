"""What a dataset is: facts that are known without reading it, and the tensors once it is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from snnrobust.data.augmentation import NONE, Augmentation
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

    def part(self, index: Tensor) -> Split:
        """The samples at `index` `[N]`, as a split of their own; the same one, not copied, where these are all."""
        if torch.equal(index, torch.arange(len(self))):
            return self
        return Split(self.values.index_select(0, index), self.labels[index], self.scale)

    def batch(self, index: Tensor) -> Batch:
        """The samples at `index` `[B]`, as floats, on the device of the split."""
        on_device = index.to(self.values.device)
        values = self.values.index_select(0, on_device)
        x = values if values.is_floating_point() else values.float().div_(self.scale)
        return Batch(x, self.labels[on_device], index)

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, in batches of `size` (the last one may be smaller)."""
        for index in torch.arange(len(self)).split(size):
            yield self.batch(index)


@dataclass(frozen=True)
class Splits:
    """The three parts. Every choice is made on `validation`; `test` is for the final figures alone.

    `digests` tell by part what is in it, for data whose content is not published as a whole: see `split_digests`.
    """

    train: Split
    validation: Split
    test: Split
    digests: Mapping[str, str] = field(default_factory=dict)

    def to(self, device: torch.device) -> Splits:
        """The same parts with their tensors on `device`."""
        return Splits(self.train.to(device), self.validation.to(device), self.test.to(device), self.digests)


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

    @property
    def augmentation(self) -> Augmentation:
        """Of the training inputs. Datasets that offer a choice have a setting of this name."""
        return NONE

    def split_digests(self) -> Mapping[str, str]:
        """SHA-256 by part of which files are in it, for data of which others may have other files under the same name.

        They are kept with weights and results, which are those of these files alone.

        Raises:
            DataError: where files are absent.
        """
        return {}

    @abstractmethod
    def load(self) -> Splits:
        """Reads the data. Raises `DataError` where files are absent or damaged."""


class DataError(Exception):
    """Data that cannot be used: one line that says what, where, and what is expected."""


def refuse_other_files(recorded: Mapping[str, str], found: Mapping[str, str], than: str, remedy: str) -> None:
    """Passes silently if data are of the files that something was made of.

    Args:
        recorded: digests by part, see `DataSource.split_digests`; none where the content is published as a whole.
        found: those of the data today.
        than: what was made of the recorded ones, for the message.
        remedy: what to do instead of bringing the same files back.

    Raises:
        DataError: naming the parts that differ.
    """
    if recorded and dict(recorded) != dict(found):
        parts = ", ".join(part for part, digest in recorded.items() if found.get(part) != digest)
        raise DataError(f"dataset.root: other files than {than} ({parts}); allowed: the same files, or {remedy}")


def stratified(labels: Tensor, fractions: tuple[float, ...], seed: int) -> tuple[Tensor, ...]:
    """Disjoint, sorted index sets with the given fractions of every class, and the rest of the data as the last set.

    Args:
        labels: `[N]` int64.
        fractions: of each class, each in (0, 1), sum below 1.
        seed: of the shuffle; the same seed gives the same sets on every machine.

    Raises:
        DataError: if a class is too small to give every set a sample; it names the setting of the shares.
    """
    generator = torch.Generator().manual_seed(seed)
    parts: list[list[Tensor]] = [[] for _ in range(len(fractions) + 1)]
    for label in labels.unique(sorted=True):
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        counts = [round(fraction * len(members)) for fraction in fractions]
        counts.append(len(members) - sum(counts))
        if min(counts) < 1:
            found = " + ".join(map(str, counts))
            raise DataError(
                f"class {int(label)} has {len(members)} samples, of which the parts would have {found}: expected at "
                "least one in each; set dataset.validation (the share of every class), or add samples of this class"
            )
        for part, chosen in zip(parts, members.split(counts), strict=True):
            part.append(chosen)
    return tuple(torch.cat(part).sort().values for part in parts)


def balanced(labels: Tensor, limit: int | None, seed: int) -> Tensor:
    """Sorted positions of `limit` samples, the classes in numbers that differ by one at most where they last.

    The samples are shuffled and taken in turns from the classes: a smaller limit gives a subset of a larger one.

    Args:
        labels: `[N]` int64.
        limit: None, or at least N, for all.
        seed: of the shuffle.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    turn = torch.empty_like(order)
    for label in labels.unique():
        members = labels[order] == label
        turn[members] = torch.arange(int(members.sum()))
    return order[turn.argsort(stable=True)][:limit].sort().values


@dataclass(frozen=True)
class Cut:
    """How a dataset with an official test part is cut: the validation part comes from the training samples.

    Args:
        validation: share of every class of the training samples.
        seed: of the split and of the limits, apart from the seed of the run.
        train_limit: use only so many samples for training, in equal numbers per class; None for all.
        test_limit: the same for the test.
    """

    validation: float
    seed: int
    train_limit: int | None = None
    test_limit: int | None = None

    def __call__(self, train: Split, test: Split) -> Splits:
        """The three parts, in the order of the samples.

        Raises:
            DataError: if a class is too small to be split.
        """
        validation, rest = stratified(train.labels, (self.validation,), self.seed)
        rest = rest[balanced(train.labels[rest], self.train_limit, self.seed)]
        return Splits(
            train=train.part(rest),
            validation=train.part(validation),
            test=test.part(balanced(test.labels, self.test_limit, self.seed)),
        )
