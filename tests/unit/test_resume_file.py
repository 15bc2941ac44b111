"""The file of a training under way: what it keeps, and what is refused."""

import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from snnrobust.data.dataset import DataError
from snnrobust.training.checkpoint import CheckpointError
from snnrobust.training.history import History
from snnrobust.training.underway import FORMAT, Underway, _packed
from tests.unit.test_checkpoint import Payload
from tests.unit.test_resume import made
from tests.unit.trained import data, same


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "training.pt"


def trained(path: Path, epochs: int = 4) -> tuple[Underway, Any, Any]:
    """A process that trains until so many epochs are over."""
    underway = Underway(path, "signature", {})
    run, model = made(lr=0.02)()

    def on_epoch(epoch: Any) -> None:
        if epoch.epoch > epochs:
            raise KeyboardInterrupt
        underway.content.rows.append({"epoch": epoch.epoch})

    try:
        return underway, model, run(model, data(), data(16, 1), on_epoch, keeper=underway.keeper("training"))
    except KeyboardInterrupt:
        return underway, model, None


def test_it_holds_all_epochs_and_where_they_were_taken_up(path, tmp_path):
    _, alone, best = trained(tmp_path / "alone.pt")
    for epochs in (1, 1, 3):
        trained(path, epochs)
    assert [*tmp_path.glob(".training*")] == []
    underway, model, its = trained(path)
    assert same(alone.state_dict(), model.state_dict())
    assert same(best.state, its.state)
    assert [row["epoch"] for row in underway.content.rows] == [1, 2, 3, 4]
    assert underway.provenance() == {"resumed_at": [2, 4]}


def test_a_process_that_finds_everything_done_took_nothing_up(path):
    trained(path)
    assert trained(path)[0].provenance() == {"resumed_at": []}


def test_seconds_add_up_over_processes(path):
    first, *_ = trained(path, 1)
    spent = first.content.seconds
    first.content.seconds = 1000.0
    first.save("training", first.content.state or {})
    assert first.content.seconds < 1000
    second, *_ = trained(path, 2)
    assert second.content.seconds > first.content.seconds >= spent > 0


def test_what_a_start_gave_is_kept_until_the_first_epoch_is_over(path):
    _, model = made()()
    other = made(lambda: torch.nn.Linear(3, 2))()[1]
    underway = Underway(path, "signature", {})
    assert underway.keeper("start").load() is None
    underway.keeper("start").save({"epochs": 1})
    underway = Underway(path, "signature", {})
    assert underway.keeper("start").load() == {"epochs": 1}
    underway.keeper("start").save({"epochs": 2})
    assert underway.keeper("training").load() is None
    assert underway.begin({"method": "hydra"}, model) == {"method": "hydra", "resumed_at": [2]}
    assert underway.keeper("training").load() is None
    found = Underway(path, "signature", {})
    again = made()()[1]
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    found.begins_with(again)
    assert same(again.state_dict(), model.state_dict())
    assert found.content.begun == {"method": "hydra", "resumed_at": [2]}
    assert found.keeper("start").load() is None
    with pytest.raises(CheckpointError, match="weights of another architecture; force=true"):
        found.begins_with(other)
    found.keeper("training").save({"epochs": 1})
    assert found.provenance() == {"resumed_at": [1]}
    assert Underway(path, "signature", {}).content.weights is None


def test_an_epoch_after_a_start_of_the_same_process_was_not_taken_up(path):
    Underway(path, "signature", {}).keeper("start").save({"epochs": 1})
    underway = Underway(path, "signature", {})
    underway.keeper("start").save({"epochs": 2})
    underway.begin({"method": "hydra"}, made()()[1])
    underway.keeper("training").save({"epochs": 1})
    assert underway.content.resumed_at == {"start": [2], "training": []}


