"""The runs of `snnrobust train` with the same words, and how far each is; runs nothing."""

from __future__ import annotations

from snnrobust.usage import PLAN_USAGE
from snnrobust.verbs import asks_for_help


def run(arguments: list[str]) -> int:
    if asks_for_help(arguments):
        print(PLAN_USAGE, end="")
        return 0
    from snnrobust.launch import read
    from snnrobust.planning import show

    show(read("config", "train", arguments).tasks)
    return 0
