"""Files that are whole or absent."""

import errno
import json
import os
import stat

import pytest

from snnrobust.files import write_atomically, write_json


def test_content_is_written_and_replaced(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "grün")
    assert path.read_text(encoding="utf-8") == "grün"
    write_atomically(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert [*tmp_path.iterdir()] == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_an_interruption_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_a_folder_that_is_absent_is_an_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        write_atomically(tmp_path / "absent" / "file", "new")


def test_json_has_null_where_a_number_is_not_finite(tmp_path):
    path = tmp_path / "file.json"
    nan, inf = float("nan"), float("inf")
    write_json(path, {"a": nan, "b": [1.5, inf, {"c": -inf}], "d": (nan, 2), "e": True})
    assert json.loads(path.read_text()) == {"a": None, "b": [1.5, None, {"c": None}], "d": [None, 2], "e": True}


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [*tmp_path.iterdir()] == [path]
