"""Evaluations that are killed, with real processes and real signals: finished batches are kept, and the bits equal."""

import json
import os
import resource
import signal

import pytest

from tests.evaluated import (
    JOURNAL,
    alone,
    copied,
    done,
    folder,
    lines,
    results,
    run,
    same,
    start,
    trained,
    wait_until,
)

LONG = ("evaluation.batch_size=48", "+attack@attacks.square=square", "attacks.square.queries=150", "estimator=four")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def whole(home, tmp_path_factory):
    """The further evaluation that nobody interrupted."""
    one = copied(home, tmp_path_factory.mktemp("whole"))
    done(alone("evaluate", f"checkpoint={one}", *LONG))
    return folder(one)


def killed_after(one, batches, *more):
    process = start(alone("evaluate", f"checkpoint={one}", *LONG, *more))
    wait_until(lambda: lines(one) >= batches, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (folder(one) / "results.json").exists()
    return lines(one)


def test_an_evaluation_without_interruption_says_nothing_of_batches(whole):
    assert "resumed_evaluation" not in results(whole)
    assert not (whole / JOURNAL).exists()


@pytest.mark.parametrize("moments", [(9,), pytest.param((1, 2, 20, 40), marks=pytest.mark.long)])
def test_a_killed_evaluation_goes_on_and_ends_with_the_same_bits(home, whole, tmp_path, moments):
    one = copied(home, tmp_path)
    kept = [killed_after(one, batches) for batches in moments]
    assert kept == sorted(kept)
    path = folder(one) / JOURNAL
    path.write_bytes(path.read_bytes() + b'{"phase":"attack/pgd","batch":')  # the line that was being written
    done(alone("evaluate", f"checkpoint={one}", *LONG))
    same(folder(one), whole)
    taken = results(folder(one))["resumed_evaluation"]
    assert taken["batches_on_record"] == kept[-1]
    assert taken["batches"] > kept[-1]
    assert not path.exists()


@pytest.mark.long
def test_force_begins_anew(home, whole, tmp_path):
    one = copied(home, tmp_path)
    killed_after(one, 9)
    done(alone("evaluate", f"checkpoint={one}", *LONG, "force=true"))
    assert "resumed_evaluation" not in results(folder(one))
    same(folder(one), whole)
    assert not (folder(one) / JOURNAL).exists()


@pytest.mark.long
def test_batches_of_other_weights_are_not_used(home, whole, tmp_path):
    one = copied(home, tmp_path)
    killed_after(one, 9)
    path = folder(one) / JOURNAL
    header, *rest = path.read_text().splitlines()
    other = json.loads(header) | {"weights": "0" * 64}
    path.write_text("\n".join([json.dumps(other, sort_keys=True, separators=(",", ":")), *rest]) + "\n")
    done(alone("evaluate", f"checkpoint={one}", *LONG))
    assert "resumed_evaluation" not in results(folder(one))
    assert "begun anew" in (folder(one) / "run.log").read_text()
    same(folder(one), whole)


@pytest.mark.long
def test_weights_that_are_trained_again_take_their_batches_along(home, tmp_path):
    one = copied(home, tmp_path)
    killed_after(one, 3)
    words = json.loads(json.dumps(results(one)["overrides"]))
    done(alone("train", *[w for w in words if not w.startswith("runs=")], f"runs={one.parent}", "force=true"))
    assert (one / "results.json").exists()
    assert not (folder(one) / JOURNAL).exists()


def test_a_disk_that_fills_up_is_one_line_and_loses_nothing(home, whole, tmp_path):
    one = copied(home, tmp_path)
    before = killed_after(one, 30)
    size = (folder(one) / JOURNAL).stat().st_size + 200

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    answer = run(alone("evaluate", f"checkpoint={one}", *LONG), preexec_fn=full)
    assert answer.returncode == 1
    (line,) = answer.stderr.strip().splitlines()
    assert JOURNAL in line
    assert "File too large; the finished batches in it are kept" in line
    failure = json.loads((folder(one) / "failure.json").read_text())
    assert JOURNAL in failure["error"]
    done(alone("evaluate", f"checkpoint={one}", *LONG))
    assert results(folder(one))["resumed_evaluation"]["batches_on_record"] == before
    same(folder(one), whole)
