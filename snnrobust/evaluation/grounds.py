"""What outcomes depend on: only those of equal grounds may be put together, whichever process found them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snnrobust import environment

PACKAGE = Path(__file__).parents[1]
SOURCES = (
    "attacks", "data", "estimators", "evaluation", "flips.py", "foreign.py", "models", "randomness.py", "regularizers",
    "spiking", "threat.py", "traceless.py",
)  # fmt: skip
"""The code of this package that decides about an outcome."""


def grounds(evaluation: str, model: nn.Module, data: Mapping[str, str], device: torch.device) -> dict[str, Any]:
    """As JSON knows it.

    Args:
        evaluation: signature of the config.
        model: with its weights.
        data: digests of its parts.
        device: where attacks run.
    """
    return {
        "evaluation": evaluation,
        "weights": weights_digest(model),
        "data": dict(data),
        "device": device.type,
        "versions": environment.versions(),
        "code": code_digest(),
    }


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over names, shapes and values of a network's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor):  # networks made elsewhere may keep other things, too
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def code_digest() -> str:
    """SHA-256 over the source files of `SOURCES`."""
    digest = hashlib.sha256()
    for path in sorted(path for name in SOURCES for path in (PACKAGE / name, *(PACKAGE / name).rglob("*.py"))):
        if path.is_file():
            digest.update(f"{path.relative_to(PACKAGE).as_posix()}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
