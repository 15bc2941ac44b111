"""Comparisons: what is chosen on validation data, what is run, and what the table says."""

from pathlib import Path
from typing import Any

import pytest

from snnrobust.reporting.settings import Estimate
from sweeps import compare, runs
from sweeps.comparison import Comparison, read
from sweeps.render import estimate, percent, row, write

SWEEPS = Path(compare.__file__).parent
COMPARISONS = [path for path in sorted(SWEEPS.glob("*.yaml")) if "\ncontenders:" in path.read_text()]


def comparison(**changes: Any) -> Comparison:
    content = {
        "title": "A comparison",
        "runs": "runs/none",
        "seeds": [0, 1],
        "common": ["regularizer=none", "tracker=none"],
        "datasets": {"digits": [], "few": ["dataset.test=0.1"]},
        "quick": ["suite=quick"],
        "full": ["suite=reliable"],
        "baseline": "none",
        "tolerance": 0.02,
        "contenders": {
            "none": {"label": "none", "family": "none"},
            "sr": {
                "label": "SR", "family": "gradient", "overrides": ["regularizer=gradient_sparsity"],
                "tune": {"key": "regularizer.weight", "values": {"digits": [0.01, 0.02, 0.04], "few": [0.01, 0.02]}},
            },
            "both": {
                "label": "both", "family": "gradient", "datasets": ["digits"],
                "tune": {"key": "regularizer.weight", "values": {"digits": [0.03]}, "against": "sr"},
                "overrides": ["defence=adversarial", "regularizer=gradient_sparsity"],
            },
        },
    }  # fmt: skip
    return Comparison.model_validate(content | changes)


def recorded(monkeypatch, metrics: dict[str, dict[str, float]]) -> None:
    """Results by a part of the overrides that only their run has."""

    def results(overrides: tuple[str, ...]) -> dict[str, Any] | None:
        line = " ".join(overrides)
        found = [value for key, value in metrics.items() if all(part in line for part in key.split())]
        return {"metrics": found[-1]} if found else None

    monkeypatch.setattr(compare, "results", results)


def scores(clean: float, robust: float) -> dict[str, float]:
    return {"validation_accuracy": clean, "validation_robust_accuracy": robust}


def test_the_strongest_value_that_costs_little_is_chosen(monkeypatch):
    recorded(
        monkeypatch,
        {
            "suite=quick": scores(0.98, 0.3),
            "regularizer.weight=0.01": scores(0.98, 0.5),
            "regularizer.weight=0.02": scores(0.97, 0.6),
            "regularizer.weight=0.04": scores(0.95, 0.9),  # three points of clean accuracy
        },
    )
    assert compare.choose(comparison(), "digits") == {"none": None, "sr": 0.02, "both": 0.03}
    assert compare.choose(comparison(tolerance=0.05), "digits")["sr"] == 0.04
    assert compare.choose(comparison(), "few") == {"none": None, "sr": 0.02}


def test_equal_values_are_decided_for_the_smaller_one(monkeypatch):
    recorded(monkeypatch, {"suite=quick": scores(0.9, 0.3), "regularizer.weight": scores(0.9, 0.5)})
    assert compare.choose(comparison(), "digits")["sr"] == 0.01


def test_where_every_value_costs_too_much_the_smallest_is_taken(monkeypatch):
    recorded(monkeypatch, {"suite=quick": scores(0.9, 0.3), "regularizer.weight": scores(0.5, 0.9)})
    assert compare.choose(comparison(), "digits")["sr"] == 0.01


def test_values_are_tried_with_the_first_seed_under_the_thin_suite_alone():
    tried = compare.trials(comparison(seeds=[3, 4]), "few")
    assert [*tried] == [("none", None), ("sr", 0.01), ("sr", 0.02)]
    for (_, value), overrides in tried.items():
        assert "seed=3" in overrides
        assert overrides[-1] == "suite=quick"
        assert (f"regularizer.weight={value}" in overrides) == (value is not None)
        assert "dataset.test=0.1" in overrides


def record(seconds: float | None = None, **metrics: float) -> dict[str, Any]:
    durations = {"data": 1.0} | ({} if seconds is None else {"train": seconds})
    made = {"git": {"commit": "abc", "dirty": False}, "hardware": {"cpu": "a CPU"}, "versions": {"torch": "2"}}
    return {"metrics": metrics, "durations": durations, "flags": [{"name": "noise_stronger"}], **made}


QUICK = {
    "clean_accuracy": 0.9,
    "noise_accuracy": 0.88,
    "pgd_accuracy": 0.5,
    "gradient_sparsity": 0.01,
    "gradient_l1": 2.0,
}


