"""Finished batches are kept: an evaluation that is taken up gives the same bits, and computes nothing twice."""

import json
import math
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import nn

from snnrobust.attacks.base import Attack
from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.attacks.noise import UniformNoise
from snnrobust.attacks.square import Square
from snnrobust.data.dataset import Split
from snnrobust.estimators.ensemble import Ensemble
from snnrobust.estimators.strongest import Strongest
from snnrobust.estimators.surrogate import TRAINED, Surrogate
from snnrobust.evaluation.evaluator import Evaluator, Settings
from snnrobust.evaluation.findings import Finding, read
from snnrobust.evaluation.grounds import PACKAGE, SOURCES, code_digest, weights_digest
from snnrobust.evaluation.journal import Journal
from snnrobust.evaluation.judge import Judge
from snnrobust.evaluation.ledger import Ledger
from snnrobust.spiking.encoder import Poisson
from snnrobust.spiking.surrogate import atan, sigmoid
from snnrobust.threat import Linf

EPS = Linf(0.1)
MANY = Ensemble({"own": TRAINED, "wide": Surrogate(atan()), "smooth": Surrogate(sigmoid())})
ATTACKS: dict[str, Attack] = {
    "noise": UniformNoise(EPS),
    "pgd3": ProjectedGradient(EPS, MANY, steps=3),
    "pgd6": ProjectedGradient(EPS, MANY, steps=6),
    "square": Square(EPS, queries=5),
}
HEADER = {"evaluation": "0123456789", "weights": "ab"}
BATCHES = torch.arange(10).split(4)


def finding(index: torch.Tensor) -> Finding:
    return Finding(index, {"pgd": index % 3 == 0, "clean": index % 2 == 0}, {"pgd": index > 5}, {"pgd": 0.1 + 0.2}, 0.5)


def equal(one: Finding, other: Finding) -> bool:
    return json.dumps(one.content()) == json.dumps(other.content())


class Interrupted(Exception):
    """Ends an evaluation in the middle, as a kill would."""


# --- findings


def test_a_finding_comes_back_from_json_as_it_was():
    one = finding(torch.tensor([3, 4, 9]))
    other = read(json.loads(json.dumps(one.content())))
    assert torch.equal(one.index, other.index)
    assert all(torch.equal(bits, other.right[name]) for name, bits in one.right.items())
    assert other.excess == {"pgd": 0.30000000000000004}
    assert other.right["pgd"].dtype == torch.bool


def test_an_excess_that_is_not_a_number_comes_back():
    content = replace(finding(BATCHES[0]), excess={"pgd": math.nan}).content()
    assert math.isnan(read(json.loads(json.dumps(content))).excess["pgd"])


@pytest.mark.parametrize(
    "damage",
    [
        {"right": {"pgd": "011"}}, {"right": {"pgd": "0a11"}}, {"right": None}, {"index": "ab"}, {"index": [0.5, "x"]},
        {"seconds": -1}, {"seconds": math.nan}, {"excess": {"pgd": "much"}}, {"mostly": {"pgd": 1}},
    ],
)  # fmt: skip
def test_what_is_no_finding_is_refused(damage):
    with pytest.raises(ValueError, match=r"no finding|seconds|samples|literal|convert"):
        read({**finding(BATCHES[0]).content(), **damage})


# --- ledger and journal


def computed(ledger, phase="attack/pgd", batches=BATCHES, limit=99):
    """The findings, and which batches were computed for them."""
    seen: list[list[int]] = []

    def find(index):
        if len(seen) == limit:
            raise Interrupted
        seen.append(index.tolist())
        return finding(index)

    return list(ledger.findings(phase, batches, find)), seen


def interrupted_after(path, number, header=HEADER):
    with Journal(path, header) as journal, pytest.raises(Interrupted):
        computed(Ledger(journal), limit=number)


@pytest.mark.parametrize("number", range(3))
def test_what_is_on_record_is_not_computed_again(tmp_path, number):
    interrupted_after(tmp_path / "j", number)
    with Journal(tmp_path / "j", HEADER) as journal:
        ledger = Ledger(journal)
        found, seen = computed(ledger)
    assert seen == [part.tolist() for part in BATCHES[number:]]
    assert [f.index.tolist() for f in found] == [part.tolist() for part in BATCHES]
    assert all(torch.equal(f.right["pgd"], finding(f.index).right["pgd"]) for f in found)
    assert (ledger.replayed, ledger.batches) == (number, 3)


def test_every_batch_is_on_record_before_the_next_one_begins(tmp_path):
    path = tmp_path / "j"
    with Journal(path, HEADER) as journal:
        lines = []
        for _ in Ledger(journal).findings("clean", BATCHES, finding):
            lines.append(len(path.read_text().splitlines()))
    assert lines == [2, 3, 4]


