"""Uploads what was tracked offline."""

from __future__ import annotations

from snnrobust.usage import SYNC_USAGE
from snnrobust.verbs import asks_for_help


def run(arguments: list[str]) -> int:
    if asks_for_help(arguments):
        print(SYNC_USAGE, end="")
        return 0
    from snnrobust.syncing import read
    from snnrobust.syncing import sync as upload

    return upload(*read(arguments))
