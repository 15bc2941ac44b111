"""Searches in a report: what was chosen beside what the test says, and files that cannot be used."""

import json

import numpy as np
import pytest

from snnrobust.job import SEARCH
from snnrobust.reporting.pareto import front_table, judged, note, pareto
from snnrobust.reporting.records import collect
from snnrobust.reporting.report import write_report
from tests.unit.test_reporting import content, put

WEIGHTS = (0.0, 0.01, 0.1)
VALIDATION = ((0.9, 0.3), (0.8, 0.5), (0.7, 0.4))


def recorded(root, seeds=(0,), **changes):
    """A search over a weight; its runs are accurate on test data as their weight and seed say."""
    trials = []
    for number, (weight, objectives) in enumerate(zip(WEIGHTS, VALIDATION, strict=True)):
        runs = []
        for seed in seeds:
            test = {"clean_accuracy": 0.9 - weight - 0.02 * seed, "worst_accuracy": 0.2 + weight}
            run = content(weight, seed, metrics=test)
            put(root / f"{weight}-{seed}", run)
            runs.append({key: run[key] for key in ("training_signature", "evaluation_signature")} | {"seed": seed})
        trials.append(
            {
                "number": number,
                "state": "done",
                "words": [f"regularizer.weight={weight}"],
                "objectives": list(objectives),
                "front": number < 2,
                "error": None,
                "runs": runs,
            }
        )
    trials.append(
        {"number": 3, "state": "failed", "words": ["regularizer.weight=1"], "objectives": [], "front": False}
        | {"error": "<b>no</b>", "runs": []}
    )
    names = ("validation_accuracy", "validation_robust_accuracy")
    search = {
        "schema": 1,
        "name": "weights",
        "objectives": [{"name": name, "larger_is_better": True} for name in names],
        "space": ["regularizer.weight=interval(0,1)"],
        "over_seeds": list(seeds) if len(seeds) > 1 else None,
        "trials": trials,
    }
    folder = root / "searches" / "weights"
    folder.mkdir(parents=True)
    (folder / SEARCH).write_text(json.dumps(search | changes))
    return root


def read(root):
    collection = collect([root])
    (search,) = collection.searches
    return search, judged(search, collection.records)


def drawn(root):
    """The panels of the figure, and the points in each, `x, y, x, y, ...`."""
    figure = pareto(*read(root))
    assert figure is not None
    points = [[v for line in axes.get_lines() for v in np.asarray(line.get_xydata()).flat] for axes in figure.axes]
    return figure.axes, points


def test_the_front_is_shown_with_what_the_test_says_of_it(tmp_path):
    search, trials = read(recorded(tmp_path, seeds=(0, 1)))
    table = front_table(search, trials)
    assert table.header[:2] == ("trial", "regularizer.weight")
    assert table.rows == (
        ("0", "0.0", "90.0", "30.0", "89.0 ± 1.4", "20.0 ± 0.0"),
        ("1", "0.01", "80.0", "50.0", "88.0 ± 1.4", "21.0 ± 0.0"),
    )
    assert note(search).startswith("4 trials, 1 failed, 2 on the front; each is the mean over seeds 0, 1; over regul")


def test_the_best_in_the_first_objective_comes_first(tmp_path):
    objectives = [
        {"name": "validation_loss", "larger_is_better": False},
        {"name": "sparsity", "larger_is_better": True},
    ]
    table = front_table(*read(recorded(tmp_path, objectives=objectives)))
    assert [row[0] for row in table.rows] == ["1", "0"]
    assert table.rows[0][2:4] == ("0.8", "0.5")


def test_a_trial_whose_runs_lie_elsewhere_is_shown_without_them(tmp_path):
    search, trials = read(recorded(tmp_path, seeds=(0, 1)))
    here = [trials[0].__class__(trials[0].trial, trials[0].records[:1]), trials[1].__class__(trials[1].trial, ())]
    assert [row[4] for row in front_table(search, here).rows] == ["90.0 (n = 1)", "–"]


def test_points_of_the_figure_are_objectives_and_accuracies_on_test_data(tmp_path):
    (left, _), points = drawn(recorded(tmp_path))
    assert points[0] == pytest.approx([70, 40, 90, 30, 80, 50])
    assert points[1] == pytest.approx([80, 30, 90, 20, 89, 21])
    assert [text.get_text() for text in left.texts] == ["0", "1"]


def test_one_objective_is_drawn_against_the_trial(tmp_path):
    one = recorded(tmp_path, objectives=[{"name": "validation_accuracy", "larger_is_better": True}])
    path = one / "searches/weights" / SEARCH
    search = json.loads(path.read_text())
    for trial in search["trials"]:
        trial["objectives"] = trial["objectives"][:1]
    path.write_text(json.dumps(search))
    _, points = drawn(one)
    assert points[0] == pytest.approx([2, 70, 0, 90, 1, 80])


def test_the_page_has_a_section_and_old_figures_go(tmp_path):
    written = write_report([recorded(tmp_path / "runs")], tmp_path / "out", "A title")
    page = written.page.read_text()
    assert "Search: weights" in page
    assert {"pareto_1.svg", "pareto_1.png"} <= {path.name for path in written.files}
    (tmp_path / "runs/searches/weights" / SEARCH).unlink()
    page = write_report([tmp_path / "runs"], tmp_path / "out", "A title").page.read_text()
    assert "Search:" not in page
    assert not list((tmp_path / "out").glob("pareto_*"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema": 2}, "schema 2"),
        ({"trials": 3}, "trials: input should be a valid list"),
        ({"objectives": []}, "no objectives"),
        ({"objectives": [{"name": "sparsity", "larger_is_better": True}]}, "trial 0 has 2 of 1 objectives"),
        ({"space": []}, "trial 0 has 1 of 0 words"),
    ],
)
def test_a_search_that_cannot_be_read_is_named(tmp_path, changes, reason):
    collection = collect([recorded(tmp_path, **changes)])
    assert collection.searches == ()
    (problem,) = collection.problems
    assert reason in problem.reason
    assert problem.path.name == SEARCH
