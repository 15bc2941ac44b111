"""What the command can do: a file for each verb, with `run(arguments)`, which returns the exit status."""

from __future__ import annotations

from collections.abc import Sequence


class Failed(Exception):
    """What was asked for could not be done: one line."""


def asks_for_help(arguments: Sequence[str]) -> bool:
    return any(a in ("-h", "--help") for a in arguments)
