"""From the words of `snnrobust convert` to the stages of a conversion."""

from pathlib import Path

import pytest
import yaml

from snnrobust.config import compose, compose_plain
from snnrobust.identity import training_signature
from snnrobust.job import Job
from snnrobust.saved import reference_to
from snnrobust.schema import ConfigError
from snnrobust.stages import followed, plan
from snnrobust.yamls import folder

EXPERIMENTS = sorted(p.stem for p in (folder() / "experiment").glob("*.yaml") if "/conversion" in p.read_text())
CONVERSIONS = sorted(p.stem for p in (folder() / "conversion").glob("*.yaml"))
DIGITS = "experiment=digits_sparse"


def stages(*words):
    return {planned.name: planned.job for planned in plan(words)}


def mistake(*words):
    with pytest.raises(ConfigError) as error:
        plan(words)
    return str(error.value)


@pytest.fixture
def ann(tmp_path):
    """As much of a run as a conversion can begin with."""
    words = ["neuron=relu", "encoder.steps=1", "regularizer=none", "model.hidden=48", "seed=7", "training.epochs=3"]
    home = tmp_path / "some_run"
    home.mkdir()
    (home / "config.yaml").write_text(yaml.safe_dump(dict(compose("config", words).config)))
    (home / "overrides.yaml").write_text(yaml.safe_dump(words))
    (home / "checkpoint.pt").touch()
    return home


def test_there_are_experiments_and_conversions():
    assert {"digits_sparse", "fashion_mnist_sparse", "cifar10_vgg16_sparse"} <= set(EXPERIMENTS)
    assert {"sparse", "dense"} <= set(CONVERSIONS)


@pytest.mark.parametrize("word", [f"experiment={e}" for e in EXPERIMENTS] + [f"conversion={c}" for c in CONVERSIONS])
def test_every_stage_of_every_conversion_composes(word):
    node = compose_plain("convert", [word])["conversion"]
    begun = {other for stage in node["stages"].values() for other in (stage.get("from"), stage.get("reference"))}
    made: dict[str, Job] = {}
    for result in node["stages"].keys() - begun:
        made |= stages(word, f"conversion.result={result}")
    assert made.keys() == node["stages"].keys()
    assert len({job.training for job in made.values()}) == len(made)


@pytest.mark.parametrize("pruning", ["magnitude", "hydra", "harp"])
def test_every_way_of_pruning_composes(pruning):
    job = stages(DIGITS, f"conversion.pruning={pruning}", "conversion.result=pruned")["pruned"]
    assert job.choices["start"] == pruning
    assert "training" not in job.config["start"] or job.config["start"]["training"]["epochs"] == 10


def test_the_stages_of_the_paper_in_order():
    names = [planned.name for planned in plan([DIGITS])]
    assert names == ["ann", "pruned", "tuned", "converted", "dense_converted", "dense_snn", "snn"]


def test_each_stage_begins_with_the_run_of_the_one_before():
    made = stages(DIGITS, "runs=/elsewhere")
    for name, before in {"pruned": "ann", "tuned": "pruned", "converted": "tuned", "dense_converted": "ann"}.items():
        source = made[name].config["start"]["source"]
        assert source == reference_to(made[before].home, made[before].config)
        assert source["path"] == f"/elsewhere/{made[before].training}"
        assert f"start.source={source['path']}" in made[name].overrides
    assert made["snn"].config["reference"]["training_signature"] == made["dense_snn"].training
    assert made["converted"].config["reference"] is None  # no result, hence nothing to compare


def test_a_stage_is_the_run_that_its_words_give_by_hand(tmp_path):
    made = stages(DIGITS, f"runs={tmp_path}")
    for name in ("ann", "pruned", "tuned"):
        job = made[name]
        assert training_signature(compose("config", job.overrides).config) == job.training
        job.home.mkdir()
        (job.home / "config.yaml").write_text(yaml.safe_dump(dict(job.config)))
        (job.home / "checkpoint.pt").touch()


def test_what_a_stage_does_not_depend_on_leaves_it_alone():
    one, other = stages(DIGITS), stages(DIGITS, "conversion.sparsity=0.5", "snn.training.epochs=3")
    same = {name for name in one if one[name].training == other[name].training}
    assert same == {"ann", "dense_converted"}  # the dense network is trained on like the sparse one


def test_the_baselines():
    def result(name):
        return stages(DIGITS, f"conversion.result={name}", "conversion.sparsity=0.8")

    random = result("static_random")
    start = random["static_random"].config["start"]
    assert (start["sparsity"], random["static_random"].choices["connectivity"]) == (0.8, "static")
    assert set(random) == {"ann", "dense_converted", "dense_snn", "static_random"}  # the reference is made as well
    ann = result("static_ann")
    assert ann["static_ann"].config["start"]["source"]["training_signature"] == ann["tuned"].training
    assert "sparsity" not in ann["static_ann"].config["start"]
    rewired = result("rewired")["rewired"]
    assert (rewired.choices["connectivity"], rewired.choices["start"]) == ("rewired", "random_connectivity")


