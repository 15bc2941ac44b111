"""Recordings are converted once: what changes the key, what an interruption leaves, what damage does."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from snnrobust.data import conversion
from snnrobust.data.chunks import convert
from snnrobust.data.conversion import CHUNK, Conversion, _amount, split_digest
from snnrobust.data.dataset import DataError
from snnrobust.data.frames import Framing
from snnrobust.data.recordings import Sensor, Take, read
from tests.unit import recorded
from tests.unit.recorded import random_events

SENSOR = Sensor(34, 34)
FRAMING = Framing(SENSOR, steps=4, slices="count", window_us=None, size=(17, 17), max_count=3)
CHUNKS = 17
FILES = 8
LONG = 96
"""Chunks of what takes longer."""


@pytest.fixture
def task(tmp_path) -> Conversion:
    """`CHUNKS` chunks, the last one of three; a file comes many times, which makes no difference here."""
    root = tmp_path / "root"
    root.mkdir()
    for i in range(FILES):
        (root / f"{i}.bin").write_bytes(recorded.bits40(random_events(i, 400)))
    takes = [Take(root / f"{i % FILES}.bin", i % FILES % 3) for i in range(CHUNK * (CHUNKS - 1) + 3)]
    return Conversion("a test", root, takes, FRAMING, tmp_path / "cache", workers=1)


def expected(task: Conversion) -> np.ndarray:
    return np.stack([task.framing(read(take, task.framing.sensor)) for take in task.takes])


def folders(task: Conversion) -> list[Path]:
    return sorted(task.parent.iterdir())


@pytest.fixture
def converted(monkeypatch) -> list[int]:
    """Where the chunks begin that this process converts, as they come."""
    chunks: list[int] = []

    def noted(target, chunk):
        chunks.append(chunk.first)
        return convert(target, chunk)

    monkeypatch.setattr("snnrobust.data.conversion.convert", noted)
    return chunks


@pytest.mark.parametrize("workers", [1, 2, None])
def test_frames_are_those_of_the_recordings(task, workers):
    frames = replace(task, workers=workers)()
    assert frames.shape == (len(task.takes), *FRAMING.shape)
    assert frames.dtype == np.uint8
    assert np.array_equal(frames, expected(task))
    assert isinstance(frames, np.memmap)
    assert len(folders(task)) == 1


def test_the_second_time_nothing_is_converted(task, converted):
    first = np.array(task())
    assert converted == [CHUNK * i for i in range(CHUNKS)]
    again = task()
    assert len(converted) == CHUNKS
    assert np.array_equal(first, again)
    # The array can be written to; the file stays as it is.
    again[:] = 0
    assert np.array_equal(first, task())


def rewritten(task: Conversion) -> Conversion:
    """The same number of bytes, other events."""
    task.takes[1].path.write_bytes(recorded.bits40(random_events(99, 400)))
    return task


def touched(task: Conversion) -> Conversion:
    os.utime(task.takes[1].path, (1, 1))
    return task


CHANGES = {
    "steps": lambda task: replace(task, framing=replace(FRAMING, steps=5)),
    "slices": lambda task: replace(task, framing=replace(FRAMING, slices="time")),
    "window": lambda task: replace(task, framing=replace(FRAMING, slices="time", window_us=50)),
    "size": lambda task: replace(task, framing=replace(FRAMING, size=(17, 16))),
    "no size": lambda task: replace(task, framing=replace(FRAMING, size=None)),
    "max_count": lambda task: replace(task, framing=replace(FRAMING, max_count=2)),
    "sensor": lambda task: replace(task, framing=replace(FRAMING, sensor=Sensor(40, 34))),
    "order": lambda task: replace(task, takes=task.takes[::-1]),
    "fewer": lambda task: replace(task, takes=task.takes[:-1]),
    "label": lambda task: replace(task, takes=[replace(task.takes[0], label=2), *task.takes[1:]]),
    "part": lambda task: replace(task, takes=[replace(task.takes[0], start_us=0, stop_us=200_000), *task.takes[1:]]),
    "content": rewritten,
    "time of change": touched,
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_old_frames_are_not_served(task, change, converted):
    before = np.array(task())
    other = CHANGES[change](task)
    after = other()
    assert len(converted) > CHUNKS
    assert np.array_equal(after, expected(other))
    if change not in ("label", "time of change"):
        assert before.shape != after.shape or not np.array_equal(before, after)
    assert len(folders(task)) == 2


def test_the_place_of_the_data_makes_no_difference(task, converted, tmp_path):
    task()
    moved = tmp_path / "moved"
    shutil.copytree(task.root, moved)
    takes = [replace(take, path=moved / take.path.name) for take in task.takes]
    replace(task, root=moved, takes=takes, name="another name", workers=2)()
    assert len(converted) == CHUNKS


def test_the_digest_of_a_split_is_that_of_names_sizes_labels_and_times(task, tmp_path):
    digest = split_digest(task.takes, task.root)
    shutil.copytree(task.root, tmp_path / "x")
    elsewhere = [replace(take, path=tmp_path / "x" / take.path.name) for take in task.takes]
    assert split_digest(elsewhere, tmp_path / "x") == digest
    for other in (task.takes[:-1], task.takes[::-1], [replace(task.takes[0], stop_us=5), *task.takes[1:]]):
        assert split_digest(other, task.root) != digest
    with task.takes[0].path.open("ab") as file:
        file.write(b"12345")
    assert split_digest(task.takes, task.root) != digest


# --- interruptions


SCRIPT = """
import sys, logging
from dataclasses import replace
from pathlib import Path
from snnrobust.data.conversion import Conversion
from snnrobust.data.frames import Framing
from snnrobust.data.recordings import Sensor, Take
logging.basicConfig(level=logging.INFO)
root, cache, number, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
takes = [Take(root / f"{i % 8}.bin", i % 8 % 3) for i in range(number)]
framing = Framing(Sensor(34, 34), steps=4, slices="count", window_us=None, size=(17, 17), max_count=3)
Conversion("a test", root, takes, framing, cache, workers)()
"""


@pytest.fixture
def long_task(task) -> Conversion:
    """Takes a second or more: larger recordings, and more of them."""
    for i in range(FILES):
        (task.root / f"{i}.bin").write_bytes(recorded.bits40(random_events(i, 8_000)))
    return replace(task, takes=[Take(task.root / f"{i % FILES}.bin", i % FILES % 3) for i in range(LONG * CHUNK)])


def start(task: Conversion, workers: int = 1) -> subprocess.Popen[str]:
    arguments = [str(task.root), str(task.parent), str(len(task.takes)), str(workers)]
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], stderr=subprocess.PIPE, text=True)


def wait_for(what, seconds: float = 30.0):
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)
    return found


def chunks_done(task: Conversion) -> int:
    return sum(len(file.read_text().splitlines()) for file in task.parent.glob("*.unfinished/done.jsonl"))


def children(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Not even as a zombie, which waits for whoever adopted it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("how", "workers"), [(signal.SIGKILL, 1), (signal.SIGKILL, 2), (signal.SIGINT, 2)])
def test_a_conversion_that_is_stopped_continues(long_task, how, workers, converted):
    process = start(long_task, workers)
    wait_for(lambda: chunks_done(long_task) >= 5)
    own = children(process)
    assert len(own) == (workers if workers > 1 else 0)
    process.send_signal(how)
    process.communicate(timeout=30)
    assert process.returncode != 0
    wait_for(lambda: not any(map(alive, own)))
    kept = chunks_done(long_task)
    assert 5 <= kept < LONG, "too fast for this test"
    with next(long_task.parent.glob("*.unfinished")).joinpath("done.jsonl").open("a") as done:
        done.write(f'[{LONG * CHUNK}, "abc')  # a line that was being written
    frames = long_task()
    assert len(converted) == LONG - kept
    assert np.array_equal(
        frames[:: CHUNK // 2 + 1], expected(replace(long_task, takes=long_task.takes[:: CHUNK // 2 + 1]))
    )
    assert [folder.suffix for folder in folders(long_task)] == [""]


def test_chunks_that_were_not_written_to_the_end_are_converted_again(task, converted):
    """As after a power failure: the list of what is done is there, what was done is not."""
    frames = np.array(task())
    (folder,) = folders(task)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    folder.rename(unfinished)
    with (unfinished / "frames.npy").open("r+b") as file:
        file.seek(128 + 2 * CHUNK * FRAMING.steps * 2 * 17 * 17)
        file.write(b"\7" * 1000)
    converted.clear()
    assert np.array_equal(task(), frames)
    assert converted == [2 * CHUNK]


def test_two_processes_at_once_make_one_cache(long_task):
    processes = [start(long_task, workers) for workers in (1, 2)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert [folder.suffix for folder in folders(long_task)] == [""]
    # One of them waited, or came when all was done.
    assert sum(f"converted {LONG * CHUNK} recordings" in error for error in errors) == 1
    frames = long_task()
    assert np.array_equal(frames[::100], expected(replace(long_task, takes=long_task.takes[::100])))


def test_a_process_that_is_killed_is_reported(long_task):
    process = start(long_task, 2)
    wait_for(lambda: chunks_done(long_task) >= 2)
    os.kill(children(process)[0], signal.SIGKILL)
    error = process.communicate(timeout=30)[1]
    assert "DataError: a process that converted recordings ended with code -9: run again to continue" in error
    assert chunks_done(long_task) >= 2


# --- damage


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_recording_is_named_and_nothing_is_left(task, workers):
    file = task.takes[3].path
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(DataError, match=rf"^{file} has 1998 bytes: expected a multiple of 5") as caught:
        replace(task, workers=workers)()
    assert "\n" not in str(caught.value)
    assert folders(task) == []


def test_a_recording_of_fewer_events_than_frames_is_refused_for_slices_by_count(task):
    file = task.takes[3].path
    file.write_bytes(recorded.bits40(random_events(0, 3)))
    with pytest.raises(DataError, match=rf"{file} holds 3 events: expected at least 4, one per frame"):
        task()
    assert replace(task, framing=replace(FRAMING, slices="time"))()[3].sum() == 3


def test_a_recording_that_is_gone_is_named(task):
    file = task.takes[3].path
    file.unlink()
    with pytest.raises(DataError, match=rf"cannot read {file}: No such file"):
        task()


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def alter(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5000] ^= 1
    file.write_bytes(content)


def garble(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[20:40] = b"(" * 20
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("damage", [truncate, alter, garble, empty, Path.unlink])
@pytest.mark.parametrize("name", ["frames.npy", "settings.json"])
def test_a_damaged_cache_is_made_anew(task, damage, name, converted):
    first = np.array(task())
    (folder,) = folders(task)
    if (damage, name) == (alter, "settings.json"):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | {"settings": {}}))
    else:
        damage(folder / name)
    converted.clear()
    assert np.array_equal(task(), first)
    assert len(converted) == CHUNKS
    assert folders(task) == [folder]
    task()
    assert len(converted) == CHUNKS


def test_a_copied_cache_is_compared_once_and_used(task, converted, monkeypatch):
    first = np.array(task())
    (folder,) = folders(task)
    os.utime(folder / "frames.npy", (5, 5))
    converted.clear()
    assert np.array_equal(task(), first)
    assert converted == []

    def refuse(*_):
        raise AssertionError("compared again")

    monkeypatch.setattr("snnrobust.data.conversion.hashlib.sha256", refuse)
    assert conversion._opened(folder, json.loads((folder / "settings.json").read_text())["settings"]) is not None


def test_a_cache_that_cannot_be_written_is_reported(task):
    task.parent.write_text("")
    with pytest.raises(DataError, match=r"cannot write the cache .*: Not a directory; .*\(dataset.cache\)"):
        task()


@pytest.mark.parametrize("limit", [10_000, 2_000])
def test_a_disk_that_fills_up_is_reported_in_one_line(task, limit):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(DataError, match=r"cannot write the cache .*dataset.cache") as caught:
            task()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert np.array_equal(task(), expected(task))


def test_too_little_space_is_reported_before_the_work(task, monkeypatch, converted):
    usage = namedtuple("usage", ("total", "used", "free"))
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10, 9, 1))
    with pytest.raises(
        DataError, match=r"cannot write the cache .*: 0.6 MB are needed, 0.0 MB are free \(dataset.cache\)"
    ):
        task()
    assert converted == []


@pytest.mark.parametrize(("size", "text"), [(0, "0.0 MB"), (999_900_000, "999.9 MB"), (12_340_000_000, "12.3 GB")])
def test_amounts_below_a_gigabyte_are_in_megabytes(size, text):
    assert _amount(size) == text
