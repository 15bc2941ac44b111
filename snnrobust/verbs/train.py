"""One run, or with `-m` a sweep."""

from __future__ import annotations


def run(arguments: list[str]) -> int:
    from snnrobust.launch import launch

    return launch("config", "train", arguments)
