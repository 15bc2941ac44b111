"""The report: found records, labels, means and deviations worked out by hand, and what becomes of broken ones."""

import csv
import io
import json
import shutil

import pytest

from snnrobust.reporting.records import RecordError, collect
from snnrobust.reporting.report import write_report
from snnrobust.reporting.settings import settings_of
from snnrobust.reporting.tables import summarise

METRICS = {
    "clean_accuracy": 0.9,
    "uniform_noise_accuracy": 0.88,
    "noise_accuracy": 0.88,
    "fgsm_accuracy": 0.5,
    "pgd_accuracy": 0.4,
    "worst_accuracy": 0.39,
    "validation_accuracy": 0.93,
    "gradient_sparsity": 0.25,
}


def content(weight=0.0, seed=0, eps=0.1, dataset="digits", **changes):
    metrics = METRICS | changes.pop("metrics", {})
    name = f"{dataset}-{weight}-{seed}"
    threat = {"_target_": "snnrobust.threat.Linf", "eps": eps}
    attack = {"_target_": "snnrobust.attacks.gradient.ProjectedGradient", "threat": threat, "steps": 10, "seed": seed}
    return {
        "schema": 1,
        "kind": "train",
        "training_signature": name,
        "evaluation_signature": f"{name}-{eps}",
        "choices": {"dataset": dataset, "model": "convnet", "regularizer": "gradient_sparsity", "tracker": "none"},
        "config": {
            "dataset": {"_target_": f"snnrobust.data.{dataset}", "root": f"/data/{seed}", "facts": len(dataset)},
            "regularizer": {"weight": weight, "step": 0.01},
            "model": {"channels": [16, 32]},
            "threat": threat,
            "attacks": {"pgd": attack},
            "suite": {"name": "quick", "headline": {"pgd_accuracy": "pgd", "noise_accuracy": "uniform_noise"}},
            "tracker": {"project": "x"},
            "seed": seed,
            "device": "cpu",
            "runs": f"runs{seed}",
        },
        "overrides": [f"regularizer.weight={weight}", f"seed={seed}"],
        "metrics": metrics,
        "flags": [],
        "samples": {"train": 10, "validation": 5, "test": 20},
        "durations": {"train": 1.0, "clean": 0.5},
        "git": {"commit": "0123456789abcdef", "dirty": False},
        "hardware": {"cpu": "some processor"},
        "finished": f"2026-01-0{seed + 1}T00:00:00+00:00",
    } | changes


def put(folder, record, name="results.json"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / name).write_text(json.dumps(record))
    return folder


def sweep(root, accuracies=((0.0, (0.4, 0.5, 0.6)), (0.01, (0.7, 0.7, 0.7)))):
    for weight, values in accuracies:
        for seed, value in enumerate(values):
            put(root / f"{weight}-{seed}", content(weight, seed, metrics={"pgd_accuracy": value}))
    return root


def labels(root):
    return [dict(setting.labels) for setting in settings_of(collect([root]).records)]


def test_parts_that_repeat_the_seed_of_their_run_tell_no_settings_apart(tmp_path):
    for seed in (0, 1):
        its = content(seed=seed)
        its["config"] |= {"defence": {"beta": 2, "attack": {"steps": 10, "seed": seed}}}
        put(tmp_path / str(seed), its)
    (setting,) = settings_of(collect([tmp_path]).records)
    assert setting.seeds == (0, 1)


def test_mean_and_sample_deviation_over_seeds_are_those_worked_out_by_hand(tmp_path):
    summary = summarise(collect([sweep(tmp_path)]))
    estimates = [e for setting in summary.settings if (e := setting.estimate("pgd_accuracy"))]
    assert [e.mean for e in estimates] == pytest.approx([0.5, 0.7])
    assert [e.std for e in estimates] == pytest.approx([0.1, 0.0])
    assert [e.n for e in estimates] == [3, 3]
    assert summary.rows()[0][:2] == ["0", "3"]
    assert "50.0 ± 10.0" in summary.rows()[0]


def test_a_single_run_has_no_deviation(tmp_path):
    put(tmp_path / "a", content())
    summary = summarise(collect([tmp_path]))
    assert "±" not in "".join(summary.rows()[0])
    assert "no spread is known" in summary.notes[0]


def test_rows_are_labelled_by_what_varies_and_by_nothing_else(tmp_path):
    sweep(tmp_path)
    assert labels(tmp_path) == [{"regularizer.weight": 0.0}, {"regularizer.weight": 0.01}]
    put(tmp_path / "other", content(dataset="digits_events"))
    assert {"dataset": "digits_events", "regularizer.weight": 0.0} in labels(tmp_path)
    assert all("dataset._target_" not in row for row in labels(tmp_path))


