"""Looks for settings with several objectives on validation data."""

from __future__ import annotations

from importlib.util import find_spec

from snnrobust.schema import ConfigError
from snnrobust.usage import SEARCH_USAGE
from snnrobust.verbs import asks_for_help


def run(arguments: list[str]) -> int:
    if asks_for_help(arguments) or not arguments:
        print(SEARCH_USAGE, end="")
        return 0
    if find_spec("optuna") is None:
        raise ConfigError("search: Optuna is not installed; allowed: pip install 'snnrobust[search]'")
    from snnrobust.search.search import search

    return search(arguments)
