"""A document stands for the words that it holds."""

from pathlib import Path

import pytest
import yaml

from snnrobust.config import compose
from snnrobust.launch import read, spelt_out
from snnrobust.overrides import expand
from snnrobust.schema import ConfigError
from snnrobust.sweepfiles import _is_sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"

DOCUMENT = """
# @package _global_
defaults:
  - override /experiment: fashion_mnist
  - override /training/schedule: linear
  - /attack@attacks.apgd: apgd
  - _self_
threat:
  eps: 8/255
training:
  clip: null
  optimizer: {lr: 0.01}
model:
  channels: [8, 16]
dataset.root: here
table: {rows: regularizer.weight}
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      regularizer.weight: 0,0.01
      seed: [0, 1, 2]
      training.accumulate: range(1,3)
"""
WORDS = [
    *("experiment=fashion_mnist", "training/schedule=linear", "+attack@attacks.apgd=apgd"),
    *("threat.eps=8/255", "training.clip=null", "training.optimizer.lr=0.01", "model.channels=[8,16]"),
    *("dataset.root=here", "regularizer.weight=0,0.01", "seed=0,1,2", "training.accumulate=range(1,3)"),
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, with `sweeps/weights.yaml` in it."""
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "weights.yaml").write_text(DOCUMENT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_stands_for_choices_values_and_what_varies(place):
    assert spelt_out(["+sweeps=weights"]) == WORDS
    assert spelt_out(["+sweeps=sweeps/weights.yaml"]) == WORDS
    assert len(expand(WORDS)) == 12


def test_its_runs_are_those_of_the_same_words_typed_by_hand(place):
    by_name = read("config", "train", ["+sweeps=weights"])
    typed = read("config", "train", ["-m", *WORDS])
    assert by_name.many
    assert [task.job.folder for task in by_name.tasks] == [task.job.folder for task in typed.tasks]
    assert all(task.job.group == "weights" for task in by_name.tasks)
    (one,) = read("config", "train", [*by_name.tasks[0].job.overrides]).tasks
    assert one.job.folder == by_name.tasks[0].job.folder


@pytest.mark.parametrize("text", ["my data, old", "it's here", "data (old)", "a=b", "~/x # y", "[a]", "null", "müller"])
def test_a_text_is_one_value_whatever_its_characters(place, text):
    content = {"dataset": {"root": text}, "hydra": {"sweeper": {"params": {"seed": "0,1"}}}}
    (place / "sweeps" / "texts.yaml").write_text(yaml.safe_dump(content))
    tasks = read("config", "train", ["+sweeps=texts"]).tasks
    assert [task.job.config["dataset"]["root"] for task in tasks] == [text, text]


def test_what_is_typed_wins(place):
    tasks = read("config", "train", ["+sweeps=weights", "seed=7", "regularizer.weight=0,1", "threat.eps=0.2"]).tasks
    assert len(tasks) == 4
    assert {task.job.config["seed"] for task in tasks} == {7}
    assert {task.job.config["threat"]["eps"] for task in tasks} == {0.2}


def test_what_its_runs_keep_does_not_need_the_document(place):
    job = read("config", "train", ["+sweeps=weights"]).tasks[-1].job
    (place / "sweeps" / "weights.yaml").unlink()
    assert compose("config", job.overrides).config == job.config


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("hydra: {sweeper: {params: {seed: '0,1'}}}\ndefaults: [experiment]", "defaults: got 'experiment'"),
        ("hydra: {sweeper: {params: {seed: '0,1'}}}\ndefaults: [{experiment: x}]", "defaults: got experiment"),
        ("hydra: {sweeper: {params: seed}}", "says nothing of hydra.sweeper.params"),
        ("- 1", "says nothing of hydra.sweeper.params"),
        ("a: [", "while parsing"),
        ("hydra: {sweeper: {params: {sed: '0,1'}}}", "sed: unknown key"),
        ("hydra: {sweeper: {params: {seed: '0,-1'}}}", "seed: got -1"),
    ],
    ids=["no-mapping", "no-override", "no-params", "list", "no-yaml", "unknown-key", "range"],
)
def test_mistakes_are_told_in_one_line(place, content, said):
    (place / "sweeps" / "wrong.yaml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        read("config", "train", ["+sweeps=wrong"])
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_absent_one_is_told_with_those_that_are_there(place):
    (place / "sweeps" / "other.yaml").write_text("title: no sweep\n")
    with pytest.raises(ConfigError, match=r"no sweeps/absent\.yaml; allowed: weights$"):
        spelt_out(["+sweeps=absent"])
    with pytest.raises(ConfigError, match="weights and other; allowed: one"):
        spelt_out(["+sweeps=weights", "sweeps=other"])


@pytest.mark.parametrize(
    "path", [path for path in sorted(SWEEPS.glob("*.yaml")) if _is_sweep(path)], ids=lambda p: p.stem
)
def test_every_sweep_that_comes_along_is_in_order(path, tmp_path):
    command = read("config", "train", [f"+sweeps={path}", f"runs={tmp_path}"])
    assert command.many
    assert len({task.job.evaluation for task in command.tasks}) == len(command.tasks) > 1