def test_words_of_all_stages_of_one_and_of_the_result():
    made = stages(
        DIGITS, "seed=3", "model.hidden=16", "snn.training.epochs=5", "suite=sparse_gradients", "threat.eps=0.07",
        "estimator=nineteen", "ann.defence=mart", "+attack@attacks.extra=bim",
    )  # fmt: skip
    assert {job.config["seed"] for job in made.values()} == {3}
    assert {job.config["model"]["hidden"] for job in made.values()} == {16}
    assert {job.config["threat"]["eps"] for job in made.values()} == {0.07}
    assert {name: job.config["suite"]["name"] for name, job in made.items() if name != "snn"} == dict.fromkeys(
        set(made) - {"snn"}, "quick"
    )
    assert made["snn"].config["suite"]["name"] == "sparse_gradients"
    assert {"extra"} <= set(made["snn"].config["attacks"])
    assert made["snn"].choices["estimator"] == "nineteen"
    assert made["ann"].choices["estimator"] == "trained"
    assert made["snn"].config["training"]["epochs"] == made["dense_snn"].config["training"]["epochs"] == 5
    assert made["ann"].choices["defence"] == made["tuned"].choices["defence"] == "mart"  # like the ANN
    assert made["snn"].choices["defence"] == "trades"


def test_a_conversion_may_begin_with_a_run_of_ones_own(ann):
    made = stages(DIGITS, f"ann={ann}")
    assert "ann" not in made
    source = made["pruned"].config["start"]["source"]
    assert (source["path"], len(source["training_signature"])) == (str(ann), 10)
    for job in made.values():
        assert (job.config["seed"], job.config["model"]["hidden"]) == (7, 48)
        assert job.config["model"]["channels"] == [32, 64]  # of the experiment: the run says nothing of it
    assert made["snn"].config["training"]["epochs"] == 10  # training settings are not taken over


def test_what_is_typed_goes_before_what_the_run_says(ann):
    assert {job.config["seed"] for job in stages(DIGITS, f"ann={ann}", "seed=1").values()} == {1}


@pytest.mark.parametrize("stage", ["", "snn."])
def test_a_reference_that_is_given_is_not_made(ann, stage):
    given = stages(DIGITS, f"{stage}reference={ann}")
    assert [*given] == ["ann", "pruned", "tuned", "converted", "snn"]
    assert given["snn"].config["reference"]["path"] == str(ann)
    assert stages(DIGITS, f"{stage}reference=null")["snn"].config["reference"] is None


@pytest.mark.parametrize(
    ("words", "begin"),
    [
        (["training.epochs=3"], "training.epochs=3: of which stage? allowed: snn.training.epochs=3"),
        (["neuron=lif"], "neuron=lif: of which stage?"),
        (["start=weights"], "start=weights: of which stage?"),
        (["conversion.sparsity=1.5"], "pruned: start.sparsity: got 1.5"),
        (["conversion.sparsitty=0.5"], "conversion.sparsitty: unknown key; did you mean sparsity?"),
        (["conversion.result=x"], "conversion.result: got x; allowed: ann, pruned"),
        (["conversion=x"], "conversion: got 'x'; allowed: dense, sparse"),
        (["conversion.pruning=weights"], "conversion.pruning: got weights; allowed: magnitude, hydra, harp"),
        (["snnn.training.epochs=3"], "snnn.training.epochs: unknown key; did you mean snn?"),
        (["snn.training.epoch=3"], "dense_snn: training.epoch: unknown key; did you mean epochs?"),
        (["snn.training.epochs=0"], "dense_snn: training.epochs: got 0"),
        (["ann=/nowhere"], "ann: got /nowhere; allowed: a run directory with checkpoint.pt"),
        (["snn=/nowhere"], "snn: is what the command makes"),
        (["+conversion.stages.snn.like=snn"], "conversion.stages.snn.like: got snn"),
        (["conversion.stages.snn.from=x"], "conversion.stages.snn: got x; allowed: ann"),
        (["conversion.stages.tuned.from=tuned"], "conversion.stages.tuned: begins with itself"),
        (["+conversion.stages.snn.word=x"], "conversion.stages.snn.word: Extra inputs"),
    ],
)  # fmt: skip
def test_mistakes_in_one_line(words, begin):
    assert mistake(DIGITS, *words).startswith(begin)


def test_an_experiment_of_another_verb():
    assert "allowed: snnrobust train experiment=fashion_mnist" in mistake("experiment=fashion_mnist")
    with pytest.raises(ConfigError, match="allowed: snnrobust convert experiment=digits_sparse"):
        compose("config", [DIGITS])


def test_later_words_win_with_all_that_was_said_inside_of_what_they_choose_anew():
    words = ["defence=trades", "defence.beta=2", "attack@defence.attack=rfgsm", "seed=1"]
    assert followed(words, ["defence.beta=3"]) == [words[0], words[2], words[3], "defence.beta=3"]
    assert followed(words, ["defence=mart"]) == ["seed=1", "defence=mart"]
    assert followed(words, []) == words


def test_paths_with_unusual_characters(tmp_path):
    runs = Path(tmp_path) / "a b,c=d{e}"
    made = stages(DIGITS, f"runs='{runs}'")
    assert made["pruned"].config["start"]["source"]["path"].startswith(str(runs))