def test_phases_and_samples_are_told_apart(tmp_path):
    with Journal(tmp_path / "j", HEADER) as journal:
        computed(Ledger(journal))
    with Journal(tmp_path / "j", HEADER) as journal:
        assert len(computed(Ledger(journal), phase="attack/other")[1]) == 3
        assert computed(Ledger(journal), batches=(torch.tensor([0, 1, 2, 4]), *BATCHES[1:]))[1] == [[0, 1, 2, 4]]


def test_seconds_add_up(tmp_path):
    with Journal(tmp_path / "j", HEADER) as journal:
        found, _ = computed(Ledger(journal))
    with Journal(tmp_path / "j", HEADER) as journal:
        ledger = Ledger(journal)
        again, _ = computed(ledger)
    assert [f.seconds for f in again] == [f.seconds for f in found]
    assert ledger.seconds == sum(f.seconds for f in found) > 0


@pytest.mark.parametrize("header", [{**HEADER, "weights": "ac"}, {**HEADER, "versions": {"torch": "3"}}, {}])
def test_findings_of_other_grounds_are_not_used(tmp_path, header, caplog):
    interrupted_after(tmp_path / "j", 2)
    with Journal(tmp_path / "j", header) as journal:
        assert "begun anew" in caplog.text
        assert len(computed(Ledger(journal))[1]) == 3
    with Journal(tmp_path / "j", header) as journal:
        assert computed(Ledger(journal))[1] == []


def test_a_line_cut_anywhere_is_dropped_and_written_again(tmp_path):
    path = tmp_path / "j"
    interrupted_after(path, 2)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in {*range(0, len(whole), 7), *ends[:-1], *(end - 1 for end in ends), *(end + 1 for end in ends[:-1])}:
        path.write_bytes(whole[:cut])
        kept = max(0, sum(end <= cut for end in ends) - 1)
        with Journal(path, HEADER) as journal:
            assert len(computed(Ledger(journal))[1]) == 3 - kept, cut
        with Journal(path, HEADER) as journal:
            assert computed(Ledger(journal))[1] == [], cut


def test_what_follows_a_damaged_line_is_computed_again_and_said(tmp_path, caplog):
    path = tmp_path / "j"
    interrupted_after(path, 2)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\0" * len(lines[1]) + b"\n" + lines[2])
    with Journal(path, HEADER) as journal:
        assert len(computed(Ledger(journal))[1]) == 3
    assert "damaged line" in caplog.text
    with Journal(path, HEADER) as journal:
        assert computed(Ledger(journal))[1] == []


