"""Samples with their gradients: made by an evaluation, kept in a file, shown by the report."""

import io
import json

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from snnrobust.attacks.gradient import ProjectedGradient
from snnrobust.data.dataset import Split
from snnrobust.estimators.ensemble import Ensemble
from snnrobust.estimators.rate import BPTR
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.evaluation.examples import examples
from snnrobust.evaluation.measures import input_gradient
from snnrobust.forgetting import forget
from snnrobust.job import CHECKPOINT, GRADIENTS, HISTORY, OUTCOMES, RESULTS, Job
from snnrobust.record import gradients
from snnrobust.reporting.estimators import estimator_table
from snnrobust.reporting.examples import MOST_TRAININGS, select
from snnrobust.reporting.heatmaps import heatmap
from snnrobust.reporting.layers import layers
from snnrobust.reporting.records import collect
from snnrobust.reporting.report import _drawn, write_report
from snnrobust.reporting.tables import summarise
from snnrobust.reporting.trainings import trainings_of
from snnrobust.spiking.encoder import Frames
from snnrobust.spiking.fuse import fused
from snnrobust.threat import Linf
from tests.contracts.toys import Toy
from tests.unit.test_reporting import content, put

EPS = 0.1
LABELS = [2, 2, 0, 3, 0, 3]
LAYERS: dict[str, dict[str, float | None]] = {
    "firing_rate": {"one": 0.1, "two": 0.2},
    "zero_spike_gradient": {"one": 0.75, "two": 0.0},
    "zero_current_gradient": {"one": 0.8, "two": 0.6},
    "zero_spike_gradient/bptr": {"one": 0.75, "two": 0.0},
    "zero_current_gradient/bptr": {"one": 0.9, "two": None},
}
ESTIMATORS: dict[str, dict[str, float | None]] = {
    "trained": {"gradient_sparsity": 0.25, "gradient_hoyer": 0.5, "gradient_l1": 2.0},
    "bptr": {"gradient_sparsity": 0.5, "gradient_hoyer": None, "gradient_l1": 4.0},
}


def split(labels, *shape) -> Split:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(17, (len(labels), *shape), generator=generator).to(torch.uint8)
    return Split(values, torch.tensor(labels), 16)


def made(model, data, estimator=TRAINED, attack=None) -> dict[str, np.ndarray]:
    """The arrays of the file that an evaluation leaves."""
    found = examples(model, fused(model), data, estimator, attack, seed=0)
    with np.load(io.BytesIO(gradients(found))) as file:
        return dict(file)


def pixels(axes: Axes) -> np.ndarray:
    """What is drawn there."""
    found = axes.images[0].get_array()
    assert found is not None
    return found


def test_the_file_holds_the_first_sample_of_each_class_with_gradients_and_perturbation(classifier):
    data = split(LABELS, 1, 8, 8)
    attack = ProjectedGradient(Linf(EPS), steps=3)
    found = made(classifier, data, Ensemble({"trained": TRAINED, "bptr": BPTR()}), attack)
    assert found["index"].tolist() == [2, 0, 3]
    assert found["label"].tolist() == [0, 2, 3]
    batch = data.batch(torch.tensor([2, 0, 3]))
    assert np.array_equal(found["input"], batch.x.numpy())
    for name, estimator in (("trained", TRAINED), ("bptr", BPTR())):
        expected = input_gradient(classifier, batch.x, batch.y, estimator)
        np.testing.assert_array_equal(found[f"gradient/{name}"], expected.numpy())
        assert found[f"gradient/{name}"].shape == (3, 1, 8, 8)
    attacked = attack(fused(classifier), batch.x, batch.y, batch.index)
    np.testing.assert_array_equal(found["perturbation"], (attacked - batch.x).numpy())
    assert 0 < np.abs(found["perturbation"]).max() <= EPS + 1e-6
    with torch.no_grad():
        assert found["predicted"].tolist() == classifier(batch.x).argmax(1).tolist()
        assert found["attacked"].tolist() == classifier(attacked).argmax(1).tolist()


def test_five_classes_and_four_estimators_are_enough():
    several, model = Ensemble({f"e{i}": TRAINED for i in range(1, 7)}), Toy(64, classes=10)
    found = examples(model, model, split([9, 8, 7, 6, 5, 4, 3, 9], 1, 8, 8), several, None, seed=0).arrays()
    assert found["label"].tolist() == [3, 4, 5, 6, 7]
    assert [name for name in found if name.startswith("gradient/")] == [
        "gradient/trained",
        *(f"gradient/e{i}" for i in range(1, 4)),
    ]
    assert "perturbation" not in found