def test_a_swept_budget_is_one_label_although_every_attack_repeats_it(tmp_path):
    for eps in (0.2, 0.05):
        put(tmp_path / str(eps), content(eps=eps))
    assert labels(tmp_path) == [{"threat.eps": 0.05}, {"threat.eps": 0.2}]


def test_numbers_are_sorted_by_size(tmp_path):
    for weight in (0.01, 0.002, 10.0):
        put(tmp_path / str(weight), content(weight))
    assert [row["regularizer.weight"] for row in labels(tmp_path)] == [0.002, 0.01, 10.0]


def test_a_mixed_bag_gives_its_records_and_names_the_rest(tmp_path):
    sweep(tmp_path / "sweep")
    evaluation = put(tmp_path / "sweep" / "0.0-0" / "evaluation", content(eps=0.3))
    (put(tmp_path / "torn", content(seed=7)) / "results.json").write_text('{"schema": 1, "metr')
    put(tmp_path / "old", content(seed=8, schema=0))
    put(tmp_path / "odd", content(seed=9, metrics={"pgd_accuracy": "high"}))
    put(tmp_path / "failed", {"schema": 1, "error": "ValueError: no", "traceback": "Trace"}, "failure.json")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "config.yaml").write_text("seed: 0\n")
    lacking = content(seed=10)
    del lacking["config"]
    put(tmp_path / "lacking", lacking)
    found = collect([tmp_path])
    assert len(found.records) == 7
    assert evaluation / "results.json" in [record.path for record in found.records]
    assert [failure.error for failure in found.failures] == ["ValueError: no"]
    reasons = {problem.path.relative_to(tmp_path).parts[0]: problem.reason for problem in found.problems}
    assert set(reasons) == {"torn", "old", "odd", "killed", "lacking"}
    assert "damaged" in reasons["torn"]
    assert "schema 0" in reasons["old"]
    assert "pgd_accuracy" in reasons["odd"]
    assert "unfinished" in reasons["killed"]
    assert "config" in reasons["lacking"]
    assert "1 run failed and is not in the table" in summarise(found).notes


def test_a_copied_run_counts_once_and_a_copy_that_differs_is_named(tmp_path):
    run = put(tmp_path / "here", content())
    shutil.copytree(run, tmp_path / "there")
    assert len(collect([tmp_path, run]).records) == 1
    assert collect([tmp_path, run]).problems == ()
    put(tmp_path / "there", content(finished="2027-01-01T00:00:00+00:00", metrics={"pgd_accuracy": 0.1}))
    found = collect([tmp_path])
    assert [record.metrics["pgd_accuracy"] for record in found.records] == [0.1]
    assert [problem.path for problem in found.problems] == [run / "results.json"]


def test_missing_and_null_values_are_never_filled_in(tmp_path):
    put(tmp_path / "a", content(0.0))
    put(tmp_path / "b", content(0.1, metrics={"pgd_accuracy": None, "gradient_sparsity": None}))
    summary = summarise(collect([tmp_path]))
    assert summary.settings[1].estimate("pgd_accuracy") is None
    assert summary.rows()[1].count("–") == 2


FLAG = {"name": "masking", "sentence": "nothing was found", "value": 0.125}


def test_a_flag_marks_the_accuracies_under_attack_of_its_row(tmp_path):
    put(tmp_path / "a", content(0.0, flags=[FLAG]))
    put(tmp_path / "b", content(0.1))
    summary = summarise(collect([tmp_path]))
    marked, plain = (dict(zip(summary.metrics, row[2:], strict=True)) for row in summary.rows())
    assert [name for name, text in marked.items() if text.endswith("†")] == [
        "fgsm_accuracy",
        "pgd_accuracy",
        "worst_accuracy",
    ]
    assert marked["pgd_accuracy"] == "40.0†"
    assert "†" not in "".join(plain.values())


def test_a_note_says_what_a_flag_means_and_where_more_is_said(tmp_path):
    more = {**FLAG, "value": 0.5, "sentence": "much was not found", "anchor": "docs/checks.md#masking"}
    for seed, flags in enumerate(([FLAG], [more], [{**FLAG, "name": "another"}], [])):
        put(tmp_path / str(seed), content(seed=seed, flags=flags))
    notes = [note for note in summarise(collect([tmp_path])).notes if note.startswith("†")]
    assert notes == [
        "† another (1 of 4 runs, at most 0.125): nothing was found",
        "† masking (2 of 4 runs, at most 0.5): much was not found; see docs/checks.md#masking",
    ]


