"""Where a job lies, and whether it is there, from its folder alone."""

import json
from pathlib import Path

import pytest
import yaml

from snnrobust.config import compose
from snnrobust.job import CHECKPOINT, FAILURE, RESULTS, SCHEMA, Job, failure_of, read_json, results_of
from snnrobust.run import _description


@pytest.fixture(scope="module")
def composed():
    return compose("config", [])


@pytest.fixture
def job(composed, tmp_path):
    return Job({**composed.config, "runs": str(tmp_path)}, composed.choices, (), "train")


def record(path, **content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema": SCHEMA, **content}))


def test_a_run_lies_under_its_training_signature(job, tmp_path):
    assert job.home == job.folder == tmp_path / job.training


def test_the_same_evaluation_stays_in_the_run_directory(job):
    record(job.home / RESULTS, evaluation_signature=job.evaluation)
    assert job.folder == job.home


def test_another_evaluation_gets_a_folder_inside(job):
    record(job.home / RESULTS, evaluation_signature="0123456789")
    assert job.folder == job.home / job.evaluation


def test_the_first_evaluation_is_the_one_that_config_yaml_says_also_if_it_failed(job):
    job.home.mkdir(parents=True)
    other = {**job.config, "threat": {**job.config["threat"], "eps": 0.123}}
    (job.home / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(other))))
    assert job.folder == job.home / job.evaluation
    (job.home / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(dict(job.config)))))
    assert job.folder == job.home


@pytest.mark.parametrize("content", [b"", b"- no: [config", b"\x80\xff", b"\0\0", b"[1]", b"seed: .nan"])
def test_a_damaged_config_is_made_again_where_it_was(job, content):
    job.home.mkdir(parents=True)
    (job.home / "config.yaml").write_bytes(content)
    assert job.folder == job.home


def test_an_evaluation_lies_beside_its_checkpoint(composed, tmp_path):
    job = Job(composed.config, composed.choices, (), "evaluate", tmp_path / "copied" / CHECKPOINT)
    assert job.home == tmp_path / "copied"


def test_results_are_those_of_exactly_this_job(job):
    assert results_of(job) is None
    record(job.home / RESULTS, evaluation_signature="0123456789")
    assert results_of(job) is None
    record(job.folder / RESULTS, evaluation_signature=job.evaluation, metrics={"clean_accuracy": 1.0})
    found = results_of(job)
    assert found is not None
    assert found["metrics"] == {"clean_accuracy": 1.0}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 0}', "{}", "\x00\xff"])
def test_a_damaged_record_counts_as_absent(tmp_path, text):
    path = Path(tmp_path) / RESULTS
    path.write_text(text, encoding="latin-1")
    assert read_json(path) is None


def test_an_absent_record_is_none(tmp_path):
    assert read_json(tmp_path / RESULTS) is None


def test_a_run_with_results_did_not_fail(job):
    record(job.home / RESULTS, evaluation_signature=job.evaluation)
    assert failure_of(job) is None


def test_a_failure_is_told_in_one_line(job):
    record(job.home / FAILURE, evaluation_signature=job.evaluation, error="it broke")
    assert failure_of(job) == f"{job.home}: it broke"


def test_a_failure_of_another_evaluation_is_not_this_one(job):
    record(job.home / FAILURE, evaluation_signature="0123456789", error="it broke")
    record(job.home / RESULTS, evaluation_signature=job.evaluation)
    assert failure_of(job) is None


def test_a_run_without_any_record_was_killed(job):
    assert "killed" in str(failure_of(job))


def test_the_evaluation_of_a_model_made_elsewhere_lies_under_the_signature_of_its_weights(tmp_path):
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"weights")
    chosen = ["model._target_=torch.nn.Flatten", f"checkpoint={weights}"]
    config = {**compose("foreign", chosen).config, "runs": str(tmp_path / "runs")}
    job = Job(config, {}, (), "evaluate")
    assert job.home == job.folder == tmp_path / "runs" / job.training
    job.home.mkdir(parents=True)
    (job.home / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(config))))
    stronger = compose("foreign", [*chosen, "attacks.pgd.steps=3"]).config
    other = Job({**stronger, "runs": config["runs"]}, {}, (), "evaluate")
    assert job.folder == job.home
    assert other.folder == job.home / other.evaluation


def test_trackers_are_told_the_choices_that_a_run_stands_for(composed, job, tmp_path):
    assert _description(job, tmp_path).tags == ("digits", "convnet", "gradient_sparsity", "quick")
    trades = {**composed.choices, "defence": "trades", "regularizer": "none"}
    assert _description(Job(job.config, trades, (), "train"), tmp_path).tags == ("digits", "convnet", "trades", "quick")
