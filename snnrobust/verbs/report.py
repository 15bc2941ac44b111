"""Tables, figures and one page from any number of runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from snnrobust.verbs import Failed


def run(arguments: list[str]) -> int:
    from snnrobust.console import stdout
    from snnrobust.reporting.records import RecordError
    from snnrobust.reporting.report import write_report

    parser = argparse.ArgumentParser(prog="snnrobust report", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="DIR", type=Path, help="run directories, or folders that hold them")
    parser.add_argument("--out", type=Path, default=Path("report"), metavar="DIR", help="where to write (report)")
    parser.add_argument("--title", default="Robustness of spiking networks", help="of the page")
    try:
        given = parser.parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        written = write_report(given.runs, given.out, title=given.title)
    except RecordError as error:
        raise Failed(str(error)) from error
    console = stdout()
    console.print(written.summary.to_terminal(console.width))
    for note in written.summary.notes:
        print(f"  {note}")
    print(f"report: {written.page}")
    return 0
