"""The file of a training under way: written after every epoch, read by the process that takes the training up."""

from __future__ import annotations

import hashlib
import io
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from snnrobust import distributed
from snnrobust.data.dataset import refuse_other_files
from snnrobust.files import write_atomically
from snnrobust.training.checkpoint import CheckpointError
from snnrobust.training.keeping import Keeper

FORMAT = 1
SUM = 32
"""Bytes of the checksum."""
Stage = Literal["start", "training"]

log = logging.getLogger(__name__)


@dataclass
class Content:
    """What the file holds, beside its format: tensors and plain containers.

    Args:
        signature: training signature of the run.
        digests: of the data, see `DataSource.split_digests`.
        stage: whose state it is.
        state: of the course of that stage (`Course.state`); None before its first epoch is over.
        weights: what the start gave, until the first epoch of the training is over.
        begun: what the start said; None before it is over.
        rows: of all epochs that are over, those of the start included.
        seconds: spent so far, by all processes.
        resumed_at: by stage, numbers of the epochs that were the first ones of a process which took the training up.
        torch: its versions, in the order in which they were met.
    """

    signature: str
    digests: dict[str, str]
    stage: Stage = "start"
    state: dict[str, Any] | None = None
    weights: dict[str, Tensor] | None = None
    begun: dict[str, Any] | None = None
    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    resumed_at: dict[Stage, list[int]] = field(default_factory=lambda: {"start": [], "training": []})
    torch: list[str] = field(default_factory=list)


class Underway:
    """A training from its first process to its last one.

    Of several processes that train together all read the file, and the first one writes it.

    Args:
        path: of the file. What is damaged counts as absent, with a warning.
        signature: training signature of the run.
        digests: of the data that are there now.

    Raises:
        CheckpointError: if the file belongs to another training, or to another version of this package.
        DataError: if other data were trained with.
        OSError: if there is a file that cannot be opened.
    """

    def __init__(self, path: Path, signature: str, digests: Mapping[str, str]) -> None:
        self.path = path
        found = _read(path)
        self.content = found or Content(signature, dict(digests))
        if self.content.signature != signature:
            raise CheckpointError(
                f"{path}: of training {self.content.signature}, but this is {signature}; force=true trains from the "
                "beginning"
            )
        if len({*distributed.gathered(self._position)}) > 1:  # nor does any write before all have read
            raise CheckpointError(f"{path}: not the same for all processes; allowed: a folder that all of them share")
        refuse_other_files(self.content.digests, digests, "the training began with", "force=true")
        self._note_version()
        self._before, self._start = self.content.seconds, time.perf_counter()
        self._next = None if found is None else self._position
        if self._next is not None:
            log.info("taken up before epoch %d of the %s, from %s", self._next[1], self._next[0], path)

    @property
    def _position(self) -> tuple[Stage, int]:
        """The epoch that is next."""
        return self.content.stage, 1 + (self.content.state["epochs"] if self.content.state else 0)

    @property
    def seconds(self) -> float:
        """Spent by now, by all processes."""
        return self._before + time.perf_counter() - self._start

    def keeper(self, stage: Stage) -> Keeper:
        """Where the training of a stage keeps its state."""
        return _OfStage(self, stage)

    def begin(self, begun: Mapping[str, Any], model: nn.Module) -> Mapping[str, Any]:
        """Takes note that the start is over, of what it said and of the weights that it gave.

        Returns:
            What it said, and where it was taken up.
        """
        earlier = self.content.resumed_at["start"]
        self.content.begun = dict(begun) | ({"resumed_at": earlier} if earlier else {})
        self.content.weights = model.state_dict()
        self._enter("training", None)
        if self._next is not None:  # a process that found all epochs of the start done takes up the training
            self._next = self._position
        return self.content.begun

    def provenance(self) -> dict[str, Any]:
        """What it says of the training that it went through several processes."""
        versions = self.content.torch
        return {"resumed_at": self.content.resumed_at["training"]} | (
            {"torch_versions": versions} if len(versions) > 1 else {}
        )

    def begins_with(self, model: nn.Module) -> None:
        """Puts what the start gave into `model`, where that is all there is.

        Raises:
            CheckpointError: if it is of another architecture.
        """
        if self.content.weights is None:
            return
        try:
            model.load_state_dict(self.content.weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"{self.path}: weights of another architecture; force=true trains from the beginning"
            ) from error

    def save(self, stage: Stage, state: Mapping[str, Any]) -> None:
        """Replaces the file by one with this state.

        Raises:
            OSError: if it cannot be written; the file is then as it was.
        """
        if self._next is not None and self._next[0] == stage:
            self.content.resumed_at[stage].append(self._next[1])
        self._next = None
        self.content.weights = None
        self._enter(stage, dict(state))

    def _enter(self, stage: Stage, state: dict[str, Any] | None) -> None:
        self.content.stage, self.content.state, self.content.seconds = stage, state, self.seconds
        if distributed.rank() == 0:
            write_atomically(self.path, _packed({"format": FORMAT, **vars(self.content)}))

    def _note_version(self) -> None:
        versions, now = self.content.torch, str(torch.__version__)
        if versions and versions[-1] != now:
            distributed.warn(
                f"{self.path}: trained with torch {versions[-1]} so far, goes on with {now}; its bits may differ"
            )
        if versions[-1:] != [now]:
            versions.append(now)


class _OfStage(Keeper):
    def __init__(self, underway: Underway, stage: Stage) -> None:
        self.underway = underway
        self.stage = stage

    def load(self) -> Mapping[str, Any] | None:
        content = self.underway.content
        return content.state if content.stage == self.stage else None

    def save(self, state: Mapping[str, Any]) -> None:
        self.underway.save(self.stage, state)

    def __str__(self) -> str:
        return str(self.underway.path)


def _packed(content: Mapping[str, Any]) -> bytes:
    """With a checksum at the end: torch itself does not notice every flipped bit."""
    file = io.BytesIO()
    torch.save(content, file)
    file.write(hashlib.sha256(file.getbuffer()).digest())
    return file.getvalue()


def _unpacked(packed: bytes) -> dict[str, Any]:
    """Reads with `weights_only=True`."""
    body = memoryview(packed)[:-SUM]
    if hashlib.sha256(body).digest() != packed[-SUM:]:
        raise ValueError("its checksum does not fit")
    found: dict[str, Any] = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    return found


def _read(path: Path) -> Content | None:
    """None if the file is absent, or, with a warning, if it is damaged."""
    try:
        packed = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        found = _unpacked(packed)
        if found.pop("format") == FORMAT:
            return Content(**found)
    except Exception as error:  # damage surfaces as many types
        distributed.warn(f"{path}: damaged ({type(error).__name__}); training begins again")
        return None
    raise CheckpointError(f"{path}: written in another format than {FORMAT}; force=true trains from the beginning")