def records(worst: dict[tuple[str, int], float]) -> dict[str, dict[tuple[str, str, int], Any]]:
    full = {("digits", name, s): record(worst_accuracy=w, noise_accuracy=0.8) for (name, s), w in worst.items()}
    return {"quick": {key: record(seconds=10.0, **QUICK) for key in full}, "full": full}


def test_a_contender_is_ahead_if_it_is_for_every_seed():
    worst = {("none", 0): 0.2, ("none", 1): 0.3, ("sr", 0): 0.4, ("sr", 1): 0.35, ("both", 0): 0.9, ("both", 1): 0.3}
    found = {name: row(comparison(), records(worst), "digits", name) for name in ("none", "sr", "both")}
    assert [found[name].ahead for name in found] == [False, True, False]
    difference = found["sr"]["difference"]
    assert difference is not None
    assert difference.mean == pytest.approx((0.2 + 0.05) / 2)
    assert difference.std == pytest.approx(0.15 / 2**0.5)
    gap = found["sr"]["gap"]
    assert gap is not None
    assert gap.mean == pytest.approx(0.8 - 0.375)
    assert not row(comparison(seeds=[0, 1, 2]), records(worst), "digits", "sr").ahead


def test_a_page_is_written_from_what_is_there(tmp_path):
    file = tmp_path / "some.yaml"
    chosen = {("digits", "none"): None, ("digits", "sr"): 0.02, ("digits", "both"): 0.02}
    chosen |= {("few", "none"): None, ("few", "sr"): 0.01}
    its = records({("none", 0): 0.2, ("sr", 0): 0.4, ("both", 0): 0.3})
    for number, name in enumerate(("none", "both", "sr")):  # the sparser, the smaller the gap; l1 is in another order
        metrics = its["quick"]["digits", name, 0]["metrics"]
        metrics |= {"gradient_sparsity": 0.01 * number, "gradient_l1": float((2, 1, 3)[number])}
    write(file, comparison(), chosen, its)
    page, figure = (tmp_path / "some.md").read_text(), (tmp_path / "some.svg").read_text()
    assert "| 2. SR | 0.02 | 90.0 | 88.0 | 50.0 | 40.0 | 20.0 | 40.0 |" in page
    assert "6 of 6 evaluations" in page
    assert "over the 3 contenders: of the sparsity -1.00, of the l1 norm -0.50." in page
    assert "noise_stronger (1 of 1)" in page
    assert "| 2. SR |  |  |" in page.partition("## few")[2]
    assert "worst-case accuracy" in figure


def test_estimates_are_means_and_sample_deviations():
    assert estimate([]) is None
    assert estimate([0.5]) == Estimate(0.5, None, 1)
    found = estimate([0.1, 0.3])
    assert found is not None
    assert percent(found) == "20.0 ± 14.1"
    assert percent(None) == ""


@pytest.mark.parametrize("file", COMPARISONS, ids=lambda file: file.stem)
def test_every_run_of_every_comparison_is_in_order(file):
    """Their configs are composed and checked; no two contenders are the same training."""
    its = read(file)
    assert its.baseline in its.contenders
    for dataset in its.datasets:
        signatures = []
        for name, contender in its.of(dataset).items():
            tune = contender.tune
            overrides = compare.settings(its, dataset, name, tune.values[dataset][-1] if tune else None, its.seeds[0])
            signatures.append(runs.job((*overrides, *its.quick)).training)
            assert runs.job((*overrides, *its.full)).training == signatures[-1]
        assert len({*signatures}) == len(signatures)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("title: [", "no yaml"),
        ("title: x", "Field required"),
        ("[]", "valid dictionary"),
    ],
)
def test_a_file_that_is_not_in_order_is_one_line(tmp_path, capsys, content, said):
    file = tmp_path / "x.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match=said) as caught:
        read(file)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="No such file"):
        read(tmp_path / "absent.yaml")


@pytest.mark.long
def test_a_comparison_is_resumed_and_a_failing_run_does_not_stop_it(tmp_path, monkeypatch, capsys):
    file = tmp_path / "tiny.yaml"
    file.write_text(f"""
title: Tiny
runs: {tmp_path}/runs
seeds: [0]
baseline: none
tolerance: 0.5
common: [tracker=none, regularizer=none, training.epochs=1, training/validation=robust, training.validation.samples=10]
datasets: {{digits: []}}
quick: [suite=quick]
full: [suite=quick, threat.eps=0.2]
contenders:
  none: {{label: none, family: none}}
  broken: {{label: broken, family: none, overrides: [training.optimizer.lr=1e30]}}
""")
    assert compare.compare(file, jobs=2, quick=False, render=False) == 1
    said = capsys.readouterr()
    assert "broken" in said.err
    assert "| 1. none |" in (tmp_path / "tiny.md").read_text()
    compare.compare(file, jobs=2, quick=False, render=False)
    assert "2 runs, 1 on record" in capsys.readouterr().out