def test_event_frames_keep_their_steps_and_polarities_and_are_drawn_as_their_sum(make_tiny, tmp_path):
    found = made(make_tiny(Frames(3), channels=2), split([0, 1], 3, 2, 8, 8))
    assert found["gradient/trained"].shape == found["input"].shape == (2, 3, 2, 8, 8)
    kept(tmp_path / "a", found)
    (shown,) = selection(tmp_path).shown
    figure = heatmap(shown)
    pictures = [pixels(axes) for axes in figure.axes[:4]]
    np.testing.assert_allclose(pictures[0], found["input"][0].sum((0, 1)), rtol=1e-6)
    summed = found["gradient/trained"][0].astype(float).sum((0, 1))
    np.testing.assert_allclose(pictures[2], summed / np.abs(summed).max(), rtol=1e-6)


# --- reports


def arrays(shape=(1, 6, 6), names=("trained",), index=(0, 1, 2)):
    rng = np.random.default_rng(0)
    number = len(index)
    pictures = {f"gradient/{name}": rng.normal(size=(number, *shape)).astype(np.float32) for name in names}
    answers = np.arange(number)
    return {
        "index": np.array(index), "label": answers, "predicted": answers, "attacked": answers + 1,
        "input": rng.random((number, *shape)).astype(np.float32), **pictures,
        "perturbation": np.full((number, *shape), 0.1, np.float32),
    }  # fmt: skip


def kept(folder, found, *arguments, **changes):
    """A run whose directory holds the arrays."""
    put(folder, content(*arguments, layers=LAYERS, estimators=ESTIMATORS, **changes))
    np.savez_compressed(folder / GRADIENTS, **found)
    return folder


def selection(root):
    return select(trainings_of(summarise(collect([root])).settings))


def test_a_report_shows_one_picture_for_each_training_and_not_for_each_seed_or_budget(tmp_path):
    for weight in (0.0, 0.01):
        for seed in (1, 0):
            for eps in (0.1, 0.2):
                record = {"training_signature": f"{weight}-{seed}"}
                kept(tmp_path / "runs" / f"{weight}-{seed}-{eps}", arrays(), weight, seed, eps, **record)
    found = selection(tmp_path)
    assert [(shown.training, shown.run) for shown in found.shown] == [
        ("weight 0", "run 0.0-0, seed 0"),
        ("weight 0.01", "run 0.01-0, seed 0"),
    ]
    assert found.notes == ()
    report = write_report([tmp_path / "runs"], tmp_path / "out", "title")
    names = {path.name for path in report.files}
    pictures = {f"{name}.{kind}" for name in ("gradients_1", "gradients_2", "layers") for kind in ("svg", "png")}
    assert pictures <= names
    assert not names & {"gradients_3.svg"}
    assert _drawn(heatmap(found.shown[0]), "svg") == (tmp_path / "out" / "gradients_1.svg").read_bytes()
    page = report.page.read_text()
    assert "weight 0.01 (run 0.01-0, seed 0)" in page
    assert page.count("data:image/svg+xml;base64,") == 6


def test_evaluations_of_the_same_model_under_other_estimators_share_a_picture(tmp_path):
    trained, other = arrays(names=("trained",)), arrays(names=("bptr", "trained", "a", "b", "c"))
    # The last one is of another seed, whose model is not shown.
    for seed, name, found in ((0, "one", trained), (0, "two", other), (1, "three", arrays(names=("c",)))):
        record = content(seed=seed, training_signature=f"seed {seed}", evaluation_signature=name)
        record["choices"] = record["choices"] | {"estimator": name}
        put(tmp_path / name, record)
        np.savez_compressed(tmp_path / name / GRADIENTS, **found)
    (shown,) = selection(tmp_path).shown
    assert list(shown.gradients) == ["trained", "bptr", "a", "b"]
    assert np.array_equal(shown.gradients["trained"], trained["gradient/trained"])
    assert shown.training == "digits, convnet"
    rows = [axes.get_ylabel() for axes in heatmap(shown).axes if axes.get_ylabel()]
    assert rows == ["input", *(f"gradient\n({name})" for name in shown.gradients), "perturbation\n(eps 0.1)"]


def test_a_picture_says_what_the_model_answers_and_how_sparse_a_gradient_is(tmp_path):
    found = arrays(index=(4, 5), names=("zero", "single"))
    found["gradient/zero"][:] = 0
    found["gradient/single"][:] = 0
    found["gradient/single"][:, 0, 2, 3] = -7
    found["attacked"] = np.array([0, 0])
    found["predicted"] = np.array([0, 3])
    kept(tmp_path / "a", found)
    figure = heatmap(selection(tmp_path).shown[0])
    assert [axes.get_title() for axes in figure.axes[:2]] == ["0", "1 (seen as 3)"]
    texts = [axes.get_xlabel() for axes in figure.axes[2:8]]
    assert texts == ["sparsity 1.00"] * 2 + ["sparsity 0.97"] * 2 + ["still 0", "taken for 0"]
    pictures = [pixels(axes) for axes in figure.axes[2:8]]
    assert (pictures[0] == 0).all()
    assert pictures[2][2, 3] == -1
    assert np.count_nonzero(pictures[2]) == 1
    assert {axes.images[0].get_clim() for axes in figure.axes[2:8]} == {(-1.0, 1.0)}


