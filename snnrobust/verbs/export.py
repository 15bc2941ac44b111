"""Writes the network of a run in one of the formats that other programs read."""

from __future__ import annotations

from pathlib import Path

from snnrobust.schema import ConfigError
from snnrobust.usage import EXPORT_USAGE
from snnrobust.verbs import Failed, asks_for_help


def run(arguments: list[str]) -> int:
    if asks_for_help(arguments) or not arguments:
        print(EXPORT_USAGE, end="")
        return 0
    run, settings = arguments[0], dict(given.partition("=")[::2] for given in arguments[1:])
    for key in settings.keys() - {"format", "out"}:
        raise ConfigError(f"export: got {key}; allowed: snnrobust export RUN [format=FORMAT] [out=FILE]")
    from snnrobust.exporting.export import export as write
    from snnrobust.training.checkpoint import CheckpointError

    out = Path(settings["out"]) if "out" in settings else None
    try:
        done = write(run, settings.get("format", "sparse"), out)
    except CheckpointError as error:
        raise Failed(str(error).replace("; force=true trains again", "")) from error
    share = f" ({done.present / done.synapses:.1%})" if done.synapses else ""
    print(f"{done.present:,} of {done.synapses:,} weights are not zero{share}")
    print(f"{done.size:,} bytes, {done.size / done.dense:.2f} of all weights as safetensors ({done.dense:,} bytes)")
    print(f"read back, the same: {done.path}")
    return 0
