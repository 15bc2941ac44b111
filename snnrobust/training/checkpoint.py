"""The checkpoint: weights and buffers alone, readable without running any code."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snnrobust.files import write_atomically

FORMAT = 1


class CheckpointError(Exception):
    """A checkpoint that cannot be used: one line that says which file and why."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights of a finished training.

    Args:
        signature: training signature of the run.
        epoch: the epoch that was selected on validation data.
        metrics: scalars of the training, such as `validation_accuracy`.
        seconds: of the training, per phase.
        provenance: versions, commit and hardware of the training.
        state: the model's `state_dict`, on the CPU.
    """

    signature: str
    epoch: int
    metrics: dict[str, float]
    seconds: dict[str, float]
    provenance: dict[str, Any]
    state: dict[str, Tensor]

    def save(self, path: Path) -> None:
        content = io.BytesIO()
        torch.save({"format": FORMAT, **vars(self)}, content)
        write_atomically(path, content.getvalue())

    @staticmethod
    def load(path: Path) -> Checkpoint:
        """Reads with `weights_only=True`.

        Raises:
            CheckpointError: if the file is absent, damaged, of another format, or asks for code.
        """
        try:
            _refuse_flipped_bits(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
            if content.pop("format") != FORMAT:
                raise CheckpointError(f"{path}: written in another format than {FORMAT}")
            checkpoint = Checkpoint(**content)
            if not all(isinstance(tensor, Tensor) for tensor in checkpoint.state.values()):
                raise CheckpointError(f"{path}: its state holds other things than tensors")
            return checkpoint
        except FileNotFoundError:
            raise CheckpointError(f"{path}: no such checkpoint") from None
        except CheckpointError:
            raise
        except Exception as error:  # damaged archives surface as many types
            raise CheckpointError(
                f"{path}: not a checkpoint of snnrobust, or damaged ({type(error).__name__}); force=true trains again"
            ) from error

    def restore(self, model: nn.Module, path: Path) -> None:
        """Loads the weights into `model`.

        Raises:
            CheckpointError: if they belong to another architecture.
        """
        try:
            model.load_state_dict(self.state)
        except RuntimeError as error:
            lines = [line.strip() for line in str(error).splitlines()]
            reason = lines[1] if len(lines) > 1 else lines[0]
            raise CheckpointError(f"{path}: weights of another architecture ({reason[:200]})") from error


def _refuse_flipped_bits(path: Path) -> None:
    """Compares the checksums that torch writes into its archives, and does not look at when it reads them."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"the checksum of {damaged} does not fit")
