"""The yaml files that configs are composed of."""

from __future__ import annotations

from functools import cache
from pathlib import Path


def folder() -> Path:
    """Where the yaml files are: inside an installed package, or at the top of a source tree."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "conf"


@cache
def groups() -> dict[str, list[str]]:
    """Config groups and their choices."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder().rglob("*.yaml")):
        group = path.parent.relative_to(folder()).as_posix()
        if group != ".":
            found.setdefault(group, []).append(path.stem)
    return found
