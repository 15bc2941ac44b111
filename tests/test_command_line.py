"""The command: wrong input is answered at once, in one line, and leaves nothing behind."""

import json
import os
import subprocess
import sys
import time

import pytest
import yaml

from snnrobust import __version__
from snnrobust.usage import USAGE
from snnrobust.yamls import groups

PYTHON = [sys.executable, "-m", "snnrobust"]

# Command: fragments of the one line that answers it. The first is the key, with what was given.
MISTAKES = {
    "train threat.eps=-1": ("threat.eps: got -1", "greater than or equal to 0"),
    "train +attack@attacks.s=sda": ("attacks (s): flips are of events in binary frames", "digits_events_binary"),
    "train threat=flips": ("threat: ", "linf, l2, or suite=flips"),
    "train estimator=assg estimator.a=0.5": ("estimator.a: got 0.5", "less than 0.5"),
    "train suite=reliable estimator.keep=0": ("estimator.keep: got 0", "greater than or equal to 1"),
    "train evaluation.precision=float16": ("evaluation.precision: got 'float16'", "bfloat16"),
    "train threat.eps=8": ("threat.eps: got 8", "less than or equal to 1"),
    "train encoder.steps=0": ("encoder.steps: got 0", "greater than or equal to 1"),
    "train dataset=digit": ("dataset: got 'digit'", "digits, digits_events"),
    "train training=foo": ("training: got 'foo'", "adam", "sgd"),
    "train neuron/surrogate=foo": ("neuron/surrogate: got 'foo'", "triangle"),
    "train dataset=null": ("dataset: got ", "digits"),
    "train regularizer.weigth=0.1": ("regularizer.weigth: unknown key", "did you mean weight?", "step"),
    "train +attacks.pgd.stepss=3": ("attacks.pgd.stepss: unknown key", "did you mean steps?", "restarts"),
    "train training.epochs=abc": ("training.epochs: got 'abc'", "integer"),
    "train training.optimizer.lr=nan": ("training.optimizer.lr: got nan", "finite"),
    "train training.optimizer.lr=": ("training.optimizer.lr: got ''", "number"),
    "train training.optimizer=adamw": ("training.optimizer: got 'adamw'", "training/optimizer=adamw"),
    "train training/optimizer=adan": ("training/optimizer: got 'adan'", "adam, adamw, sgd"),
    "train training/schedule=step": ("training/schedule: got 'step'", "cosine", "steps"),
    "train training.optimizer.momentum=0.9": ("training.optimizer.momentum: unknown key", "betas"),
    "train training.validation.measure=robust_accuracy": ("training.validation.attack: got null", "validation=robust"),
    "train training.precision=float16": ("training.precision: got 'float16'", "'float32' or 'bfloat16'"),
    "train training.accumulate=0": ("training.accumulate: got 0", "greater than or equal to 1"),
    "train training.clip=0": ("training.clip: got 0", "greater than 0"),
    "train training.ema=1": ("training.ema: got 1", "less than 1"),
    "train dataset.validation=0": ("dataset.validation: got 0", "greater than or equal to 0.01"),
    "train dataset.validation=0.6 dataset.test=0.5": ("dataset.validation + dataset.test: got 1.1", "at most 0.98"),
    "train seed=0,1": ("seed=0,1: several values", "-m"),
    "train -m seed=interval(0,3)": ("seed=interval(0,3): no list of values", "range("),
    "train -m dataset=glob(*)": ("dataset=glob(*): no list of values", "choice("),
    "train seed=-1": ("seed: got -1", "greater than or equal to 0"),
    "train dataset=digits_events encoder=direct": ("encoder: got a code for images", "encoder=frames"),
    "train encoder=frames": ("encoder: got a code for events", "any other for images"),
    "train threat.eps.x=3": ("threat.eps.x: unknown key", "no keys"),
    "train training.validation.attack.steps=2": ("training.validation.attack.steps: unknown key", "no keys"),
    "train evaluation={drws:3}": ("evaluation.drws: unknown key", "did you mean draws?"),
    "train +foo=1": ("foo: unknown key", "dataset, "),
    "train foo=1": ("foo: unknown key", "dataset, "),
    "train +suite.foo=1": ("suite.foo: unknown key", "headline, name"),
    "train model.channels=[16,x]": ("model.channels: got [16, 'x']", "entry 1 integer"),
    "train model._target_=my.package.Net": ("model._target_: got 'my.package.Net'", "installed package"),
    "train model._target_=snnrobust.models.convnet.Net": ("model._target_: got", "defines no class or function"),
    "train a=b=c[": ("a=b=c[: cannot be read", "key=value"),
    "train foo": ("foo: cannot be read", "key=value"),
    "train neuron.tau=1": ("neuron.tau: got 1", "greater than 1"),
    "train threads=0": ("threads: got 0", "greater than or equal to 1"),
    "train regularizer=none regularizer.weight=0.1": ("regularizer.weight: got 0.1", "allowed: 0"),
    "train +attack@attacks.clean=pgd": ("attacks.clean: ", "taken"),
    "train suite.headline.pgd_accuracy=x": ("suite.headline.pgd_accuracy: got 'x'", "pgd"),
    "train threat.eps=${nowhere}": ("threat.eps: ", "nowhere"),
    "train threat.eps=${frac:a/b}": ("threat.eps: ", "a/b"),
    "train ~model": ("model: missing",),
    "train -m seed=0,1 training.optimizer.lr=0.01,nan": ("training.optimizer.lr: got nan", "finite"),
    "train -m seed=0,-1": ("seed: got -1", "greater than or equal to 0"),
    "train -m dataset=digits,digit": ("dataset: got 'digit'", "mnist"),
    "train -m seed=0,1 --cfg job": ("--cfg: shows one config", "without -m"),
    "evaluate": ("checkpoint: missing", "checkpoint=RUN"),
    "evaluate threat.eps=0.2": ("checkpoint: missing", "checkpoint=RUN"),
    "evaluate checkpoint=absent": ("checkpoint: got absent", "checkpoint.pt"),
    "evaluate checkpoint=empty": ("checkpoint: got empty", "checkpoint.pt"),
    "evaluate checkpoint=run seed=3": ("seed=3: ", "use train"),
    "evaluate checkpoint=run training.optimizer.lr=0.1": ("training.optimizer.lr=0.1: ", "use train"),
    "evaluate checkpoint=run model=convnet": ("model=convnet: ", "use train"),
    "evaluate checkpoint=run neuron/surrogate=atan": ("neuron/surrogate=atan: ", "use train"),
    "evaluate checkpoint=run attacks.pgd.stepss=3": ("attacks.pgd.stepss: unknown key", "did you mean steps?"),
    "evaluate checkpoint=bare": ("checkpoint: ", "overrides.yaml"),
    "train estimator=foo": ("estimator: got 'foo'", "trained"),
    "train evaluation.draws=0": ("evaluation.draws: got 0", "greater than or equal to 1"),
    "train evaluation.fast=1": ("evaluation.fast: got 1", "boolean"),
    "train +attack@attacks.moved=transfer": ("attacks.moved.source: ", "source"),
    "train +attack@attacks.moved=transfer attacks.moved.source=absent": (
        "attacks.moved.source: got absent",
        "checkpoint.pt",
    ),
    "train +attack@attacks.moved=transfer attacks.moved.source=run": ("attacks.moved.source: ", "config of a run"),
    "train +attack@attacks.moved=transfer attacks.moved.source=bare": ("attacks.moved.source: ", "config.yaml"),
    "evaluate model._target_=own.Net": ("checkpoint: missing", "checkpoint=FILE", "null"),
    "evaluate model._target_=own.Net checkpoint=absent": ("checkpoint: got absent (No such file", "state dict"),
    "evaluate model._target_=own.Net checkpoint=run": ("checkpoint: got run (Is a directory)", "state dict"),
    "evaluate model._target_=own.Nett checkpoint=null": ("model._target_: got 'own.Nett'", "no class or function"),
    "evaluate model._target_=absent.Net checkpoint=null": ("model._target_: got 'absent.Net'", "installed package"),
    "evaluate model._target_=own.Net checkpoint=null": ("model.width: missing", "no default"),
    "evaluate model._target_=own.Net checkpoint=null +model.width=3 +model.widht=3": (
        "model.widht: unknown key",
        "did you mean width?",
    ),
    "evaluate model._target_=own.Net checkpoint=null model.width=3": ("model.width: ", "+model.width=3"),
    "evaluate model._target_=own.Net checkpoint=null +model.width=3 training.optimizer.lr=1": (
        "training.optimizer.lr=1: ",
        "elsewhere",
    ),
    "evaluate model._target_=own.Net checkpoint=null +model.width=3 neuron=if": ("neuron=if: ", "elsewhere"),
    "evaluate model._target_=own.Net checkpoint=null +model.width=3 threat.eps=8": ("threat.eps: got 8", "equal to 1"),
    "evaluate model._target_=own.Net checkpoint=null +model.width=3 stochastic=1": ("stochastic: got 1", "boolean"),
    "evaluate -m model._target_=own.Net checkpoint=null,absent +model.width=3": ("checkpoint: got absent", "null"),
    "describe model.hidden=0": ("model.hidden: got 0", "greater than or equal to 1"),
    "trian": ("unknown verb 'trian'", "train, evaluate"),
    "evaluate checkpoint=broken": ("checkpoint: ", "config.yaml"),
    "evaluate checkpoint=run": ("checkpoint: ", "config.yaml"),
}

