"""The space of a search as it is typed, its words, and what cannot be searched over."""

import pytest

from snnrobust.schema import ConfigError
from snnrobust.search.asked import asked
from snnrobust.search.space import Choices, Numbers, space

ROBUST = "training/validation=robust"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a=interval(0.1,0.5)", Numbers(0.1, 0.5, False, False, None)),
        ("a=tag(log, interval(1e-4, 1e-1))", Numbers(1e-4, 0.1, False, True, None)),
        ("a=tag(int,interval(1,8))", Numbers(1, 8, True, False, None)),
        ("a=int(interval(1,8))", Numbers(1, 8, True, False, None)),
        ("a=tag(int,log,interval(1,8))", Numbers(1, 8, True, True, None)),
        ("a=range(1,8,2)", Numbers(1, 7, True, False, 2)),
        ("a=range(7,0,-2)", Numbers(1, 7, True, False, 2)),
        ("a=range(0.1,0.5,0.1)", Numbers(0.1, 0.4, False, False, 0.1)),
        ("a=1,2,4", Choices(("1", "2", "4"))),
        ("a=choice([8,16],[16,32])", Choices(("[8,16]", "[16,32]"))),
        ("a=none,trades,none", Choices(("none", "trades"))),
    ],
)
def test_hydras_grammar_of_sweeps_says_what_a_key_may_be(word, expected):
    found = space([word, "b=3"])
    assert found.dimensions == {"a": expected}
    assert found.fixed == ("b=3",)


def test_words_of_a_trial_can_be_typed():
    found = space(["seed=0", "a.b=tag(log,interval(1e-7,1))", "c=range(0.1,0.5,0.1)", "+d@e.f=x,y"])
    values = {"a.b": 1.23456789e-5, "c": 0.30000000000000004, "+d@e.f": "y"}
    assert found.words(values) == ("seed=0", "a.b=1.23457e-05", "c=0.3", "+d@e.f=y")


def test_rounding_never_leaves_the_interval():
    found = space(["a=interval(0.1234561,0.9876549)"])
    assert found.own({"a": 0.1234561}) == ("a=0.1234561",)
    assert found.own({"a": 0.9876549}) == ("a=0.9876549",)
    assert found.own({"a": 0.5555555555}) == ("a=0.555556",)


def test_corners_have_every_choice_and_both_ends():
    corners = list(space(["a=x,y,z", "b=interval(0,1)", "c=1,2"]).corners())
    assert len(corners) == 1 + 2 + 1 + 1
    assert {corner["a"] for corner in corners} == {"x", "y", "z"}
    assert {corner["b"] for corner in corners} == {0, 1}


def test_combinations_are_those_of_a_sweep():
    found = space(["a=x,y", "b=range(1,4)"])
    assert [found.own(found.combination(k) or {}) for k in range(6)] == [
        (f"a={a}", f"b={b}") for a in "xy" for b in (1, 2, 3)
    ]
    assert found.combination(6) is None


def test_words_that_change_no_result_do_not_make_another_search():
    one = space(["runs=a", "launcher=local", "dataset.root=x", "b=1,2", "c=1"])
    other = space(["c=1", "device=cpu", "b=1,2", "runs=b"])
    assert one.identity == other.identity != space(["c=2", "b=1,2"]).identity


