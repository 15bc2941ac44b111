"""Makes a run directory of weights that the code of a paper saved."""

from __future__ import annotations

from pathlib import Path

from snnrobust.schema import ConfigError
from snnrobust.usage import IMPORT_USAGE
from snnrobust.verbs import asks_for_help


def run(arguments: list[str]) -> int:
    from snnrobust.importing.importer import FORMATS, import_weights
    from snnrobust.launch import split

    if asks_for_help(arguments) or not arguments:
        print(IMPORT_USAGE.format(formats="\n".join(f"  {name:22} {made.about}" for name, made in FORMATS.items())))
        return 0
    flags, given = split(arguments)
    if flags:
        raise ConfigError(f"{flags[0]}: import runs nothing, and knows no flag but --help")
    if len(given) < 2 or ("=" in given[1] and not Path(given[1]).exists()):
        raise ConfigError("import: FILE is missing; allowed: snnrobust import FORMAT FILE [key=value ...]")
    done = import_weights(given[0], Path(given[1]), given[2:])
    earlier = " (imported earlier)" if done.found else ""
    print(f"{done.model} for {done.dataset}, {done.parameters:,} parameters{earlier}")
    if done.caution:
        print(done.caution)
    print(f"attack it with: snnrobust evaluate checkpoint={done.home}")
    return 0