def test_every_run_is_listed_with_its_flags(tmp_path):
    put(tmp_path / "runs" / "a", content(flags=[FLAG, {**FLAG, "name": "another"}]))
    put(tmp_path / "runs" / "b", content(seed=1))
    report = write_report([tmp_path / "runs"], tmp_path / "out", "title")
    rows = csv.DictReader(io.StringIO((tmp_path / "out" / "runs.csv").read_text()))
    assert [row["flags"] for row in rows] == ["masking another", ""]
    assert '<td class="label">masking, another</td>' in report.page.read_text()


def test_csv_keeps_full_precision(tmp_path):
    put(tmp_path / "a", content(metrics={"pgd_accuracy": 1 / 3}))
    (row,) = csv.DictReader(io.StringIO(summarise(collect([tmp_path])).to_csv()))
    assert float(row["pgd_accuracy_mean"]) == 1 / 3
    assert row["pgd_accuracy_std"] == ""
    assert row["pgd_accuracy_n"] == "1"


def test_latex_and_markdown_escape_what_they_must(tmp_path):
    sweep(tmp_path)
    put(tmp_path / "c", content(dataset="digits_events"))
    summary = summarise(collect([tmp_path]))
    assert r"digits\_events" in summary.to_latex()
    assert r"$\pm$" in summary.to_latex()
    assert "±" not in "".join(line for line in summary.to_latex().splitlines() if not line.startswith("%"))
    assert r"\toprule" in summary.to_latex()
    assert summary.to_markdown().startswith("| dataset")