# Runs every command above in one process and says what came of it; torch would stay in `sys.modules`.
ALL = """
import contextlib, io, json, sys, time, traceback
from snnrobust.cli import main
answers = {}
for command in json.load(sys.stdin):
    out, err, start = io.StringIO(), io.StringIO(), time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(command.split())
        except BaseException:
            status = traceback.format_exc()
    answers[command] = [status, out.getvalue(), err.getvalue(), time.perf_counter() - start, "torch" in sys.modules]
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Folders that look like runs, as far as their errors need it."""
    folder = tmp_path_factory.mktemp("workplace")
    for name, files in {
        "run": ("checkpoint.pt", "overrides.yaml", "config.yaml"),
        "bare": ("checkpoint.pt",),
        "broken": ("checkpoint.pt", "overrides.yaml"),
        "empty": (),
    }.items():
        (folder / name).mkdir()
        for file in files:
            (folder / name / file).write_text("[]" if file == "overrides.yaml" else "")
    (folder / "own.py").write_text("raise SystemExit\nclass Net(Module):\n    def __init__(self, width): ...\n")
    return folder


@pytest.fixture(scope="module")
def answers(workplace):
    before = sorted(workplace.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", ALL], input=json.dumps([*MISTAKES]), cwd=workplace, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "left": [str(p) for p in sorted(workplace.rglob("*")) if p not in before]}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_answered_in_one_line_without_torch(command, answers):
    status, out, err, seconds, torch = answers[command]
    assert status == 2, err
    assert out == ""
    (line,) = err.splitlines()
    key, *fragments = MISTAKES[command]
    assert line.startswith(f"snnrobust: {key}")
    for fragment in fragments:
        assert fragment in line
    assert not torch
    assert seconds < 2


def test_mistakes_leave_nothing_behind(answers):
    assert answers["left"] == []


def ran(*arguments, cwd):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*PYTHON, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_the_command_answers_a_mistake_at_once(tmp_path):
    start = time.monotonic()
    done = ran("train", "threat.eps=-1", cwd=tmp_path)
    assert time.monotonic() - start < 5  # 1 s where nothing else runs
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "snnrobust: threat.eps: got -1; allowed: greater than or equal to 0\n"
    assert not list(tmp_path.iterdir())


def test_an_unknown_flag_is_wrong_usage(tmp_path):
    done = ran("train", "--fast", cwd=tmp_path)
    assert done.returncode == 2
    assert "--fast" in done.stderr
    assert "killed" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_config_folder_that_is_absent_is_one_line(tmp_path):
    done = ran("train", "--config-dir=/absent", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("snnrobust: ")
    assert "/absent" in line


def test_the_composed_config_can_be_printed(tmp_path):
    done = ran("train", "--cfg", "job", "threat.eps=0.2", cwd=tmp_path)
    assert done.returncode == 0
    assert yaml.safe_load(done.stdout)["threat"]["eps"] == 0.2
    assert not list(tmp_path.iterdir())


def test_help_lists_every_group_with_its_choices(tmp_path):
    done = ran("train", "--help", cwd=tmp_path)
    assert done.returncode == 0
    for group, choices in groups().items():
        assert f"{group}: {', '.join(sorted(choices))}" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_usage(arguments, tmp_path):
    done = ran(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, USAGE)


INTERRUPTED = """
import sys
from types import SimpleNamespace
from snnrobust.cli import main

class HalfMade:
    def __del__(self):
        self.absent

def run(arguments):
    global half_made
    half_made = HalfMade()
    raise KeyboardInterrupt

sys.modules["snnrobust.verbs.train"] = SimpleNamespace(run=run)
sys.exit(main(["train"]))
"""


def test_an_interrupt_is_one_line_whatever_libraries_were_about(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 130
    (line,) = done.stderr.splitlines()
    assert line.startswith("snnrobust: interrupted")


def test_version(tmp_path):
    assert ran("--version", cwd=tmp_path).stdout == f"snnrobust {__version__}\n"
