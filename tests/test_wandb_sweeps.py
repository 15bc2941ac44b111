"""The W&B sweeps of this repository: their command lines are made and started by the code of `wandb agent` itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from wandb.wandb_agent import Agent

from snnrobust.job import read_json
from snnrobust.record import summary

ROOT = Path(__file__).parent.parent
SWEEPS = ("wandb_grid", "wandb_random", "wandb_bayes")
WANDB = Path(sys.executable).with_name("wandb")
DEAD_SERVER = "http://127.0.0.1:9"
TINY = {"model.channels": [8], "model.hidden": 16, "encoder.steps": 2, "device": "cpu", "training": "debug"}


def read(name):
    return yaml.safe_load((ROOT / "sweeps" / f"{name}.yaml").read_text())


def drawn(sweep):
    """A value for every parameter, as a server could choose them."""
    return {
        name: given["value"] if "value" in given else given["values"][-1] if "values" in given else given["min"]
        for name, given in sweep["parameters"].items()
    }


class AgentAt:
    """`wandb agent` in a folder, told by hand what its server would tell it."""

    def __init__(self, folder, monkeypatch):
        self.runs = folder / "runs"
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            monkeypatch.delenv(name)
        settings = {
            "WANDB_BASE_URL": DEAD_SERVER,
            "WANDB_API_KEY": "a" * 40,
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_DIR": str(folder),
            "WANDB_CONFIG_DIR": str(folder / "config"),
            "WANDB_CACHE_DIR": str(folder / "cache"),
            "WANDB_SWEEP_ID": "the-sweep",
            "WANDB_PROJECT": "the-project",
            "WANDB_RUN_ID": "",
            "WANDB_SWEEP_PARAM_PATH": "",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)  # the agent changes some of them

    def does(self, name, run_id, **changed):
        """The exit status of a run that the agent started, and the words that it was given."""
        sweep = read(name)
        values = {**drawn(sweep), **TINY, "runs": str(self.runs), **changed}
        agent = Agent(api=None, queue=None, sweep_id="the-sweep")
        agent._sweep_command = sweep["command"]
        args = {key: {"value": value} for key, value in values.items()}
        agent._process_command({"type": "run", "run_id": run_id, "program": sweep["program"], "args": args})
        process = agent._run_processes[run_id]
        status = process.wait(timeout=300)
        typed = [word for word in map(str, process._popen.args) if "=" in word and "tracker" not in word]
        return status, typed


@pytest.fixture
def agent(tmp_path, monkeypatch):
    return AgentAt(tmp_path, monkeypatch)


def inspected(run, *flags):
    command = [str(WANDB), "leet", "inspect", "--json", *flags, str(run)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def tracked(folder, run_id):
    """State, run record and rows of what was tracked under an identity."""
    (run,) = folder.glob(f"wandb/offline-run-*-{run_id}")
    records = [json.loads(line) for line in inspected(run).splitlines()]
    (record,) = [record["run"] for record in records if record["type"] == "run"]
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    return json.loads(inspected(run, "--summary")), record, rows


def by_hand(words):
    command = [sys.executable, "-m", "snnrobust", "train", *words, "tracker=none"]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return subprocess.run(command, env=outside, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", SWEEPS)
def test_the_command_of_an_agent_is_a_run_like_any_other(agent, name):
    status, words = agent.does(name, "run-of-agent")
    assert status == 0
    (results,) = agent.runs.glob("*/results.json")
    assert by_hand(words).splitlines()[-1] == f"results: {results} (recorded earlier; force=true runs it again)"
    assert [*agent.runs.glob("**/results.json")] == [results]

    state, record, rows = tracked(results.parent, "run-of-agent")
    assert (state["state"], record["sweep_id"]) == ("finished", "the-sweep")
    # What the server drew, beside the config that came of it.
    assert state["config"]["seed"] == drawn(read(name))["seed"]
    assert state["config"]["regularizer"]["weight"] == drawn(read(name))["regularizer.weight"]
    assert [row["epoch"] for row in rows] == [1]
    assert read(name)["metric"]["name"] in state["summary"]


@pytest.mark.parametrize("name", SWEEPS)
def test_what_is_optimised_is_of_validation_data(name):
    assert read(name)["metric"]["name"].startswith("best/validation/")
    assert read(name)["metric"]["goal"] == "maximize"  # accuracies


def test_a_run_on_record_is_told_to_the_agent_and_not_run_again(agent):
    assert agent.does("wandb_grid", "first")[0] == 0
    (home,) = agent.runs.glob("*/")
    before = {name: (home / name).stat().st_mtime_ns for name in ("checkpoint.pt", "results.json", "history.jsonl")}
    assert agent.does("wandb_grid", "second")[0] == 0
    assert before == {name: (home / name).stat().st_mtime_ns for name in before}
    (first, _, told), (second, _, retold) = (tracked(home, name) for name in ("first", "second"))
    keys = ("epoch", "lr", "train/loss", "validation/accuracy")
    assert [{key: row[key] for key in keys} for row in retold] == [{key: row[key] for key in keys} for row in told]
    results = read_json(home / "results.json")
    assert results is not None
    expected = summary(results)
    assert expected.items() <= second["summary"].items()
    assert expected.items() <= first["summary"].items()


def test_a_run_that_fails_tells_the_agent_so(agent):
    assert agent.does("wandb_grid", "wrong", **{"training.optimizer.lr": -1.0})[0] > 0
    assert agent.does("wandb_grid", "failing", dataset="cifar10", **{"dataset.root": str(agent.runs)})[0] > 0
