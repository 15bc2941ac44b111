"""Uploads of what was tracked offline, as far as no server is needed; `make test-wandb` has the rest."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from snnrobust import launch
from snnrobust.claims import Claim
from snnrobust.schema import ConfigError
from snnrobust.syncing import by_run, read, sync, unsent
from tests.unit.launched import record

SNNROBUST = Path(sys.executable).with_name("snnrobust")


def tracked(run, name, *marks, identity="a-b"):
    """The data of a tracked run, and what lies beside them."""
    file = run / "wandb" / f"{name}-{identity}" / f"run-{identity}.wandb"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no data of W&B")
    for mark in marks:
        Path(f"{file}{mark}").touch()
    return file


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Where the client looks for one: nobody is there."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))


def command(*arguments):
    done = subprocess.run([SNNROBUST, "sync", *map(str, arguments)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_an_address_that_is_none_is_one_line(tmp_path, server, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "nonsense")
    tracked(tmp_path / "run", "offline-run-20260102_000000")
    status, said, complaint = command(tmp_path)
    assert (status, said) == (1, "")
    (line,) = complaint.splitlines()
    assert line.startswith("snnrobust: the W&B client is set up wrongly: ")
    assert "base_url" in line
    assert line.endswith("; 1 run to upload")


def test_a_sweep_speaks_of_uploads_as_long_as_there_are_any(tmp_path, capsys):
    words = ["-m", f"runs={tmp_path}", "seed=0"]
    record(launch.read("config", "train", words).tasks[0])
    (run,) = tmp_path.iterdir()
    file = tracked(run, "offline-run-20260102_000000")
    assert launch.launch("config", "train", words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"tracked offline; upload with: snnrobust sync {tmp_path}"
    Path(f"{file}.synced").touch()
    assert launch.launch("config", "train", words) == 0
    assert "tracked" not in capsys.readouterr().out


def test_what_no_server_has_is_found_in_the_order_in_which_it_was_begun(tmp_path):
    one, two = tmp_path / "one", tmp_path / "one" / "two"
    later = tracked(one, "run-20260102_000000", ".unsent")
    first = tracked(one, "offline-run-20260101_000000")
    other = tracked(two, "offline-run-20250101_000000")
    tracked(one, "offline-run-20240101_000000", ".synced")
    tracked(one, "run-20240102_000000")  # online, and finished
    tracked(one, "run-20240103_000000", ".unsent", ".synced")
    (one / "wandb" / "latest-run").symlink_to(first.parent)
    assert unsent(tmp_path) == [other, first, later]
    assert by_run(unsent(tmp_path)) == {one: [first, later], two: [other]}
    assert unsent(one) == unsent(tmp_path)
    assert unsent(two) == [other]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (Path("runs"), 4)),
        (["here"], (Path("here"), 4)),
        (["jobs=2", "here"], (Path("here"), 2)),
    ],
)
def test_a_command_names_a_folder_and_a_number_of_jobs(arguments, expected):
    assert read(arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["one", "two"], "sync: got one two; allowed: snnrobust sync [FOLDER] [jobs=4]"),
        (["--all"], "sync: got --all; allowed: snnrobust sync [FOLDER] [jobs=4]"),
        (["runs=here"], "sync: got runs=here; allowed: snnrobust sync [FOLDER] [jobs=4]"),
        (["jobs=0"], "jobs: got 0; allowed: a number from 1"),
        (["jobs=many"], "jobs: got many; allowed: a number from 1"),
    ],
)
def test_other_words_are_refused(arguments, error):
    with pytest.raises(ConfigError) as refused:
        read(arguments)
    assert str(refused.value) == error


def test_nothing_to_upload_needs_no_server(tmp_path, server):
    tracked(tmp_path / "run", "offline-run-1", ".synced")
    assert command(tmp_path) == (0, f"{tmp_path}: nothing to upload\n", "")


def test_a_folder_that_is_not_there_is_refused(tmp_path, server):
    assert command(tmp_path / "none") == (1, "", f"snnrobust: {tmp_path}/none: no such folder\n")


def test_without_a_server_one_line_and_nothing_is_tried(tmp_path, server):
    files = [tracked(tmp_path / name, "offline-run-1") for name in ("one", "two")]
    status, out, err = command(tmp_path)
    assert (status, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("snnrobust: the W&B server at 127.0.0.1:9 does not answer (")
    assert line.endswith("; 2 runs to upload")
    assert {path for file in files for path in file.parent.iterdir()} == {*files}


@pytest.fixture
def listener(monkeypatch):
    """Something that takes connections and says nothing, as `server`."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as open_socket:
        yield f"http://127.0.0.1:{open_socket.getsockname()[1]}"


def test_without_a_key_one_line_and_nothing_is_tried(tmp_path, server, listener, monkeypatch):
    file = tracked(tmp_path / "run", "offline-run-1")
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("WANDB_BASE_URL", listener)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    status, out, err = command(tmp_path)
    assert (status, out) == (1, "")
    assert err == "snnrobust: no W&B API key (`wandb login`, or WANDB_API_KEY); 1 run to upload\n"
    assert [*file.parent.iterdir()] == [file]


def test_a_run_that_is_still_going_on_is_left_for_later(tmp_path, server, listener, monkeypatch, capsys):
    file = tracked(tmp_path / "run", "offline-run-1")
    monkeypatch.setattr("snnrobust.syncing.obstacle", lambda timeout: None)
    with Claim(tmp_path / "run" / ".evaluation.lock"):
        assert sync(tmp_path, 1) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"running  {tmp_path}/run  (process {os.getpid()} on ")
    assert out[1:] == ["1 run: 1 running"]
    assert [*file.parent.iterdir()] == [file]


def test_what_another_process_is_sending_is_waited_for_and_not_sent_again(tmp_path, monkeypatch, capsys):
    file = tracked(tmp_path / "run", "offline-run-1")
    monkeypatch.setattr("snnrobust.syncing.obstacle", lambda timeout: None)
    other = Claim(file.parent.parent / ".sync.lock")

    def ends():
        Path(f"{file}.synced").touch()
        other.release()

    timer = threading.Timer(0.5, ends)
    timer.start()
    assert sync(tmp_path, 2) == 0
    timer.join()
    assert capsys.readouterr().out.splitlines() == [f"there    {tmp_path}/run", "1 run: 1 there"]
    assert not (file.parent / "logs").exists()


def test_a_run_that_was_killed_before_the_client_wrote_anything_is_told_apart(tmp_path, monkeypatch, capsys):
    file = tracked(tmp_path / "run", "offline-run-1")
    file.write_bytes(b":W&B123")
    monkeypatch.setattr("snnrobust.syncing.obstacle", lambda timeout: None)
    assert sync(tmp_path, 1) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 run: 1 empty"
    assert [*file.parent.iterdir()] == [file]


def test_data_that_cannot_be_read_are_told_as_failed_and_the_others_go_on(tmp_path, server, monkeypatch, capsys):
    """The client is the real one; it looks into the file before it asks the server for anything."""
    files = [tracked(tmp_path / name, "offline-run-1") for name in ("one", "two")]
    monkeypatch.setattr("snnrobust.syncing.obstacle", lambda timeout: None)
    assert sync(tmp_path, 2) == 1
    answer = capsys.readouterr()
    assert answer.out.splitlines()[-1] == "2 runs: 2 failed"
    assert [line.partition(": ")[2].partition(":")[0] for line in answer.err.splitlines()] == [
        str(file.parents[2]) for file in files
    ]
    assert not any(Path(f"{file}.synced").exists() for file in files)