def test_flipped_bits_do_not_pass(tmp_path):
    path = tmp_path / "j"
    interrupted_after(path, 2)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for place in range(first, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with Journal(path, HEADER) as journal:
            assert len(computed(Ledger(journal))[1]) in (2, 3), place


@contextmanager
def room(size):
    """A real limit of the kernel on the size of files: writing beyond it fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("more", [0, 50])
def test_a_disk_that_fills_up_keeps_what_is_finished(tmp_path, more):
    path = tmp_path / "j"
    interrupted_after(path, 1)
    full = pytest.raises(OSError, match="finished batches in it are kept")
    with Journal(path, HEADER) as journal, room(path.stat().st_size + more), full as caught:
        computed(Ledger(journal))
    assert caught.value.filename == str(path)
    assert "\n" not in str(caught.value)
    with Journal(path, HEADER) as journal:
        assert computed(Ledger(journal))[1] == [part.tolist() for part in BATCHES[1:]]


def test_a_journal_that_is_done_leaves_no_file(tmp_path):
    with Journal(tmp_path / "j", HEADER) as journal:
        computed(Ledger(journal))
        journal.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_digest_tells_weights_apart(make_tiny):
    one, same, other = make_tiny(), make_tiny(), make_tiny()
    bits = next(other.parameters()).data.view(torch.int32).flatten()
    bits[0] ^= 1
    assert weights_digest(one) == weights_digest(same) != weights_digest(other)
    assert weights_digest(nn.BatchNorm1d(2)) != weights_digest(nn.BatchNorm1d(3))


def test_the_digest_covers_the_code_that_evaluates(tmp_path, monkeypatch):
    """All that is loaded for an evaluation, apart from what counts costs, reads configs and describes machines."""
    modules = ("evaluation.evaluator", "attacks.adaptive", "estimators.strongest", "models.convnet", "foreign")
    code = f"import sys, {', '.join('snnrobust.' + name for name in modules)}\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    own = {name.split(".")[1] for name in loaded if name.startswith("snnrobust.")}
    apart = {"compressed", "distributed", "environment", "files", "job", "identity", "placement", "schema", "settings"}
    assert own - {name.removesuffix(".py") for name in SOURCES} <= apart | {"check", "saved", "trainable", "overrides"}
    assert all((PACKAGE / name).exists() for name in SOURCES)
    shutil.copytree(PACKAGE, tmp_path / "code", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    before = code_digest()
    monkeypatch.setattr("snnrobust.evaluation.grounds.PACKAGE", tmp_path / "code")
    assert code_digest() == before
    with (tmp_path / "code" / "spiking" / "neuron.py").open("a") as file:
        file.write(" ")
    assert code_digest() != before


# --- whole evaluations


def data(model, number=40, seed=3) -> Split:
    """Random inputs with the labels that the model gives, apart from every fifth."""
    values = torch.randint(17, (number, 1, 8, 8), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    with torch.no_grad():
        labels = model.eval()(values / 16).argmax(1)
    labels[::5] = (labels[::5] + 1) % 4
    return Split(values, labels, 16)


class Shown:
    """What a user sees of an evaluation; stops it after some batches."""

    def __init__(self, limit=10**6):
        self.limit = limit
        self.lines: list[tuple[str, int, float]] = []

    @contextmanager
    def __call__(self, name, samples):
        def advance(done, accuracy):
            if len(self.lines) == self.limit:
                raise Interrupted
            self.lines.append((name, done, accuracy))

        yield advance


def evaluate(model, path, shown, attacks=ATTACKS, **settings):
    its = replace(Settings(batch_size=16), **settings)
    number = min(40, 6 * its.batch_size)
    with Journal(path, HEADER) as journal:
        ledger = Ledger(journal)
        evaluator = Evaluator(attacks, EPS, TRAINED, {}, its)
        return evaluator(model, data(model, number), shown, data(model, 24, 5), ledger), ledger


def same_bits(one, other):
    for table in ("outcomes", "majority"):
        first, second = getattr(one, table), getattr(other, table)
        assert list(first) == list(second)
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert json.dumps(one.metrics()) == json.dumps(other.metrics())
    assert one.excess == other.excess
    assert (one.selection is None) == (other.selection is None)
    if one.selection and other.selection:
        assert list(one.selection.estimator.members()) == list(other.selection.estimator.members())
        assert all(torch.equal(c, other.selection.outcomes[n]) for n, c in one.selection.outcomes.items())


STRONGEST = Strongest(dict(MANY.members()), keep=2)
CHOSEN: dict[str, Attack] = {"pgd": ProjectedGradient(EPS, STRONGEST, steps=3)}
CASES = {
    "plain": {},
    "exhaustive": {"exhaustive": True},
    "cascade": {"cascade": True},
    "one sample at a time": {"batch_size": 1, "attacks": {"pgd": ProjectedGradient(EPS, steps=1)}},
    "strongest": {"attacks": CHOSEN},
}


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_an_evaluation_interrupted_anywhere_ends_with_the_same_bits(classifier, tmp_path, settings):
    shown = Shown()
    whole, ledger = evaluate(classifier, tmp_path / "whole", shown, **settings)
    assert ledger.replayed == 0
    for limit in sorted({0, 1, 3, len(shown.lines) // 2, len(shown.lines) - 1}):
        path = tmp_path / str(limit)
        with pytest.raises(Interrupted):
            evaluate(classifier, path, Shown(limit), **settings)
        again = Shown()
        report, taken = evaluate(classifier, path, again, **settings)
        same_bits(whole, report)
        assert again.lines == shown.lines
        assert limit < taken.replayed <= taken.batches == ledger.batches
        assert path.read_text().count("\n") == ledger.batches + 1  # no batch was computed twice


def test_a_stochastic_model_is_taken_up_as_well(make_tiny, tmp_path):
    noisy = make_tiny(Poisson(4))
    attacks = {"pgd": ProjectedGradient(EPS, MANY, steps=2), "noise": UniformNoise(EPS)}
    shown = Shown()
    whole, _ = evaluate(noisy, tmp_path / "whole", shown, attacks, draws=3)
    assert whole.majority
    for limit in range(0, len(shown.lines), 3):
        with pytest.raises(Interrupted):
            evaluate(noisy, tmp_path / f"{limit}", Shown(limit), attacks, draws=3)
        report, ledger = evaluate(noisy, tmp_path / f"{limit}", Shown(), attacks, draws=3)
        same_bits(whole, report)
        assert ledger.replayed > limit


def test_a_finished_evaluation_attacks_nothing_again(classifier, tmp_path, monkeypatch):
    whole, _ = evaluate(classifier, tmp_path / "j", Shown(), CHOSEN)
    judged: list[str] = []
    judge = Judge.__call__

    def noting(self, name, *words):
        judged.append(name)
        return judge(self, name, *words)

    monkeypatch.setattr(Judge, "__call__", noting)
    report, ledger = evaluate(classifier, tmp_path / "j", Shown(), CHOSEN)
    assert {name.partition("/")[0] for name in judged} == {"probes"}  # which are no batches of attacks
    assert ledger.replayed == ledger.batches
    same_bits(whole, report)


def test_durations_are_those_of_all_processes(classifier, tmp_path):
    whole, _ = evaluate(classifier, tmp_path / "j", Shown())
    with Journal(tmp_path / "j", HEADER) as journal:
        kept = [journal.recall("attack/square", number) for number in range(3)]
    spent = sum(f.seconds for f in kept if f)
    report, _ = evaluate(classifier, tmp_path / "j", Shown())
    assert 0 < spent <= whole.seconds["attack/square"]
    assert report.seconds["attack/square"] >= spent
