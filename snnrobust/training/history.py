"""The curves of a training, one line of JSON per epoch."""

from __future__ import annotations

import json
from pathlib import Path

from snnrobust import distributed
from snnrobust.files import write_atomically


class History:
    """Every epoch exactly once, whatever an earlier process has left: the file is written again from what is known.

    Of several processes that train together the first one writes.

    Args:
        path: of the file.
        rows: of the epochs that are over; the list is added to.

    Raises:
        OSError: if the file cannot be written, here and in `add`.
    """

    def __init__(self, path: Path, rows: list[dict[str, float]]) -> None:
        self.path = path
        self.rows = rows
        if distributed.rank() == 0:
            write_atomically(path, "".join(map(_line, rows)))

    def add(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        if distributed.rank() == 0:
            try:
                with self.path.open("a") as file:
                    file.write(_line(row))
            except OSError as error:
                error.filename = error.filename or str(self.path)
                raise


def _line(row: dict[str, float]) -> str:
    return json.dumps(row) + "\n"
