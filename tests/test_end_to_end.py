"""Whole runs on the digits, from the command line to the files: small networks, few epochs, nothing replaced."""

import contextlib
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml

from snnrobust.cli import main
from snnrobust.identity import evaluation_signature, training_signature

SMALL = ("model.channels=[8]", "model.hidden=32", "encoder.steps=4", "device=cpu")
QUICK = ("train", *SMALL, "training=debug")
THREE_EPOCHS = ("train", *SMALL, "training.epochs=3", "training.batch_size=32", "training.optimizer.lr=0.02")
FILES = {
    "config.yaml",
    "overrides.yaml",
    "checkpoint.pt",
    "history.jsonl",
    "run.log",
    "results.json",
    "outcomes.npz",
    "gradients.npz",
    ".lock",
    ".evaluation.lock",
}
REQUIRED = {
    "clean_accuracy", "pgd_accuracy", "noise_accuracy", "fgsm_accuracy", "worst_accuracy", "gradient_sparsity",
    "gradient_zero_fraction", "gradient_l1", "gradient_l2", "gradient_hoyer",
}  # fmt: skip


class Answer(NamedTuple):
    status: int
    out: str
    err: str


def command(*arguments, tracker="none"):
    """One command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([*arguments, *([] if tracker is None else [f"tracker={tracker}"])])
    return Answer(status, out.getvalue(), err.getvalue())


def done(*arguments, tracker="none"):
    """One command that must succeed."""
    answer = command(*arguments, tracker=tracker)
    assert answer.status == 0, answer.err
    return answer


def process(*arguments, cwd):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "snnrobust", *arguments], cwd=cwd, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def only(folder):
    """The one run directory in a folder of runs."""
    (run,) = [path for path in folder.iterdir() if path.name != "sweeps"]
    return run


def results(folder):
    return json.loads((folder / "results.json").read_text())


def inside(run):
    """Folders of further evaluations."""
    return sorted(path.parent for path in run.glob("*/results.json"))


def times(run):
    """When each file of a run was last written, in nanoseconds."""
    files = [path for path in run.rglob("*") if path.is_file() and not path.name.endswith("lock")]
    return {str(path.relative_to(run)): path.stat().st_mtime_ns for path in files}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run of three epochs; tests read it, and work on copies."""
    runs = tmp_path_factory.mktemp("first")
    answer = done(*THREE_EPOCHS, f"runs={runs}")
    return answer, only(runs)


@pytest.fixture
def run(first, tmp_path):
    """A copy of that run in a folder of runs of its own."""
    return Path(shutil.copytree(first[1], tmp_path / "runs" / first[1].name))


# --- what one run leaves


def test_a_run_leaves_these_files_and_no_others(first):
    assert {path.name for path in first[1].iterdir()} == FILES


def test_a_run_shows_its_results(first):
    answer, run = first
    accuracy = f"{100 * results(run)['metrics']['pgd_accuracy']:.1f} %"
    assert accuracy in answer.out
    assert str(run / "results.json") in answer.out
    assert answer.err == ""


def test_results_hold_all_metrics(first):
    metrics = results(first[1])["metrics"]
    assert set(metrics) >= REQUIRED
    assert all(isinstance(value, float) for value in metrics.values())
    assert all(0 <= value <= 1 for name, value in metrics.items() if name.endswith("_accuracy"))
    for name in ("gradient_sparsity", "gradient_zero_fraction", "gradient_hoyer", "firing_rate"):
        assert 0 <= metrics[name] <= 1
    assert metrics["gradient_l1"] >= metrics["gradient_l2"] > 0


