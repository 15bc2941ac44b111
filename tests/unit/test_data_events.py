"""Event frames of the digits and their cache."""

import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from snnrobust.data import digits, events
from snnrobust.data.dataset import DataError
from snnrobust.data.digits import Digits
from snnrobust.data.events import DigitsEvents, frames
from snnrobust.data.saccades import EVENT, Saccades, Sensor, record

torch.set_num_threads(1)

PER_CLASS = 6
PARTS = ("train", "validation", "test")


@pytest.fixture
def few_digits(monkeypatch):
    """A few digits of every class, so that a simulation takes no time."""
    images, labels = digits.read()
    chosen = torch.cat([(labels == label).nonzero().flatten()[:PER_CLASS] for label in range(10)]).sort().values
    for module in (digits, events):
        monkeypatch.setattr(module, "read", lambda: (images[chosen], labels[chosen]))


@pytest.fixture
def source(few_digits, tmp_path) -> DigitsEvents:
    return DigitsEvents(root=str(tmp_path))


def forbid_simulation(monkeypatch):
    def refuse(*_):
        raise AssertionError("simulated again")

    monkeypatch.setattr(events, "record", refuse)


def folders(source: DigitsEvents) -> list[Path]:
    return sorted((Path(source.root) / "digits_events").iterdir())


def same(first, second) -> bool:
    return all(
        torch.equal(getattr(first, part).values, getattr(second, part).values)
        and torch.equal(getattr(first, part).labels, getattr(second, part).labels)
        for part in PARTS
    )


@pytest.mark.parametrize("steps", [1, 7, 8])
def test_frames_keep_every_event_in_its_place(steps):
    path = Saccades()
    recordings = record(np.random.default_rng(0).random((3, 12, 12)), Sensor(), path, 0, np.arange(3))
    counts = frames(recordings, steps, path.duration_us, (16, 16))
    assert counts.shape == (3, steps, 2, 16, 16)
    window = -(-path.duration_us // steps)
    for count, recording in zip(counts, recordings, strict=True):
        assert count.sum() == len(recording)
        expected = np.zeros_like(count)
        for x, y, t, p in recording:
            expected[t // window, int(p), y, x] += 1
        assert np.array_equal(count, expected)


def test_a_recording_without_events_gives_empty_frames():
    nothing = np.zeros(0, dtype=EVENT)
    last = np.array([(15, 3, 299_999, True)], dtype=EVENT)
    counts = frames([nothing, last], 4, 300_000, (16, 16))
    assert counts[0].sum() == 0
    assert counts[1, 3, 1, 3, 15] == 1
    assert counts[1].sum() == 1


def test_counts_that_do_not_fit_are_refused():
    many = np.zeros(40_000, dtype=EVENT)
    with pytest.raises(DataError, match="more than 32767 events in a cell"):
        frames([many], 2, 1000, (16, 16))


def test_a_source_that_never_fires_loads(source):
    silent = replace(source, threshold=100.0, noise_rate=0.0).load()
    assert silent.train.values.sum() == 0


def test_inputs_have_the_stated_shape_and_range(source):
    splits = source.load()
    for part in PARTS:
        split = getattr(splits, part)
        assert split.values.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        assert split.values.shape[1:] == source.shape == (8, 2, 16, 16)
        assert split.scale == source.max_count == int(split.values.max())
    x = splits.test.batch(torch.arange(5)).x
    assert source.bounds.low <= x.min()
    assert x.max() <= source.bounds.high


def test_the_constants_describe_the_data(source):
    x = source.load().train.values.float() / source.max_count
    assert torch.allclose(x.mean((0, 1, 3, 4)), torch.tensor(source.mean), atol=0.01)
    assert torch.allclose(x.std((0, 1, 3, 4)), torch.tensor(source.std), atol=0.02)


def test_the_split_is_that_of_the_images(source):
    quiet = replace(source, split_seed=3, noise_rate=0.0)
    images, recorded = Digits(split_seed=3).load(), quiet.load()
    for part in PARTS:
        still, moving = getattr(images, part), getattr(recorded, part)
        assert torch.equal(still.labels, moving.labels)
        anew = quiet._frames(still.values[:, 0], torch.arange(len(still)))
        assert np.array_equal(anew, moving.values.numpy())


def test_a_recording_does_not_depend_on_the_split(source):
    def recordings(seed: int) -> set[bytes]:
        splits = replace(source, split_seed=seed).load()
        return {values.numpy().tobytes() for part in PARTS for values in getattr(splits, part).values}

    assert recordings(0) == recordings(1)


@pytest.mark.filterwarnings("error")
def test_the_second_load_reads_the_cache(source, monkeypatch):
    first = source.load()
    forbid_simulation(monkeypatch)
    second = replace(source, eps=0.5).load()
    assert same(first, second)
    # The tensors can be written to, the files stay as they are.
    second.test.values.zero_()
    assert same(first, source.load())


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 4},
        {"threshold": 0.3},
        {"refractory_us": 0},
        {"noise_rate": 1.0},
        {"saccade_us": 50_000},
        {"max_count": 3},
        {"validation": 0.3},
        {"test": 0.3},
        {"split_seed": 1},
    ],
)
def test_another_setting_is_another_cache(source, change, monkeypatch):
    first = source.load()
    other = replace(source, **change)
    assert not same(first, other.load())
    assert len(folders(source)) == 2
    forbid_simulation(monkeypatch)
    assert same(first, source.load())


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def reshape(file: Path) -> None:
    np.save(file, np.load(file)[:-1])


