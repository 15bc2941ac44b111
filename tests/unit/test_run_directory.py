"""What a run directory may hold at any moment, whoever is at work in it, and is killed."""

from itertools import count
from pathlib import Path

import pytest

from snnrobust.claims import Busy, Claim
from snnrobust.config import compose
from snnrobust.console import Terminal
from snnrobust.files import remove_unfinished, write_atomically
from snnrobust.forgetting import forget
from snnrobust.job import CHECKPOINT, EVALUATION_LOCK, JOURNAL, OUTCOMES, RESULTS, STATE, Job
from snnrobust.run import run
from tests.unit.interrupted import Killed


@pytest.fixture
def job(tmp_path):
    composed = compose("config", ["force=true"])
    return Job({**composed.config, "runs": str(tmp_path)}, composed.choices, (), "train")


def never(config):
    pytest.fail("it was begun")


@pytest.mark.parametrize("place", ["", "0123456789"])
def test_new_weights_wait_for_those_who_evaluate_the_old_ones(job, place):
    with Claim(job.home / place / EVALUATION_LOCK), pytest.raises(Busy, match="process"):
        run(job, never, Terminal(quiet=True), wait=False)
    with pytest.raises(pytest.fail.Exception, match="it was begun"):
        run(job, never, Terminal(quiet=True), wait=False)


def fill(home):
    """With what a finished run leaves that was evaluated twice."""
    for folder in (home, home / "0123456789"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in (RESULTS, OUTCOMES, JOURNAL):
            (folder / name).touch()
    (home / CHECKPOINT).touch()
    (home / STATE).touch()


@pytest.mark.parametrize("moment", range(10))
def test_results_are_gone_before_their_weights(job, monkeypatch, moment):
    """Wherever a process is killed that is about to train again."""
    fill(job.home)
    unlink, calls = Path.unlink, count()

    def dying(path, missing_ok=False):
        if next(calls) == moment:
            raise Killed
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", dying)
    with pytest.raises(Killed):
        forget(job)
    assert (job.home / CHECKPOINT).exists() or not [*job.home.rglob(RESULTS)]


def test_nothing_is_left_of_weights_that_are_trained_again(job):
    fill(job.home)
    forget(job)
    assert not [file for file in job.home.rglob("*") if file.is_file()]


def test_what_was_half_written_by_a_killed_process_is_removed(job):
    job.home.mkdir()
    for name in (STATE, CHECKPOINT):
        (job.home / f".{name}.abcd1234").write_bytes(b"half")
    (job.home / f".{RESULTS}.abcd1234").touch()  # which another process may be writing
    forget(job)
    assert [file.name for file in job.home.iterdir()] == [f".{RESULTS}.abcd1234"]


def test_what_is_half_written_is_found_by_its_name(tmp_path, monkeypatch):
    def dying(*_):
        raise Killed

    monkeypatch.setattr("os.replace", dying)
    monkeypatch.setattr("os.unlink", dying)
    with pytest.raises(Killed):
        write_atomically(tmp_path / STATE, b"content")
    monkeypatch.undo()
    assert [*tmp_path.iterdir()] != []
    remove_unfinished(tmp_path / STATE)
    assert [*tmp_path.iterdir()] == []
