"""Trackers mirror a run; whatever happens to a mirror, the run goes on."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wandb

from snnrobust.tracking import Description, NoTracker, Tracked, Wandb, retell

WANDB = Path(sys.executable).with_name("wandb")
DEAD_SERVER = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, tmp_path):
    """No settings, keys or caches of whoever runs the tests."""
    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    yield
    monkeypatch.undo()
    if wandb.run is not None:
        wandb.run.finish()


def description(folder, identity="aaaa-bbbb"):
    folder.mkdir(exist_ok=True)
    config = {"seed": 1, "threat": {"eps": 0.1}}
    return Description(identity, identity.replace("-", "/"), "sweep", "train", ("digits", "convnet"), config, folder)


def logs(folder):
    return sorted(folder.glob("wandb/offline-run-*"))


def inspected(run, *flags):
    """A tracked run as W&B's own command reads it back: JSON, line by line."""
    command = [str(WANDB), "leet", "inspect", "--json", *flags, str(run)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def summary_of(run):
    """State, exit code, config, tags and final values."""
    return json.loads(inspected(run, "--summary"))


def records_of(run):
    return [json.loads(line) for line in inspected(run).splitlines()]


def rows(records):
    """What was logged, epoch by epoch, without what W&B adds."""
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    return [{k: v for k, v in row.items() if not k.startswith("_")} for row in history]


def mirrored(folder, settings=Wandb(), identity="aaaa-bbbb", failed=False):  # noqa: B008
    """One short run."""
    run = settings.start(description(folder, identity))
    run.log({"epoch": 1, "train/loss": 0.5})
    run.log({"epoch": 2, "train/loss": 0.25})
    return run.finish({"test/clean_accuracy": 0.75}, failed=failed)


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        folder = tmp_path_factory.mktemp("offline")
        mirrored(folder, Wandb(project="mine", tags=("extra",)))
    (run,) = logs(folder)
    return summary_of(run), records_of(run)


def test_an_offline_run_holds_metrics_and_summary(offline):
    state, records = offline
    assert rows(records) == [{"epoch": 1, "train/loss": 0.5}, {"epoch": 2, "train/loss": 0.25}]
    assert state["summary"]["test/clean_accuracy"] == 0.75
    assert (state["state"], state["exit_code"]) == ("finished", 0)


def test_an_offline_run_holds_config_group_tags_and_kind(offline):
    state, records = offline
    (run,) = [record["run"] for record in records if record["type"] == "run"]
    assert state["config"] == {"seed": 1, "threat": {"eps": 0.1}}
    assert state["tags"] == ["digits", "convnet", "extra"]
    assert (run["run_group"], run["job_type"], run["project"]) == ("sweep", "train", "mine")
    assert (run["run_id"], run["display_name"]) == ("aaaa-bbbb", "aaaa/bbbb")


def test_curves_are_drawn_over_epochs(offline):
    _, records = offline
    metrics = [record["metric"] for record in records if record["type"] == "metric"]
    assert [m["step_metric"] for m in metrics if m.get("glob_name") == "*"] == ["epoch"]


def test_a_group_that_is_given_wins(tmp_path):
    mirrored(tmp_path, Wandb(group="given"))
    records = records_of(*logs(tmp_path))
    assert [record["run"]["run_group"] for record in records if record["type"] == "run"] == ["given"]


def test_an_offline_run_says_where_it_lies(tmp_path):
    assert mirrored(tmp_path) == str(*logs(tmp_path))


def test_a_failed_run_is_closed_as_failed(tmp_path):
    mirrored(tmp_path, failed=True)
    state = summary_of(*logs(tmp_path))
    assert (state["state"], state["exit_code"]) == ("failed", 1)


def test_two_runs_in_one_process_stay_separate_even_if_the_first_is_never_finished(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    Wandb().start(description(first, "one-one")).log({"epoch": 1, "train/loss": 1.0})
    mirrored(second, identity="two-two")
    assert rows(records_of(*logs(first))) == [{"epoch": 1, "train/loss": 1.0}]
    assert len(rows(records_of(*logs(second)))) == 2


def test_disabled_writes_nothing(tmp_path):
    folder = tmp_path / "run"
    assert mirrored(folder, Wandb(mode="disabled")) is None
    assert not list(folder.iterdir())


def test_no_tracker_writes_nothing(tmp_path):
    run = NoTracker().start(description(tmp_path))
    run.log({"epoch": 1})
    assert run.finish({"test/clean_accuracy": 1.0}) is None
    assert not list(tmp_path.iterdir())


def test_a_client_that_does_not_start_costs_one_warning(tmp_path, monkeypatch, capsys):
    def broken(**_settings):
        raise RuntimeError("no\nsuch service")

    monkeypatch.setattr("wandb.init", broken)
    assert mirrored(tmp_path) is None
    assert capsys.readouterr().err == (
        "warning: could not start W&B (RuntimeError: no such service); the run goes on without it\n"
    )


@pytest.mark.parametrize(("method", "action"), [("log", "log to"), ("finish", "finish")])
def test_a_client_that_breaks_on_the_way_costs_one_warning(tmp_path, monkeypatch, capsys, method, action):
    def broken(*_values, **_settings):
        raise OSError("disk full")

    monkeypatch.setattr(f"wandb.sdk.wandb_run.Run.{method}", broken)
    mirrored(tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"warning: could not {action} W&B (OSError: disk full); the run goes on without it"


def test_a_run_whose_mirror_broke_is_not_left_open(tmp_path, monkeypatch):
    def broken(*_values, **_settings):
        raise OSError("disk full")

    monkeypatch.setattr("wandb.sdk.wandb_run.Run.log", broken)
    mirrored(tmp_path)
    assert wandb.run is None


def test_a_server_that_does_not_answer_means_offline_soon(tmp_path):
    """In a process of its own: the client reads its environment once."""
    code = f"""
import sys
from pathlib import Path
from snnrobust.tracking import Description, Wandb
run = Wandb(mode="online").start(Description("a-b", "a/b", None, "train", (), {{}}, Path({str(tmp_path)!r})))
run.log({{"epoch": 1, "train/loss": 0.5}})
print(run.finish({{}}))
"""
    environment = {**os.environ, "WANDB_BASE_URL": DEAD_SERVER, "WANDB_API_KEY": "a" * 40}
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert time.monotonic() - start < 10
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: the W&B server at 127.0.0.1:9 does not answer")
    assert line.endswith("this run is tracked offline")
    (run,) = logs(tmp_path)
    assert done.stdout.strip() == str(run)
    assert len(rows(records_of(run))) == 1


# --- runs that are taken up again, and agents


def test_every_epoch_is_a_step(offline):
    _, records = offline
    steps = [record["history"]["item"]["_step"] for record in records if record["type"] == "history"]
    assert steps == [1, 2]


def test_a_run_that_is_taken_up_again_replaces_what_was_left_unsent(tmp_path):
    killed = Wandb().start(description(tmp_path))
    killed.log({"epoch": 1, "train/loss": 0.5})
    (left,) = logs(tmp_path)
    mirrored(tmp_path, identity="other-run")
    assert left.is_dir()  # another run in the same folder
    time.sleep(1)  # the client names folders by the second
    mirrored(tmp_path)
    (run,) = tmp_path.glob("wandb/offline-run-*-aaaa-bbbb")
    assert run != left
    assert [row["epoch"] for row in rows(records_of(run))] == [1, 2]


def test_what_was_sent_is_not_removed(tmp_path):
    mirrored(tmp_path)
    (sent,) = logs(tmp_path)
    (sent / "run-aaaa-bbbb.wandb.synced").touch()
    time.sleep(1)
    mirrored(tmp_path)
    assert sent in logs(tmp_path)
    assert len(logs(tmp_path)) == 2


class Listener(Tracked):
    def __init__(self):
        self.heard = []

    def log(self, values):
        self.heard.append(values)

    def finish(self, summary, failed=False):
        return None


def test_epochs_on_record_are_told_in_order(tmp_path):
    history = tmp_path / "history.jsonl"
    listener = Listener()
    retell(history, listener)
    assert listener.heard == []  # weights that were not trained here
    history.write_text('{"epoch": 1}\n{"epoch": 2}\n')
    retell(history, listener)
    assert listener.heard == [{"epoch": 1}, {"epoch": 2}]


def test_a_history_that_cannot_be_read_costs_one_warning(tmp_path, capsys):
    history = tmp_path / "history.jsonl"
    history.write_text('{"epoch": 1}\n{"epo')
    listener = Listener()
    retell(history, listener)
    assert listener.heard == [{"epoch": 1}]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {history}: cannot be read (")


def test_a_run_of_an_agent_has_the_identity_that_the_agent_gives(tmp_path):
    """In a process of its own: the client reads its environment once."""
    code = f"""
from pathlib import Path
from snnrobust.tracking import Description, Wandb
run = Wandb(project="ours").start(Description("a-b", "a/b", None, "train", (), {{"seed": 1}}, Path({str(tmp_path)!r})))
run.finish({{}})
"""
    agent = {"WANDB_SWEEP_ID": "sweep", "WANDB_RUN_ID": "given", "WANDB_PROJECT": "theirs"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **agent}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    (run,) = logs(tmp_path)
    (record,) = [record["run"] for record in records_of(run) if record["type"] == "run"]
    assert (record["run_id"], record["sweep_id"], record["project"]) == ("given", "sweep", "theirs")
