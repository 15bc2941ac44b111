"""The command `snnrobust` and its verbs."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from snnrobust import __version__
from snnrobust.placement import placement
from snnrobust.schema import ConfigError
from snnrobust.usage import USAGE
from snnrobust.verbs import Failed

INTERRUPTED, BROKEN_PIPE = 130, 141
VERBS = {
    **{verb: verb for verb in ("train", "evaluate", "convert", "plan", "search")},
    "import": "import_",
    **{verb: verb for verb in ("export", "report", "sync", "describe")},
}
"""The file in `verbs/` of each; nothing is imported before it is needed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit status: 0 done, 1 failed, 2 wrong usage or config, 130 interrupted."""
    try:
        place = placement()
    except ConfigError as error:
        return _fail(str(error), status=2)
    if place is None:
        return _main(arguments)
    from snnrobust.together import together

    return together(place, lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    verb, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if verb == "--version":
        print(f"snnrobust {__version__}")
        return 0
    if verb not in VERBS:
        hint = f"; did you mean snnrobust train {verb}?" if "=" in verb else ""
        return _fail(f"unknown verb {verb!r}; allowed: {', '.join(VERBS)}{hint}", status=2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows no ± shows a question mark
            stream.reconfigure(errors="replace")
    try:
        status: int = import_module(f"snnrobust.verbs.{VERBS[verb]}").run(rest)
        return status
    except ConfigError as error:
        return _fail(str(error), status=2)
    except Failed as error:
        return _fail(str(error), status=1)
    except KeyboardInterrupt:
        sys.unraisablehook = _nothing  # objects of libraries that were half made complain when they go
        if sys.stderr.isatty():  # which shows ^C
            print(file=sys.stderr)
        return _fail("interrupted; finished runs are kept, the same command goes on with the others", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        return _fail(f"{error.filename or 'file system'}: {error.strerror or error}", status=1)


def _nothing(unraisable: object) -> None:
    """Says nothing."""


def _fail(text: str, status: int) -> int:
    for line in text.splitlines():
        print(f"snnrobust: {line}", file=sys.stderr)
    return status