def test_a_training_after_a_start_that_was_over_already_was_taken_up(path):
    Underway(path, "signature", {}).keeper("start").save({"epochs": 1})
    underway = Underway(path, "signature", {})
    underway.begin({"method": "hydra"}, made()()[1])
    underway.keeper("training").save({"epochs": 1})
    assert underway.content.resumed_at == {"start": [], "training": [1]}


# --- what cannot be taken up


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.999])
def test_a_torn_file_counts_as_absent_and_is_said_to_be_damaged(path, share, capsys):
    trained(path, 2)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    underway = Underway(path, "signature", {})
    assert underway.content.rows == []
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {path}: damaged (")
    assert said.endswith("; training begins again\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize("place", [0.1, 0.3, 0.5, 0.7])
def test_flipped_bits_count_as_damage(path, place, capsys):
    trained(path, 1)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0xFF
    path.write_bytes(bytes(content))
    assert Underway(path, "signature", {}).content.rows == []
    assert "damaged" in capsys.readouterr().err


def test_code_in_it_does_not_run(path, tmp_path, capsys):
    mark = tmp_path / "ran"
    path.write_bytes(_packed({"format": FORMAT, "state": Payload(mark)}))
    assert Underway(path, "signature", {}).content.state is None
    assert not mark.exists()
    assert "damaged (UnpicklingError)" in capsys.readouterr().err


def refused(path: Path, signature: str = "signature", digests: dict[str, str] | None = None) -> str:
    before = path.read_bytes()
    with pytest.raises((CheckpointError, DataError)) as caught:
        Underway(path, signature, digests or {})
    assert path.read_bytes() == before
    assert "\n" not in str(caught.value)
    assert "force=true" in str(caught.value)
    return str(caught.value)


def test_another_training_format_or_data_are_refused_in_one_line(path):
    underway, *_ = trained(path, 1)
    assert refused(path, "other").startswith(f"{path}: of training signature, but this is other")
    underway.content.digests = {"train": "a"}
    underway.save("training", underway.content.state or {})
    assert "other files than the training began with (train)" in refused(path, digests={"train": "b"})
    path.write_bytes(_packed({"format": FORMAT + 1}))
    assert refused(path).startswith(f"{path}: written in another format than {FORMAT}")


def test_another_version_of_torch_goes_on_with_a_warning_and_on_record(path, capsys):
    underway, *_ = trained(path, 1)
    underway.content.torch = ["2.6.0"]
    underway.save("training", underway.content.state or {})
    trained(path, 2)
    assert f"trained with torch 2.6.0 so far, goes on with {torch.__version__}" in capsys.readouterr().err
    underway, *_ = trained(path)
    assert capsys.readouterr().err == ""
    assert underway.provenance()["torch_versions"] == ["2.6.0", torch.__version__]


def test_a_file_that_cannot_be_opened_is_an_error(path):
    path.mkdir()
    with pytest.raises(OSError, match=str(path)):
        Underway(path, "signature", {})


def test_where_no_more_can_be_written_the_last_state_is_whole(path):
    """A real limit of the kernel, in a process of its own; the training goes on from there once there is room."""
    trained(path, 2)
    before = path.read_bytes()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, resource.RLIM_INFINITY))
        try:
            trained(path, 3)
        except OSError as error:
            os._exit(0 if error.filename == str(path) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert path.read_bytes() == before
    assert [*path.parent.iterdir()] == [path]
    assert [row["epoch"] for row in trained(path)[0].content.rows] == [1, 2, 3, 4]


# --- the history


def test_the_history_is_written_again_from_what_is_known(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    history = History(path, [{"epoch": 1}])
    history.add({"epoch": 2})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"epoch": 1}, {"epoch": 2}]
    assert history.rows == [{"epoch": 1}, {"epoch": 2}]


def test_an_error_of_the_history_names_the_file(tmp_path):
    history = History(tmp_path / "history.jsonl", [])
    history.path.unlink()
    history.path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        history.add({"epoch": 1})
    assert caught.value.filename == str(history.path)
