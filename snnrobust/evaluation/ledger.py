"""Which batches of an evaluation are done: those on record are read, the others dealt out, computed and put there."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, final

import torch
from torch import Tensor

from snnrobust import distributed
from snnrobust.evaluation.findings import Finding, read


class Record(ABC):
    """Keeps findings by phase and number of the batch."""

    @abstractmethod
    def recall(self, phase: str, number: int) -> Finding | None:
        """What was kept, perhaps by an earlier process."""

    @abstractmethod
    def keep(self, phase: str, number: int, finding: Finding) -> None:
        """Keeps it, or raises an OSError."""


@final
class Unrecorded(Record):
    """Keeps nothing: an evaluation that is interrupted begins again."""

    def recall(self, phase: str, number: int) -> Finding | None:
        return None

    def keep(self, phase: str, number: int, finding: Finding) -> None:
        return


@final
class Ledger:
    """The findings of one evaluation, batch by batch and in order, whoever computed them, and when.

    Several processes share the work: the batches that are not on record are dealt out in turns, as whole batches, so
    that each has the size, and hence the rounding, that it has in a single process. All processes get all findings.

    Args:
        record: what is kept between processes; that of the first process counts.

    Attributes:
        replayed: batches that were on record.
        batches: all that were asked for.
        seconds: that the replayed ones had taken.
    """

    def __init__(self, record: Record | None = None) -> None:
        self._record = record or Unrecorded()
        self.replayed = 0
        self.batches = 0
        self.seconds = 0.0

    def findings(self, phase: str, batches: Sequence[Tensor], find: Callable[[Tensor], Finding]) -> Iterator[Finding]:
        """Yields what is found for each batch; every process must ask for the same, and for all of it.

        Args:
            phase: unlike all others of this evaluation.
            batches: the samples' positions in their split, `[B]` each.
            find: computes the finding of one of them, from nothing that changes in between.
        """
        kept = self._recalled(phase, batches)
        missing = iter([number for number in range(len(batches)) if number not in kept])
        fresh: dict[int, Finding] = {}
        for number in range(len(batches)):
            self.batches += 1
            if number in kept:
                self.replayed += 1
                self.seconds += kept[number].seconds
                yield kept[number]
                continue
            if number not in fresh:
                turn = islice(missing, distributed.size())
                fresh = self._computed(phase, {number: batches[number] for number in turn}, find)
            yield fresh[number]

    def _recalled(self, phase: str, batches: Sequence[Tensor]) -> dict[int, Finding]:
        """Those on record that are of the same samples."""

        def on_record() -> dict[int, dict[str, Any]]:
            found = {number: self._record.recall(phase, number) for number in range(len(batches))}
            return {n: f.content() for n, f in found.items() if f is not None and torch.equal(f.index, batches[n])}

        return {number: read(content) for number, content in distributed.from_first(on_record).items()}

    def _computed(
        self, phase: str, turn: Mapping[int, Tensor], find: Callable[[Tensor], Finding]
    ) -> dict[int, Finding]:
        """At most one batch for each process, by number."""
        start = time.perf_counter()
        own = [find(index) for place, index in enumerate(turn.values()) if place == distributed.rank()]
        found = [finding for theirs in distributed.gathered(own) for finding in theirs]
        share = (time.perf_counter() - start) / len(turn)
        done = {number: replace(finding, seconds=share) for number, finding in zip(turn, found, strict=True)}
        for number, finding in done.items():
            self._record.keep(phase, number, finding)
        return done