def retype(file: Path) -> None:
    np.save(file, np.load(file).astype(np.int16))


@pytest.mark.parametrize("damage", [truncate, empty, reshape, retype, Path.unlink])
@pytest.mark.parametrize("name", ["train.npy", "test_labels.npy"])
def test_a_damaged_file_is_made_anew(source, damage, name, monkeypatch):
    first = source.load()
    folder = folders(source)[0]
    damage(folder / name)
    assert same(first, source.load())
    assert folders(source) == [folder]
    forbid_simulation(monkeypatch)
    assert same(first, source.load())


@pytest.mark.parametrize("text", ["", "{", "[]", "\udc80"])
def test_a_damaged_manifest_is_made_anew(source, text):
    first = source.load()
    (folders(source)[0] / "settings.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert same(first, source.load())


def test_what_an_interrupted_build_leaves_is_harmless(source, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(events, "record", interrupt)
        with pytest.raises(KeyboardInterrupt):
            source.load()
    assert folders(source) == []
    # As after a kill: an unfinished folder that nobody removed.
    (Path(source.root) / "digits_events" / ".0123456789abcdef.1.0").mkdir()
    first = source.load()
    forbid_simulation(monkeypatch)
    assert same(first, source.load())


def test_two_builds_at_once_leave_one_cache(source, monkeypatch):
    build = DigitsEvents._build

    def slow(self):
        with monkeypatch.context() as patch:
            patch.setattr(DigitsEvents, "_build", build)
            # The other process is faster.
            self.load()
        return build(self)

    monkeypatch.setattr(DigitsEvents, "_build", slow)
    first = source.load()
    assert len(folders(source)) == 1
    assert same(first, source.load())


def test_a_root_that_cannot_be_written_is_reported(few_digits, tmp_path, monkeypatch):
    forbid_simulation(monkeypatch)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write .*file/digits_events: Not a directory; .*dataset.root"):
        DigitsEvents(root=str(tmp_path / "file")).load()


def test_a_disk_without_room_is_reported_and_nothing_stays(source):
    source_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, source_limit[1]))
    try:
        with pytest.raises(DataError, match="cannot write the cache") as caught:
            source.load()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, source_limit)
    assert "\n" not in str(caught.value)
    assert folders(source) == []
