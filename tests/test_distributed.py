"""Evaluations by two real processes on the CPU, started as `torchrun` and as `srun` start them."""

import json
import os
import re
import signal
import socket
import subprocess
from importlib import import_module

import pytest

from snnrobust.claims import Claim
from snnrobust.placement import Placement, placement
from snnrobust.schema import ConfigError
from tests.evaluated import (
    JOURNAL,
    NETWORK,
    WAIT,
    alone,
    copied,
    done,
    environment,
    folder,
    lines,
    results,
    run,
    same,
    several,
    start,
    trained,
    wait_until,
)

LONG = ("evaluation.batch_size=48", "estimator=four")
SUITES = ["quick", pytest.param("reliable", marks=pytest.mark.long)]
BROKEN = """
import os, torch

CALLS = []

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, x):
        CALLS.append(len(x))
        if os.environ.get("RANK") == os.environ["BROKEN"] and len(CALLS) == 90:  # among attacks
            raise ArithmeticError("broken here")
        return self.layer(x.flatten(1))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def one(home, tmp_path):
    return copied(home, tmp_path / "one")


@pytest.fixture
def two(home, tmp_path):
    return copied(home, tmp_path / "two")


def own_lines(text):
    """What this package says on standard error, apart from torchrun."""
    return [line for line in text.splitlines() if line.startswith("snnrobust:")]


def files(path):
    return sorted(file.name for file in path.iterdir())


# --- placement


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "a"}, None),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a"}, Placement(3, 4, 1)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0"}, None),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0", "MASTER_ADDR": "a"}, Placement(1, 2, 0)),
    ],
)
def test_the_environment_says_where_a_process_stands(words, expected):
    assert placement(words) == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "a"}, "got RANK=2; allowed: 0 to 1"),
        ({"WORLD_SIZE": "2", "RANK": "x", "LOCAL_RANK": "0", "MASTER_ADDR": "a"}, "got RANK=x WORLD_SIZE=2"),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "MASTER_ADDR": "a"}, "SLURM_LOCALID=; allowed: whole numbers"),
    ],
)
def test_an_environment_that_contradicts_itself_is_refused(words, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        placement(words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train -m seed=0,1", "-m: "),
        ("train launcher=parallel", "launcher: "),
        ("search regularizer.weight=0.1,0.2", "search: "),
        ("convert experiment=digits_sparse -m conversion.sparsity=0.5,0.9", "convert: "),
        ("convert experiment=digits_sparse launcher=parallel", "convert: "),
    ],
)
def test_what_is_many_runs_is_refused(monkeypatch, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "a"}.items():
        monkeypatch.setenv(name, value)
    verb, *arguments = words.split()
    with pytest.raises(ConfigError, match=f"^{said}these processes do one run together"):
        import_module(f"snnrobust.verbs.{verb}").run(arguments)
    assert not [*tmp_path.iterdir()]


# --- the same bits


@pytest.mark.parametrize("suite", SUITES)
def test_two_processes_find_what_one_finds(one, two, suite):
    words = (f"suite={suite}", "evaluation.batch_size=48", *["estimator=four"] * (suite == "quick"))
    said = [
        done(alone("evaluate", f"checkpoint={one}", *words)),
        done(several("evaluate", f"checkpoint={two}", *words)),
    ]
    same(folder(two), folder(one))
    assert files(folder(two)) == files(folder(one))
    assert files(two) == files(one)
    assert said[1].replace(str(two), str(one)) == said[0]  # a table, once


@pytest.mark.long
def test_more_processes_than_batches(one, two):
    words = ("evaluation.batch_size=250", "attacks.pgd.steps=3")
    done(alone("evaluate", f"checkpoint={one}", *words))
    done(several("evaluate", f"checkpoint={two}", *words, number=3))
    same(folder(two), folder(one))


def test_processes_that_srun_starts_meet(one, two):
    done(alone("evaluate", f"checkpoint={one}", *LONG))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "SLURM_NTASKS": "2"}
    processes = [
        subprocess.Popen(
            alone("evaluate", f"checkpoint={two}", *LONG), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(**meeting, SLURM_PROCID=rank, SLURM_LOCALID=rank),
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    (table, _), (silence, _) = (process.communicate(timeout=WAIT) for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert "worst_accuracy" in table
    assert silence == ""
    same(folder(two), folder(one))


@pytest.mark.long
@pytest.mark.parametrize("number", [1, 2])
def test_a_process_that_is_killed_ends_all_and_the_batches_are_kept(one, two, number):
    done(alone("evaluate", f"checkpoint={one}", *LONG))
    process = start(several("evaluate", f"checkpoint={two}", *LONG))
    wait_until(lambda: lines(two) >= 9, process)
    _, owner, *_ = (folder(two) / ".evaluation.lock").read_text().split()  # process NUMBER on MACHINE
    os.kill(int(owner), signal.SIGKILL)
    process.communicate(timeout=WAIT)
    assert process.returncode != 0
    kept = lines(two)
    assert kept >= 9
    done(several("evaluate", f"checkpoint={two}", *LONG, number=number))
    assert results(folder(two))["resumed_evaluation"]["batches_on_record"] == kept
    same(folder(two), folder(one))


# --- the first process decides


def test_what_is_on_record_is_shown_once(two):
    text = done(several("evaluate", f"checkpoint={two}"))
    assert text.count("recorded earlier") == 1
    assert not [path for path in two.iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("train", "-m", "seed=0,1"),
            "snnrobust: -m: these processes do one run together; allowed: one run, or a sweep",
        ),
        (("train", "threat.eps=8"), "snnrobust: threat.eps: got 8"),
        (("evaluate", "checkpoint=nowhere"), "snnrobust: checkpoint: "),
    ],
)
def test_a_refusal_is_said_once_and_ends_all(tmp_path, words, said):
    answer = run(several(*words), cwd=tmp_path)
    assert answer.returncode != 0
    assert answer.stdout == ""
    (line,) = own_lines(answer.stderr)
    assert line.startswith(said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_processes_wait_together_for_another_one(two):
    with Claim(two / ".lock"):
        process = start(several("evaluate", f"checkpoint={two}", "attacks.pgd.steps=2"))
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=8)
        assert not [path for path in two.iterdir() if path.is_dir()]
    process.communicate(timeout=WAIT)
    assert process.returncode == 0
    assert results(folder(two))["metrics"]["clean_accuracy"] > 0.5


@pytest.mark.parametrize("broken", ["0", "1"])
def test_an_error_in_one_process_ends_all_and_is_on_record(tmp_path, broken):
    (tmp_path / "broken_net.py").write_text(BROKEN)
    words = ("evaluate", "model._target_=broken_net.Net", "checkpoint=null", "dataset=digits", "runs=runs",
             "evaluation.batch_size=37")  # fmt: skip
    answer = subprocess.run(
        several(*words), cwd=tmp_path, capture_output=True, text=True, timeout=WAIT, check=False,
        env=environment(BROKEN=broken),
    )  # fmt: skip
    assert answer.returncode != 0
    assert answer.stdout == ""
    (failure,) = tmp_path.glob("runs/**/failure.json")
    content = json.loads(failure.read_text())
    assert "broken here" in content["error"]
    assert (failure.parent / JOURNAL).read_text().count("\n") > 5  # finished batches stay
    if broken == "1":
        assert "process 1 of 2" in content["error"]
    assert "broken_net.py" in content["traceback"]
    assert "broken here" in own_lines(answer.stderr)[0]
    assert not list(tmp_path.glob("runs/**/results.json"))


def test_the_others_write_nothing(tmp_path):
    """A whole run: what lies in its folder is what one process leaves, each file once."""
    done(several("train", *NETWORK, f"runs={tmp_path}"))
    (home,) = tmp_path.iterdir()
    assert not list(home.rglob(f"*{JOURNAL}"))
    assert len((home / "history.jsonl").read_text().splitlines()) == 3
    assert results(home)["metrics"]["clean_accuracy"] > 0.5