REFUSED = {
    "regularizer.weight=0.1": ("every key is fixed", "interval"),
    "seed=0,1": ("seed=0,1: would find the luckiest seed", "search.over_seeds"),
    "threat.eps=interval(0,0.1)": ("threat.eps", "test data"),
    "suite=quick,reliable": ("suite=quick,reliable", "test data"),
    "runs=a,b": ("runs=a,b", "no result depends on it"),
    "launcher=local,parallel": ("launcher", "no result depends on it"),
    "regularizer.weight=interval(1,0)": ("regularizer.weight", "LOW below HIGH"),
    "regularizer.weight=tag(log,interval(0,1))": ("regularizer.weight", "above 0"),
    "model.hidden=tag(int,interval(1,8.5))": ("model.hidden", "whole numbers"),
    "regularizer.weight=tag(fast,interval(0,1))": ("regularizer.weight", "cannot be searched over"),
    "defence=glob(*)": ("defence=glob(*)", "cannot be searched over"),
    "model.hidden=shuffle(8,16)": ("model.hidden", "cannot be searched over"),
    "model.hidden=range(8,9)": ("model.hidden", "two values at least"),
    "model.hidden=8,0": ("model.hidden: got 0", "greater than or equal to 1"),
    "regularizer.weight=interval(-1,1)": ("regularizer.weight: got -1", "greater than or equal to 0"),
    "regularizer.weigth=interval(0,1)": ("regularizer.weigth: unknown key", "did you mean weight?"),
    "model.hidden=8,16 model.hidden=8,32": ("model.hidden: given twice",),
    "model.hidden=8,16 search.trials=0": ("search.trials: got 0", "greater than or equal to 1"),
    "model.hidden=8,16 search.trails=9": ("search.trails: unknown key", "did you mean trials?"),
    "model.hidden=8,16 search.sampler=cmaes": ("search.sampler: got 'cmaes'", "nsga2"),
    "model.hidden=8,16 search.name=a/b": ("search.name: got 'a/b'", "letters"),
    "model.hidden=8,16 search.over_seeds=[]": ("search.over_seeds: got []", "one or more"),
    "model.hidden=8,16 search.over_seeds=[1,1]": ("search.over_seeds: got [1, 1]", "each once"),
    "model.hidden=8,16 search.over_seeds=[0,1] seed=3": ("seed: given beside search.over_seeds",),
    "model.hidden=8,16 search.objectives=[worst_accuracy]": ("worst_accuracy, which is measured on test data",),
    "model.hidden=8,16 search.objectives=[energy_ratio]": ("energy_ratio, which is measured on test data",),
    "model.hidden=8,16 search.objectives=[speed]": ("got speed; allowed: validation_accuracy",),
    "model.hidden=8,16 search.objectives=[]": ("search.objectives: got []", "one or more"),
    "regularizer.weight=interval(0,1) search.sampler=grid": ("regularizer.weight", "no grid over an interval"),
}


@pytest.mark.parametrize("command", REFUSED)
def test_what_cannot_be_searched_is_refused_in_one_line(command):
    with pytest.raises(ConfigError) as refused:
        asked([ROBUST, *command.split()])
    assert len(str(refused.value).splitlines()) == 1
    assert all(fragment in str(refused.value) for fragment in REFUSED[command])


def test_an_objective_that_runs_would_not_measure_is_refused():
    with pytest.raises(ConfigError, match="allowed: training/validation=robust"):
        asked(["model.hidden=8,16"])
    with pytest.raises(ConfigError, match="training=none validates nothing"):
        asked(["model.hidden=8,16", "training=none", "start=random_connectivity", "start.sparsity=0.5"])
    asked(["model.hidden=8,16", "search.objectives=[validation_accuracy,stored_bytes]"])


def test_one_choice_without_the_objective_is_enough_to_refuse():
    with pytest.raises(ConfigError, match="no validation is under attack"):
        asked(["training/validation=robust,accuracy", "model.hidden=8"])


def test_a_trial_over_seeds_is_a_run_for_each():
    request = asked([ROBUST, "model.hidden=8,16", "search.over_seeds=[0,1,2]", "launcher=parallel", "runs=there"])
    jobs = request.jobs({"model.hidden": "16"})
    assert [job.config["seed"] for job in jobs] == [0, 1, 2]
    assert {job.config["model"]["hidden"] for job in jobs} == {16}
    assert not any("launcher" in word for job in jobs for word in job.overrides)
    assert request.launcher["_target_"].endswith("Parallel")
    assert str(request.folder) == "there/searches/default"