@pytest.mark.filterwarnings("error")
def test_colour_images_and_gradients_that_are_not_finite_are_drawn(tmp_path):
    found = arrays(shape=(3, 6, 6), index=(0,))
    found["gradient/trained"][0, :2, 0, 0] = np.inf, -np.inf
    kept(tmp_path / "a", found)
    figure = heatmap(selection(tmp_path).shown[0])
    assert pixels(figure.axes[0]).shape == (6, 6, 3)
    figure.savefig(io.BytesIO(), format="svg")


def test_of_many_trainings_some_are_shown_and_the_others_are_named(tmp_path):
    weights = [0.01 * i for i in range(10)]
    for weight in weights:
        kept(tmp_path / f"{weight}", arrays(), weight)
    found = selection(tmp_path)
    shown = [examples.training for examples in found.shown]
    assert len(shown) == MOST_TRAININGS
    assert shown[0] == "weight 0"
    assert shown[-1] == "weight 0.09"
    (note,) = found.notes
    left = {f"weight {weight:g}" for weight in weights} - {*shown}
    assert note.startswith("4 more training configurations")
    assert all(name in note for name in left)


def test_older_runs_and_damaged_files_are_named_and_never_stop_a_report(tmp_path):
    kept(tmp_path / "runs" / "good", arrays(), 0.0)
    put(tmp_path / "runs" / "old", content(0.01))
    damages = {
        0.02: b"", 0.03: b"PK\x03\x04 torn", 0.04: b"no archive",
        0.05: {"input": np.zeros((1, 1, 2, 2))}, 0.06: arrays() | {"input": np.zeros((3, 1, 2, 2))},
    }  # fmt: skip
    for weight, damage in damages.items():
        folder = kept(tmp_path / "runs" / f"{weight}", damage if isinstance(damage, dict) else {}, weight)
        if isinstance(damage, bytes):
            (folder / GRADIENTS).write_bytes(damage)
    found = selection(tmp_path)
    assert [examples.training for examples in found.shown] == ["weight 0"]
    assert [note.split(" cannot be used")[0].split("/")[-2] for note in found.notes[:5]] == [str(w) for w in damages]
    assert found.notes[5:] == (f"1 training configurations have no {GRADIENTS}, as older runs do not",)
    page = write_report([tmp_path / "runs"], tmp_path / "out", "title").page.read_text()
    assert page.count("cannot be used") == 5


def test_a_report_of_older_runs_alone_has_no_section_on_gradients(tmp_path):
    put(tmp_path / "old" / "a", content())
    kept(tmp_path / "new" / "a", arrays())
    write_report([tmp_path / "new"], tmp_path / "out", "title")
    assert (tmp_path / "out" / "gradients_1.svg").exists()
    page = write_report([tmp_path / "old"], tmp_path / "out", "title").page.read_text()
    assert "<h2>Gradients" not in page
    assert not {path.name for path in (tmp_path / "out").iterdir()} & {"gradients_1.svg", "layers.svg"}


def test_layers_and_estimators_are_averaged_over_seeds(tmp_path):
    for seed, shift in ((0, 0.0), (1, 0.2)):
        changed = LAYERS | {"zero_current_gradient": {"one": 0.8 - shift, "two": 0.6}}
        estimators = ESTIMATORS | {"trained": ESTIMATORS["trained"] | {"gradient_sparsity": 0.25 + shift}}
        put(tmp_path / str(seed), content(0.0, seed, layers=changed, estimators=estimators))
    summary = summarise(collect([tmp_path]))
    figure = layers(summary)
    assert figure is not None
    curves = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in figure.axes[0].lines[::2]}
    # From the last layer back to the first, arriving before leaving.
    assert curves["trained"] == pytest.approx([0.0, 0.6, 0.75, 0.7])
    assert curves["bptr"] == pytest.approx([0.75, 0.9])
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["two", "one"]
    table = estimator_table(trainings_of(summary.settings))
    assert [row[:3] for row in table.rows] == [("digits, convnet", name, "2") for name in ("trained", "bptr")]
    assert table.rows[0][3] == "0.35 ± 0.14"
    assert table.rows[1][5] == "–"


def test_gradients_are_forgotten_with_the_weights_that_they_are_of(tmp_path):
    for folder in (tmp_path, tmp_path / "evaluation"):
        folder.mkdir(exist_ok=True)
        for name in (CHECKPOINT, RESULTS, OUTCOMES, GRADIENTS, HISTORY):
            (folder / name).write_text(json.dumps({}))
    forget(Job({"force": False}, {}, (), "evaluate", tmp_path / CHECKPOINT))
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {HISTORY}
