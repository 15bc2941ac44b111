"""Trials on disk: the same ones whether or not a search is interrupted, each in one process, none lost."""

import itertools
import random

import pytest

from snnrobust.schema import ConfigError
from snnrobust.search.objectives import Missing, means
from snnrobust.search.pareto import front
from snnrobust.search.settings import Search
from snnrobust.search.space import space
from snnrobust.search.study import JOURNAL, Study

SPACE = space(["seed=0", "a=tag(log,interval(1e-4,1))", "b=x,y,z", "c=range(1,8,2)"])
FINITE = space(["b=x,y,z", "c=1,2"])


def objectives(trial):
    """A trade-off between two measures."""
    return [trial.values["a"] * 0.9, 1 - trial.values["a"] ** 2 - 0.01 * trial.values["c"]]


def search(folder, count=None, searched=SPACE, tell=objectives, **settings):
    """Runs batches until all trials are done, or dies in the middle of a batch after `count` trials."""
    study = Study(folder, Search(**settings), searched)
    for number, trial in enumerate(itertools.chain.from_iterable(iter(study.ask, []))):
        if number == count:
            study._alive.release()  # as the kernel does when a process ends; nothing is tidied up
            return study
        study.tell(trial.number, tell(trial))
    study.close()
    return study


def proposed(study):
    return [(trial.number, dict(trial.values)) for trial in study.trials()]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_an_interrupted_search_proposes_what_it_would_have_proposed(tmp_path, sampler, batch):
    settings = {"sampler": sampler, "batch": batch, "trials": 18, "startup": 5, "population": 5, "seed": 3}
    whole = search(tmp_path / "whole", **settings)
    for count in (0, 3, 1, 6):
        search(tmp_path / "parts", count, **settings)
    parts = search(tmp_path / "parts", **settings)
    assert proposed(parts) == proposed(whole)
    assert len(proposed(whole)) == 18
    assert all(trial.state == "done" for trial in parts.trials())
    other = search(tmp_path / "other", **{**settings, "seed": 4})
    assert proposed(other) != proposed(whole)
    assert len({str(values) for _, values in proposed(whole)}) > 9, "the same trial again and again"


def test_a_larger_number_of_trials_extends_a_search(tmp_path):
    search(tmp_path / "a", trials=4)
    extended = search(tmp_path / "a", trials=7)
    assert proposed(extended) == proposed(search(tmp_path / "b", trials=7))
    assert proposed(search(tmp_path / "a", trials=2)) == proposed(extended)


def test_a_grid_has_every_combination_once(tmp_path):
    found = search(tmp_path, sampler="grid", trials=100, searched=FINITE, tell=lambda _: [0, 0])
    assert [tuple(values.values()) for _, values in proposed(found)] == [(b, c) for b in "xyz" for c in "12"]


def test_two_processes_share_the_trials(tmp_path):
    one, other = (Study(tmp_path, Search(trials=5), SPACE) for _ in range(2))
    asked = [study.ask()[0].number for study in (one, other, one, other, one)]
    assert asked == [0, 1, 2, 3, 4]
    assert one.ask() == other.ask() == []
    one._alive.release()
    assert [other.ask()[0].number for _ in range(3)] == [0, 2, 4], "trials of a dead process"
    assert other.ask() == []
    other.close()


def test_what_failed_is_tried_again_by_the_next_command(tmp_path):
    study = Study(tmp_path, Search(trials=2), SPACE)
    (failed,), (fine,) = study.ask(), study.ask()
    study.tell_failed(failed.number, "no disk")
    study.tell(fine.number, objectives(fine))
    assert study.ask() == [], "the same command does not try again"
    assert [(trial.state, trial.error) for trial in study.trials()] == [("failed", "no disk"), ("done", None)]
    study.close()
    later = Study(tmp_path, Search(trials=2), SPACE)
    (again,) = later.ask()
    assert again.values == failed.values
    later.tell(again.number, objectives(again))
    assert later.ask() == []
    assert [trial.state for trial in later.trials()] == ["done", "done"]
    later.close()


def test_a_trial_that_was_not_proposed_in_full_is_proposed_again(tmp_path, monkeypatch):
    study = Study(tmp_path / "a", Search(trials=3, sampler="random"), SPACE)
    (first,) = study.ask()
    study.tell(first.number, objectives(first))
    study._study.ask()  # as a process that is killed in the middle of it leaves it
    study._alive.release()
    found = search(tmp_path / "a", trials=3, sampler="random")
    whole = search(tmp_path / "b", trials=3, sampler="random")
    assert [values for _, values in proposed(found)] == [values for _, values in proposed(whole)]


def test_half_a_line_of_the_journal_is_cut_off(tmp_path):
    search(tmp_path / "a", trials=3)
    with (tmp_path / "a" / JOURNAL).open("a") as file:
        file.write('{"op_code": 4, "trial_')
    assert proposed(search(tmp_path / "a", trials=5)) == proposed(search(tmp_path / "b", trials=5))


def test_a_damaged_journal_is_refused(tmp_path):
    search(tmp_path, trials=3)
    lines = (tmp_path / JOURNAL).read_text().splitlines(keepends=True)
    lines[4] = "\0\0\0\n"
    (tmp_path / JOURNAL).write_text("".join(lines))
    with pytest.raises(ConfigError, match=r"damaged.*another name"):
        Study(tmp_path, Search(), SPACE)


@pytest.mark.parametrize(
    ("settings", "words", "told"),
    [
        ({}, ["a=interval(0,2)"], "a=interval(0,1) for a=interval(0,2)"),
        ({}, ["a=interval(0,1)", "b=3"], "with nothing for b=3"),
        ({"objectives": ("sparsity", "validation_loss")}, ["a=interval(0,1)"], "search.objectives="),
        ({"over_seeds": (0, 1)}, ["a=interval(0,1)"], "search.over_seeds=None"),
    ],
)
def test_another_search_under_the_same_name_is_refused(tmp_path, settings, words, told):
    Study(tmp_path, Search(), space(["a=interval(0,1)"])).close()
    before = (tmp_path / JOURNAL).read_bytes()
    with pytest.raises(ConfigError) as refused:
        Study(tmp_path, Search(**settings), space(words))
    assert told in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert (tmp_path / JOURNAL).read_bytes() == before
    assert [path.name for path in tmp_path.glob(".process-*")] == []


def test_objectives_are_means_over_the_runs_of_a_trial():
    runs = [{"training_signature": "x", "metrics": {"sparsity": value}} for value in (0.1, 0.3)]
    assert means(["sparsity"], runs) == pytest.approx([0.2])
    with pytest.raises(Missing, match="x has no number for validation_loss"):
        means(["validation_loss"], runs)
    with pytest.raises(Missing):
        means(["sparsity"], [{"training_signature": "x", "metrics": {"sparsity": None}}])


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_the_front_is_that_of_all_pairs(objectives):
    draw = random.Random(objectives)
    for _ in range(50):
        larger = [draw.random() < 0.5 for _ in range(objectives)]
        points = [[draw.randint(0, 5) for _ in range(objectives)] for _ in range(30)]

        def beats(a, b, larger=larger):
            gains = [(x - y) if up else (y - x) for x, y, up in zip(a, b, larger, strict=True)]
            return min(gains) >= 0 and max(gains) > 0

        assert front(points, larger) == [not any(beats(other, point) for other in points) for point in points]
    assert front([], larger) == []
