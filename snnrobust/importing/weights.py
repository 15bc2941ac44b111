"""Weights as strangers save them: read without running any code, and out of their wrappings."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnrobust.schema import ConfigError

PARALLEL = "module."
"""What DataParallel puts before every name."""
PICKLES = 5
"""In a file of torch's older layout, before the values of the tensors."""
ENDED = ("exhausted", "not enough data", "no newline")
"""What `pickletools` says where a pickle ends too early."""


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in a file: the file itself, or the only one among its entries.

    Raises:
        ConfigError: in one line, if the file is absent, damaged, or asks for code, if it holds no state dict or
            several, or a tensor that is not dense.
    """
    content = _loaded(path)
    found = {"": content} if _is_state(content) else _inside(content)
    if len(found) != 1:
        what = f"state dicts in {', '.join(found)}" if found else "no state dict"
        raise ConfigError(
            f"{path}: {what}; allowed: one mapping of names to tensors, in the file or in one entry of it"
        )
    (state,) = found.values()
    for name, tensor in state.items():
        if not _is_dense(tensor):
            raise ConfigError(f"{path}: {name} is sparse, quantised, nested or without values; allowed: dense tensors")
    parallel = all(name.startswith(PARALLEL) for name in state)
    return {name.removeprefix(PARALLEL) if parallel else name: tensor for name, tensor in state.items()}


def _loaded(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; allowed: a file that torch.save has written") from error
    except pickle.UnpicklingError as error:
        if ("GLOBAL" in str(error) or "global" in str(error)) and not _is_cut(path):
            raise ConfigError(
                f"{path}: asks for code while it is read; allowed: tensors and plain containers"
            ) from error
        raise ConfigError(f"{path}: not a file that torch.save has written, or damaged") from error
    except Exception as error:  # damaged archives surface as many types
        raise ConfigError(
            f"{path}: not a file that torch.save has written, or damaged ({type(error).__name__})"
        ) from error


def _is_cut(path: Path) -> bool:
    """Whether a file of torch's older layout ends inside one of its pickles, where half a name looks like code."""
    if zipfile.is_zipfile(path):
        return False
    content = io.BytesIO(path.read_bytes())
    try:
        for _ in range(PICKLES):
            if content.getbuffer().nbytes > content.tell():
                deque(pickletools.genops(content), maxlen=0)  # reads, and runs nothing
    except ValueError as error:
        return any(what in str(error) for what in ENDED)
    return False


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(entry, Tensor) for name, entry in value.items())
    )


def _is_dense(tensor: Tensor) -> bool:
    return not (tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested or tensor.is_meta)


def _inside(content: Any) -> dict[str, Any]:
    """Entries that are state dicts."""
    if not isinstance(content, Mapping):
        return {}
    return {str(name): value for name, value in content.items() if _is_state(value)}
