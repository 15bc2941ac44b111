"""Layers, parameters, operations and memory of the classifier that a config gives; reads no data."""

from __future__ import annotations

from snnrobust.schema import ConfigError
from snnrobust.usage import USAGE
from snnrobust.verbs import asks_for_help


def run(arguments: list[str]) -> int:
    if asks_for_help(arguments):
        print(USAGE, end="")
        return 0
    from snnrobust.config import build, compose
    from snnrobust.saved import refuse_imported

    composed = compose("config", arguments)
    refuse_imported(composed.config)
    experiment, _ = build(composed.config)
    from snnrobust.console import stdout
    from snnrobust.describe import layers_table

    try:
        table = layers_table(experiment)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    stdout().print(table)
    return 0