def test_the_report_writes_every_file_and_the_same_bytes_twice(tmp_path):
    sweep(tmp_path / "runs")
    first = write_report([tmp_path / "runs"], tmp_path / "one", "title")
    second = write_report([tmp_path / "runs"], tmp_path / "two", "title")
    names = {path.name for path in first.files}
    tables = {"table.md", "table.csv", "table.tex", "runs.csv", "index.html"}
    assert names == tables | {f"{n}.{kind}" for n in ("tradeoff", "sparsity", "budget") for kind in ("svg", "png")}
    assert {p.name for p in (tmp_path / "one").iterdir()} == names
    for one, two in zip(first.files, second.files, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name


def test_the_page_stands_alone_and_escapes_what_records_say(tmp_path):
    put(tmp_path / "runs" / "a", content(overrides=["x=<script>alert(1)</script>"]))
    failure = {"schema": 1, "error": "<img src=x onerror=alert(1)>", "traceback": "</pre><script>"}
    put(tmp_path / "runs" / "b", failure, "failure.json")
    page = write_report([tmp_path / "runs"], tmp_path / "out", "<title> & co").page.read_text()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("data:image/svg+xml;base64,") == 3


def test_nothing_to_report_is_an_error_in_one_line(tmp_path):
    with pytest.raises(RecordError, match="no such folder"):
        collect([tmp_path / "absent"])
    put(tmp_path / "runs" / "old", content(schema=0))
    with pytest.raises(RecordError, match=r"0 failed runs, 1 unusable"):
        write_report([tmp_path / "runs"], tmp_path / "out", "title")
    assert not (tmp_path / "out").exists()


def test_keys_that_change_together_are_all_shown(tmp_path):
    for i, lr in enumerate((0.1, 0.2)):
        record = content()
        record["training_signature"] = str(i)
        record["config"]["training"] = {"epochs": 10 + i, "lr": lr}
        put(tmp_path / str(i), record)
    assert [set(row) for row in labels(tmp_path)] == [{"training.epochs", "training.lr"}] * 2


def test_choices_that_change_together_are_all_shown(tmp_path):
    for i, (encoder, neuron) in enumerate((("direct", "lif"), ("poisson", "if"))):
        record = content()
        record["training_signature"] = str(i)
        record["choices"] = record["choices"] | {"encoder": encoder, "neuron": neuron}
        put(tmp_path / str(i), record)
    assert [set(row) for row in labels(tmp_path)] == [{"encoder", "neuron"}] * 2


def test_a_choice_inside_a_group_stands_for_its_settings(tmp_path):
    """Four runs, three of them with an attack on validation data, of two kinds, one of these in two lengths."""
    place = "training.validation.attack"
    for i, (choice, steps) in enumerate(((None, 0), ("pgd", 10), ("fgsm", 1), ("pgd", 20))):
        record = content()
        record["training_signature"] = str(i)
        attack = {"start": "uniform" if choice == "pgd" else "input", "steps": steps, "seed": 0} if choice else None
        record["config"]["training"] = {"validation": {"measure": "robust" if choice else "loss", "attack": attack}}
        inside = {f"attack@{place}": choice, f"threat@{place}.threat": "linf"} if choice else {}
        record["choices"] |= {"training": "adam", "training/validation": "robust" if choice else "objective", **inside}
        put(tmp_path / str(i), record)
    shown = sorted(sorted(row) for row in labels(tmp_path))
    both = sorted(["training/validation", f"attack@{place}", f"{place}.steps"])
    assert shown == [both] * 3 + [["training/validation"]]


def test_a_copied_value_is_shown_once(tmp_path):
    for i, steps in enumerate((4, 8)):
        record = content()
        record["training_signature"] = str(i)
        record["config"]["encoder"] = {"steps": steps}
        record["config"]["dataset"]["steps"] = steps
        put(tmp_path / str(i), record)
    assert labels(tmp_path) == [{"encoder.steps": 4}, {"encoder.steps": 8}]


def test_points_of_single_runs_pair_the_metrics_of_one_run(tmp_path):
    put(tmp_path / "a", content(seed=0, metrics={"clean_accuracy": 0.91, "pgd_accuracy": None}))
    put(tmp_path / "b", content(seed=1, metrics={"clean_accuracy": 0.92, "pgd_accuracy": 0.3}))
    (setting,) = settings_of(collect([tmp_path]).records)
    assert setting.pairs("clean_accuracy", "pgd_accuracy") == [(0.92, 0.3)]


def test_a_cell_that_rests_on_fewer_runs_than_its_row_says_so(tmp_path):
    put(tmp_path / "a", content(seed=0, metrics={"pgd_accuracy": None}))
    put(tmp_path / "b", content(seed=1))
    (row,) = summarise(collect([tmp_path])).rows()
    assert "40.0 (n = 1)" in row
    assert "90.0 ± 0.0" in row


def test_the_later_of_two_copies_is_later_in_time_not_in_text(tmp_path):
    put(tmp_path / "old", content(finished="2026-01-02T01:00:00+05:00", metrics={"pgd_accuracy": 0.1}))
    put(tmp_path / "new", content(finished="2026-01-01T23:00:00+00:00", metrics={"pgd_accuracy": 0.2}))
    assert [record.metrics["pgd_accuracy"] for record in collect([tmp_path]).records] == [0.2]


@pytest.mark.parametrize(
    "damage",
    [
        {"config": {"seed": 0, "threat": {}, "suite": {}}},
        {"config": {"seed": "zero", "threat": {}, "suite": {"headline": {}}}},
        {"config": {"seed": 0, "suite": {"headline": {}}}},
        {"durations": {"train": None}},
        {"flags": ["masking"]},
        {"flags": [{"name": "masking", "sentence": "x", "value": "much"}]},
        {"flags": [{"name": "masking"}]},
        {"finished": "yesterday"},
    ],
)
def test_one_bad_record_is_a_problem_and_never_stops_the_report(tmp_path, damage):
    put(tmp_path / "runs" / "good", content())
    put(tmp_path / "runs" / "bad", content(seed=1, **damage))
    found = collect([tmp_path])
    assert (len(found.records), len(found.problems)) == (1, 1)
    assert write_report([tmp_path / "runs"], tmp_path / "out", "title").page.exists()


def test_deeply_nested_json_is_a_problem(tmp_path):
    folder = put(tmp_path / "deep", content())
    (folder / "results.json").write_text("[" * 100_000)
    assert ["damaged" in problem.reason for problem in collect([tmp_path]).problems] == [True]


def test_commands_can_be_pasted_into_a_shell(tmp_path):
    put(tmp_path / "runs" / "a", content(overrides=["model.channels=[16, 32]"]))
    page = write_report([tmp_path / "runs"], tmp_path / "out", "title").page.read_text()
    assert "snnrobust train &#39;model.channels=[16, 32]&#39;" in page


def test_figures_of_an_earlier_report_do_not_stay(tmp_path):
    put(tmp_path / "one" / "a", content())
    put(tmp_path / "two" / "a", content(metrics={"pgd_accuracy": None}))
    write_report([tmp_path / "one"], tmp_path / "out", "title")
    assert (tmp_path / "out" / "tradeoff.svg").exists()
    write_report([tmp_path / "two"], tmp_path / "out", "title")
    assert not (tmp_path / "out" / "tradeoff.svg").exists()
