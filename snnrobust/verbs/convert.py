"""From an ANN to a spiking network, each stage a run."""

from __future__ import annotations

from snnrobust.usage import CONVERT_USAGE
from snnrobust.verbs import asks_for_help


def run(arguments: list[str]) -> int:
    if asks_for_help(arguments):
        print(CONVERT_USAGE, end="")
        return 0
    from snnrobust.convert import convert

    return convert(arguments)
