"""Results and weights belong to the recordings they were made of, not to whatever lies in a folder of that name."""

import json
from pathlib import Path

import pytest

from snnrobust.cli import main
from snnrobust.record import results_content
from tests.unit.recorded import bits40, random_events

CLASSES = 2


def put(root: Path, numbers: range) -> None:
    """Recordings of the given numbers for both classes."""
    for label in range(CLASSES):
        folder = root / "mine" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        for number in numbers:
            events = random_events(100 * label + number, 60, 8, 8)
            (folder / f"{number}.bin").write_bytes(bits40(events))


@pytest.fixture
def train(tmp_path):
    """Trains on the folder `root` below, with further arguments; returns the exit status."""
    put(tmp_path / "a", range(10, 22))
    settings = (
        *("dataset=recordings", "dataset.recordings.name=mine", f"dataset.recordings.classes={CLASSES}"),
        *("dataset.recordings.sensor_size=[8,8]", "dataset.workers=1", f"dataset.cache={tmp_path / 'cache'}"),
        *("encoder.steps=2", "training=debug", "regularizer=none", "model.channels=[4]", "model.hidden=8"),
        *("device=cpu", "tracker=none", f"runs={tmp_path / 'runs'}"),
    )
    return lambda root, *more: main(["train", *settings, f"dataset.root={tmp_path / root}", *more])


def run_of(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "runs").glob("*/results.json")
    return file.parent


def test_the_same_files_elsewhere_are_the_same_data(train, tmp_path, capsys):
    assert train("a") == 0
    (tmp_path / "a").rename(tmp_path / "b")
    assert train("b") == 0
    assert "recorded earlier" in capsys.readouterr().out
    assert train("absent") == 0, "results stay what they are where the data are not at hand"


def test_results_of_other_files_are_not_shown(train, tmp_path, capsys):
    assert train("a") == 0
    before = json.loads((run_of(tmp_path) / "results.json").read_text())
    assert set(before["split_digests"]) == {"train", "validation", "test"}
    put(tmp_path / "b", range(30, 42))
    assert train("b") == 1
    said = capsys.readouterr().err
    assert "other files than those of the recorded results (train, validation, test)" in said
    assert train("b", "force=true") == 0
    after = json.loads((run_of(tmp_path) / "results.json").read_text())
    assert after["split_digests"] != before["split_digests"]


def test_weights_are_not_judged_on_a_split_of_other_files(train, tmp_path, capsys):
    assert train("a") == 0
    put(tmp_path / "a", range(1, 9))  # sorted before the others: recordings of the training move into the test
    assert train("a", "threat.eps=0.1") == 1
    assert "other files than the weights were trained with" in capsys.readouterr().err
    assert main(["evaluate", f"checkpoint={run_of(tmp_path)}", "threat.eps=0.3", "tracker=none"]) == 1
    assert "other files than the weights were trained with" in capsys.readouterr().err


def test_the_record_is_of_the_split_that_was_loaded(train, tmp_path, monkeypatch):
    """Files that come or go while a run lasts change nothing of it."""

    def meanwhile(*arguments):
        (tmp_path / "a").rename(tmp_path / "gone")
        return results_content(*arguments)

    monkeypatch.setattr("snnrobust.run.results_content", meanwhile)
    assert train("a") == 0
    assert json.loads((run_of(tmp_path) / "results.json").read_text())["split_digests"]
