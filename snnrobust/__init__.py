"""Train, attack and compare robust spiking neural networks."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`evaluate`, `flags` and `load` are imported when they are asked for: with them come torch and all attacks."""
    if name in ("evaluate", "flags", "load"):
        return getattr(import_module("snnrobust.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