def test_results_hold_what_is_needed_to_repeat_them(first):
    content = results(first[1])
    assert content["kind"] == "train"
    assert content["samples"] == {"train": 1079, "validation": 359, "test": 359}
    assert content["seeds"] == {"training": 0, "evaluation": 0}
    assert content["versions"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert (content["hardware"]["device"], content["hardware"]["threads"]) == ("cpu", 1)
    assert content["choices"]["model"] == "convnet"
    assert set(SMALL) <= set(content["overrides"])
    assert {"data", "train", "clean", "attack/pgd", "measures"} <= set(content["durations"])
    assert {"finished", "git", "best_epoch", "layers", "flags"} <= set(content)


def test_every_accuracy_is_the_mean_of_its_outcomes(first):
    metrics = results(first[1])["metrics"]
    with np.load(first[1] / "outcomes.npz") as outcomes:
        bits = dict(outcomes)
    assert {"clean", "fgsm", "pgd", "uniform_noise", "gaussian_noise"} == set(bits)
    for name, column in bits.items():
        assert (column.dtype, column.shape) == (np.int8, (359,))
        assert set(column.tolist()) <= {0, 1}
        assert metrics[f"{name}_accuracy"] == int(column.sum()) / 359
    assert metrics["noise_accuracy"] == metrics["uniform_noise_accuracy"]
    worst = np.logical_and.reduce([bits[name] == 1 for name in ("clean", *results(first[1])["worst_case_over"])])
    assert metrics["worst_accuracy"] == int(worst.sum()) / 359


def test_the_worst_case_is_over_the_bounded_attacks(first):
    assert set(results(first[1])["worst_case_over"]) == {"fgsm", "pgd", "uniform_noise"}


def test_no_attack_leaves_its_budget(first):
    excess = results(first[1])["checks"]["largest_excess_over_budget"]
    assert set(excess) == {"fgsm", "pgd", "uniform_noise"}  # Gaussian noise has none
    assert max(excess.values()) < 1e-6


def test_the_config_that_lies_there_has_the_signatures_of_the_run(first):
    config = yaml.safe_load((first[1] / "config.yaml").read_text())
    content = results(first[1])
    assert training_signature(config) == content["training_signature"] == first[1].name
    assert evaluation_signature(config) == content["evaluation_signature"]
    assert config == content["config"]


def test_history_has_one_row_per_epoch(first):
    rows = [json.loads(line) for line in (first[1] / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    best = rows[results(first[1])["best_epoch"] - 1]
    assert best["validation/loss"] == min(row["validation/loss"] for row in rows)
    assert best["validation/accuracy"] == results(first[1])["metrics"]["validation_accuracy"]


def test_noise_hurts_less_than_gradients(first):
    metrics = results(first[1])["metrics"]
    assert metrics["clean_accuracy"] > 0.5
    assert metrics["noise_accuracy"] >= metrics["fgsm_accuracy"] >= metrics["pgd_accuracy"] >= metrics["worst_accuracy"]
    assert metrics["noise_accuracy"] > metrics["pgd_accuracy"] + 0.1


# --- the same command again


def test_the_same_command_in_another_process_gives_the_same_bits(first, tmp_path):
    again = process(*THREE_EPOCHS, f"runs={tmp_path}", "tracker=none", cwd=tmp_path)
    _, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    other = only(tmp_path)
    for name in ("metrics", "layers", "best_epoch", "training_signature", "evaluation_signature"):
        assert json.dumps(results(other)[name]) == json.dumps(results(first[1])[name])
    assert (other / "history.jsonl").read_text() == (first[1] / "history.jsonl").read_text()
    weights = [torch.load(run / "checkpoint.pt", weights_only=True)["state"] for run in (first[1], other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    with np.load(first[1] / "outcomes.npz") as a, np.load(other / "outcomes.npz") as b:
        assert all(np.array_equal(a[name], b[name]) for name in a)


def test_the_same_command_again_does_no_work(run):
    before = times(run)
    answer = done(*THREE_EPOCHS, f"runs={run.parent}")
    assert times(run) == before
    assert str(run / "results.json") in answer.out


def test_results_that_are_there_are_shown_without_torch(run, tmp_path):
    code = "import sys; from snnrobust.cli import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    arguments = [*THREE_EPOCHS, f"runs={run.parent}", "tracker=none"]
    again = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, check=False)
    assert again.returncode == 0, again.stderr


def test_force_runs_again_with_the_same_outcome(run):
    before, metrics = times(run), results(run)["metrics"]
    done(*THREE_EPOCHS, f"runs={run.parent}", "force=true")
    assert times(run)["checkpoint.pt"] > before["checkpoint.pt"]
    assert times(run)["results.json"] > before["results.json"]
    assert results(run)["metrics"] == metrics


def test_lost_results_are_made_again_from_the_checkpoint(run):
    before, metrics = times(run), results(run)["metrics"]
    (run / "results.json").write_text('{"schema": 1, "metr')
    done(*THREE_EPOCHS, f"runs={run.parent}")
    assert times(run)["checkpoint.pt"] == before["checkpoint.pt"]
    assert results(run)["metrics"] == metrics


# --- other evaluations of the same weights


def test_another_budget_does_not_train_again_and_lands_inside_the_run(run):
    before = times(run)
    done(*THREE_EPOCHS, f"runs={run.parent}", "threat.eps=0.2")
    assert {name: when for name, when in times(run).items() if "/" not in name} == before
    (folder,) = inside(run)
    assert folder.name == results(folder)["evaluation_signature"]
    assert results(folder)["training_signature"] == run.name
    assert results(folder)["metrics"]["clean_accuracy"] == results(run)["metrics"]["clean_accuracy"]
    assert {path.name for path in folder.iterdir()} == FILES - {"checkpoint.pt", "history.jsonl", ".lock"}


def test_a_larger_budget_does_not_help(run):
    budgets = (0.0, 0.05, 0.2)
    done("evaluate", f"checkpoint={run}", "-m", f"threat.eps={','.join(map(str, budgets))}")
    found = {results(f)["config"]["threat"]["eps"]: results(f)["metrics"] for f in (run, *inside(run))}
    accuracies = [found[eps]["pgd_accuracy"] for eps in sorted(found)]
    assert len(accuracies) == 4
    assert all(larger <= smaller + 0.02 for smaller, larger in itertools.pairwise(accuracies))
    assert found[0.0]["worst_accuracy"] == found[0.0]["clean_accuracy"]


def test_evaluate_attacks_saved_weights_with_other_settings(run):
    before = times(run)
    done("evaluate", f"checkpoint={run}", "attacks.pgd.steps=3")
    (folder,) = inside(run)
    content = results(folder)
    assert content["kind"] == "evaluate"
    assert content["config"]["attacks"]["pgd"]["steps"] == 3
    assert content["metrics"]["clean_accuracy"] == results(run)["metrics"]["clean_accuracy"]
    assert content["metrics"]["validation_accuracy"] == results(run)["metrics"]["validation_accuracy"]
    assert {name: when for name, when in times(run).items() if "/" not in name} == before


def test_estimators_and_a_cascade_are_chosen_on_the_command_line(run):
    done("evaluate", f"checkpoint={run}", "estimator=four", "suite.cascade=true", "attacks.pgd.steps=2")
    (folder,) = inside(run)
    content = results(folder)
    assert content["config"]["suite"]["cascade"] is True
    with np.load(folder / "outcomes.npz") as outcomes:
        members = {name: outcomes[name] for name in outcomes if name.startswith("pgd/")}
        column, before = outcomes["pgd"], outcomes["fgsm"]
    assert set(members) == {f"pgd/{name}" for name in content["config"]["estimator"]["estimators"]}
    assert len(members) == 4
    assert not (column[before == 0] == 1).any()  # what FGSM has broken is not attacked again
    assert not (column[np.any([member == 0 for member in members.values()], 0)] == 1).any()
    assert content["metrics"]["pgd_accuracy"] == content["metrics"]["worst_accuracy"] == int((column == 1).sum()) / 359


def test_an_attack_is_transferred_from_another_run(run, tmp_path):
    other = ("train", *SMALL, "training.epochs=3", "training.batch_size=32", "training.optimizer.lr=0.02", "seed=1")
    done(*other, "attacks.pgd.steps=1", f"runs={tmp_path / 'others'}")
    source = only(tmp_path / "others")
    moved = ("+attack@attacks.moved=transfer", f"attacks.moved.source='{source}'", "+attack@attacks.own=transfer")
    done("evaluate", f"checkpoint={run}", *moved, f"attacks.own.source='{run}'")
    (folder,) = inside(run)
    content = results(folder)
    metrics = content["metrics"]
    assert metrics["clean_accuracy"] > metrics["moved_accuracy"] > metrics["pgd_accuracy"] + 0.05
    assert metrics["own_accuracy"] == metrics["pgd_accuracy"]
    assert content["config"]["attacks"]["moved"]["source"]["training_signature"] == source.name


def test_a_damaged_source_is_one_line_and_a_record(run, tmp_path):
    source = Path(shutil.copytree(run, tmp_path / "source"))
    (source / "checkpoint.pt").write_text("no weights")
    answer = command(
        "evaluate", f"checkpoint={run}", "+attack@attacks.moved=transfer", f"attacks.moved.source='{source}'"
    )
    assert answer.status == 1
    (line,) = answer.err.splitlines()
    assert f"{source}/checkpoint.pt: not a checkpoint of snnrobust, or damaged" in line
    assert not [path for path in run.rglob("results.json") if path.parent != run]


def test_train_and_evaluate_share_an_evaluation(run):
    done(*THREE_EPOCHS, f"runs={run.parent}", "threat.eps=0.2")
    before = times(run)
    done("evaluate", f"checkpoint={run / 'checkpoint.pt'}", "threat.eps=0.2")
    assert times(run) == before


def test_evaluate_without_changes_shows_what_is_there(run):
    before = times(run)
    answer = done("evaluate", f"checkpoint={run}")
    assert times(run) == before
    assert str(run / "results.json") in answer.out


def test_a_forced_training_does_not_force_later_evaluations(tmp_path):
    done(*QUICK, f"runs={tmp_path}", "force=true")
    run = only(tmp_path)
    done("evaluate", f"checkpoint={run}", "threat.eps=0.2")
    before = times(run)
    done("evaluate", f"checkpoint={run}", "threat.eps=0.2")
    assert times(run) == before


def test_a_copied_run_can_be_evaluated_elsewhere(run, tmp_path):
    before = times(run)
    copied = Path(shutil.copytree(run, tmp_path / "else where, copied"))
    done("evaluate", f"checkpoint='{copied}'", "threat.eps=0.2")
    (folder,) = inside(copied)
    assert results(folder)["training_signature"] == run.name
    assert times(run) == before


@pytest.mark.parametrize("name", ["1234e56789", "0123456789"])
def test_a_run_whose_name_looks_like_a_number_can_be_evaluated(run, name, monkeypatch):
    monkeypatch.chdir(run.rename(run.with_name(name)).parent)
    done("evaluate", f"checkpoint={name}")


# --- what goes wrong


def test_a_damaged_checkpoint_is_one_line_and_a_record(run):
    whole = (run / "checkpoint.pt").read_bytes()
    (run / "checkpoint.pt").write_bytes(whole[: len(whole) // 2])
    repeated = ("evaluate", f"checkpoint={run}", "threat.eps=0.2")
    answer = command(*repeated)
    assert answer.status == 1
    (line,) = answer.err.splitlines()
    (record,) = run.glob("*/failure.json")
    failure = json.loads(record.read_text())
    assert line == f"snnrobust: {record.parent}: {failure['error']}"
    assert "checkpoint.pt: not a checkpoint of snnrobust, or damaged" in line
    assert "CheckpointError" in failure["traceback"]
    assert "CheckpointError" in (record.parent / "run.log").read_text()

    (run / "checkpoint.pt").write_bytes(whole)
    done(*repeated)
    assert not record.exists()
    assert results(record.parent)["config"]["threat"]["eps"] == 0.2


def test_weights_of_another_training_are_refused(run, tmp_path):
    """The same architecture, so that they would fit."""
    done(*QUICK, f"runs={tmp_path / 'other'}")
    shutil.copy(only(tmp_path / "other") / "checkpoint.pt", run / "checkpoint.pt")
    answer = command("evaluate", f"checkpoint={run}", "threat.eps=0.2")
    assert answer.status == 1
    (line,) = answer.err.splitlines()
    assert only(tmp_path / "other").name in line


def test_data_that_are_not_there_are_one_line_and_a_record(tmp_path):
    answer = command(*QUICK, "dataset=mnist", f"dataset.root={tmp_path}/absent", f"runs={tmp_path}")
    assert answer.status == 1
    (line,) = answer.err.splitlines()
    assert "dataset.download=true" in line
    assert (only(tmp_path) / "failure.json").exists()


def test_one_failing_run_does_not_stop_a_sweep(tmp_path):
    sweep = ("train", "-m", *QUICK[1:], "model.channels=[4],[8,8,8,8,8],[6]", f"runs={tmp_path}")
    answer = command(*sweep)
    runs = {tuple(yaml.safe_load(p.read_text())["model"]["channels"]): p.parent for p in tmp_path.glob("*/config.yaml")}
    assert set(runs) == {(4,), (6,), (8, 8, 8, 8, 8)}
    failed = runs.pop((8, 8, 8, 8, 8))
    assert answer.status == 1
    assert "3 runs: 2 done, 1 failed" in answer.out
    listed = [line for line in answer.err.splitlines() if line.startswith("snnrobust: ")]
    assert len(listed) == 1
    assert listed[0].startswith(f"snnrobust: {failed}: model.channels: got 5 blocks")
    failure = json.loads((failed / "failure.json").read_text())
    assert "Traceback" in failure["traceback"]
    assert "ConvNet" in failure["traceback"] or "convnet.py" in failure["traceback"]
    assert not (failed / "results.json").exists()
    assert all((run / "results.json").exists() for run in runs.values())

    before = {run: times(run) for run in runs.values()}
    assert command(*sweep).status == 1
    assert {run: times(run) for run in runs.values()} == before


def test_the_runs_of_a_sweep_are_numbered_and_named_by_what_they_do_not_share(tmp_path):
    answer = done(*QUICK, "-m", "threat.eps=0.05,0.1", "seed=3", f"runs={tmp_path}")
    lines = answer.out.splitlines()
    assert lines[0].startswith("[1/2] eps=0.05: clean ")
    assert lines[1].startswith("[2/2] eps=0.1: clean ")


def test_flags_may_stand_between_overrides(tmp_path):
    answer = done(*QUICK, "-m", "model.channels=[4],[6]", f"runs={tmp_path}")
    assert "2 runs: 2 done, 0 failed" in answer.out


def test_a_training_that_diverges_says_what_to_do(tmp_path):
    answer = command(*QUICK, "training/optimizer=sgd", "training.optimizer.lr=1e38", f"runs={tmp_path}")
    assert answer.status == 1
    (line,) = answer.err.splitlines()
    assert "training.optimizer.lr" in line
    assert not (only(tmp_path) / "checkpoint.pt").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    answer = command(*QUICK, f"runs={tmp_path / 'file'}")
    assert answer.status == 1
    (line,) = answer.err.splitlines()
    assert line.startswith(f"snnrobust: {tmp_path / 'file'}")


def test_an_interrupt_ends_the_command_in_one_line(tmp_path):
    running = process("train", *SMALL, "training.epochs=500", f"runs={tmp_path / 'runs'}", "tracker=none", cwd=tmp_path)
    try:
        deadline = time.monotonic() + 40
        while not [p for p in tmp_path.glob("runs/*/history.jsonl") if p.stat().st_size]:
            assert time.monotonic() < deadline
            assert running.poll() is None, running.stderr.read() if running.stderr else ""
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=20)
    finally:
        running.kill()
    assert running.returncode == 130
    (line,) = err.splitlines()
    assert line.startswith("snnrobust: interrupted")
    assert not list(tmp_path.glob("runs/*/results.json"))
    assert not list(tmp_path.glob("runs/*/checkpoint.pt"))


# --- validation


def test_a_training_that_is_chosen_by_robust_accuracy_and_stops_early_leaves_its_figures(tmp_path):
    chosen = ("training/validation=robust", "training.validation.samples=30", "training.validation.patience=1")
    answer = done(
        *THREE_EPOCHS, *chosen, "training.epochs=30", "training.validation.attack.steps=2", f"runs={tmp_path}"
    )
    run = only(tmp_path)
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    values = [row["validation/robust_accuracy"] for row in rows]
    content = results(run)
    assert len(rows) == content["training"]["epochs"] == values.index(max(values)) + 2 < 30
    assert content["best_epoch"] == values.index(max(values)) + 1
    assert content["metrics"]["validation_robust_accuracy"] == max(values)
    assert (
        f"epochs trained: {len(rows)}; the best on validation data: {content['best_epoch']}"
        in (run / "run.log").read_text()
    )
    assert answer.err == ""


def test_an_optimizer_that_torch_refuses_is_one_line_before_the_data_are_read(tmp_path):
    answer = command(
        *QUICK, "training.optimizer.betas=[0,0.9]", f"runs={tmp_path}", "dataset=mnist", "dataset.root=absent"
    )
    assert answer.status == 1
    (line,) = answer.err.splitlines()
    assert line == f"snnrobust: {only(tmp_path)}: training.optimizer: betas must be either both floats or both Tensors"
    assert not (only(tmp_path) / "history.jsonl").exists()


# --- trackers


def test_a_tracked_run_mirrors_its_results(tmp_path):
    answer = done(*QUICK, f"runs={tmp_path}", tracker="wandb")
    run = only(tmp_path)
    (tracked,) = run.glob("wandb/offline-run-*")
    assert f"snnrobust sync {tracked.parents[1]}" in " ".join((answer.out + answer.err).split())
    inspect = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--summary", "--json", str(tracked)]
    mirror = json.loads(subprocess.run(inspect, capture_output=True, text=True, check=True).stdout)
    content = results(run)
    assert (mirror["state"], mirror["exit_code"]) == ("finished", 0)
    assert mirror["run_id"] == f"{run.name}-{content['evaluation_signature']}"
    assert mirror["tags"] == ["digits", "convnet", "gradient_sparsity", "quick"]
    assert mirror["config"]["training"]["epochs"] == 1
    for name in REQUIRED:
        assert mirror["summary"][f"test/{name}"] == pytest.approx(content["metrics"][name])
    assert mirror["summary"]["train/loss"] > 0


def test_a_tracker_that_fails_costs_a_warning_and_no_result(tmp_path, monkeypatch):
    def broken(**_settings):
        raise RuntimeError("no service")

    monkeypatch.setattr("wandb.init", broken)
    answer = done(*QUICK, f"runs={tmp_path}", tracker="wandb")
    assert "warning: could not start W&B (RuntimeError: no service)" in answer.err
    assert set(results(only(tmp_path))["metrics"]) >= REQUIRED


def test_a_failed_run_is_tracked_as_failed(tmp_path):
    answer = command(
        *QUICK, "training/optimizer=sgd", "training.optimizer.lr=1e38", f"runs={tmp_path}", tracker="wandb"
    )
    assert answer.status == 1
    (tracked,) = only(tmp_path).glob("wandb/offline-run-*")
    inspect = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--summary", "--json", str(tracked)]
    mirror = json.loads(subprocess.run(inspect, capture_output=True, text=True, check=True).stdout)
    assert (mirror["state"], mirror["exit_code"]) == ("failed", 1)


def test_an_estimator_that_does_not_fit_is_refused_before_the_training(tmp_path, capsys):
    assert main(["train", "estimator=max_pool_average", "tracker=none", "device=cpu", f"runs={tmp_path}"]) == 1
    assert "attacks.fgsm.estimator: max pooling is substituted" in capsys.readouterr().err
    assert not [*tmp_path.rglob("checkpoint.pt"), *tmp_path.rglob("history.jsonl")]
