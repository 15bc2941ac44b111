"""The training of weights that came from elsewhere: that it was not ours, and which file they are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Imported:
    """Stands where the settings of a training stand; there is nothing to train by.

    Args:
        format: of the file, see `snnrobust import --help`.
        sha256: of the file.
    """

    format: str | None = None
    sha256: str | None = None
