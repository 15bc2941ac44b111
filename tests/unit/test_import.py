"""Published weights: equal to the authors' code, strictly loaded, safely read, and whole runs afterwards."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from snnrobust.building import load
from snnrobust.cli import main
from snnrobust.config import compose
from snnrobust.identity import training_signature
from snnrobust.importing.importer import FORMATS, import_weights, renamed
from snnrobust.importing.weights import read
from snnrobust.schema import ConfigError
from snnrobust.training.checkpoint import Checkpoint

PUBLISHED = Path(__file__).parent.parent / "published"
SEW = "model=sew_resnet18"
CASES = {
    "gradient_reg_defense_vgg11": ("gradient_reg_defense_vgg11", []),
    "gradient_reg_defense_wrn16": ("gradient_reg_defense_wrn16", []),
    "grad_obf_snn_sew18_max": ("grad_obf_snn_18", [SEW, "model.pool=max"]),
    "grad_obf_snn_sew18_avg": ("grad_obf_snn_18", [SEW, "model.pool=avg"]),
    "grad_obf_snn_spk18": ("grad_obf_snn_18", ["model=spiking_resnet18"]),
    "grad_obf_snn_sew50_avg": ("grad_obf_snn_50", ["model=sew_resnet50", "model.pool=avg"]),
    "robust_snn_conversion_vgg11": ("robust_snn_conversion_vgg11", []),
    "robust_snn_conversion_vgg11_soft": ("robust_snn_conversion_vgg11", ["neuron.reset=soft"]),
    "robust_snn_conversion_vgg11_ann": ("robust_snn_conversion_vgg11_ann", ["neuron=relu"]),
    "robust_snn_conversion_vgg16": ("robust_snn_conversion_vgg16", []),
    "robust_snn_conversion_tin": ("robust_snn_conversion_tin", []),
    "robust_snn_conversion_wrn16": ("robust_snn_conversion_wrn16", []),
    "robust_snn_conversion_resnet20": ("robust_snn_conversion_resnet20", []),
}
"""By the answers of the authors' code: the weights, and what has to be said of them."""


def format_of(name: str) -> str:
    (found,) = [made for made in FORMATS if name.startswith(made)]
    return found


def answers(name: str, home: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Logits and gradients of a run, and those of the authors' code."""
    expected = {key: torch.from_numpy(array) for key, array in np.load(PUBLISHED / f"{name}.npz").items()}
    model = load(home)
    x = expected["pixels"].float() / 255
    if name.startswith("grad_obf_snn"):
        leaf = model.encoder(x).detach().requires_grad_()
        logits = model.backbone(leaf).mean(0)
        assert torch.equal(model(x), logits)
    else:
        leaf = x.requires_grad_()
        logits = model(leaf)
    loss = torch.nn.functional.cross_entropy(logits, expected["labels"], reduction="sum")
    (gradient,) = torch.autograd.grad(loss, leaf)
    return {"logits": (logits.detach(), expected["logits"]), "gradient": (gradient, expected["gradient"])}


@pytest.fixture
def narrow(tmp_path) -> Path:
    """A VGG-5 for the digits, named as `gradient_reg_defense` names it."""
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}
    before = 1
    for place, after in (("layer1.0", 4), ("layer2.0", 8), ("layer2.3", 8)):
        norm = f"{place[:-1]}{int(place[-1]) + 1}"
        state |= {f"{place}.weight": torch.randn(after, before, 3, 3), f"{place}.bias": torch.randn(after)}
        state |= {f"{norm}.{key}": torch.rand(after) + 0.5 for key in ("weight", "bias", "running_mean", "running_var")}
        state[f"{norm}.num_batches_tracked"] = torch.tensor(3)
        before = after
    for number, rows, columns in ((1, 16, 32), (3, 16, 16), (5, 10, 16)):
        state |= {
            f"classifier.{number}.weight": torch.randn(rows, columns),
            f"classifier.{number}.bias": torch.rand(rows),
        }
    path = tmp_path / "narrow.pth"
    torch.save(state, path)
    return path


def changed(path: Path, change) -> Path:
    state = torch.load(path, weights_only=True)
    result = change(state)
    other = path.with_name("changed.pth")
    torch.save(state if result is None else result, other)
    return other


def imported(path: Path, *overrides: str) -> Path:
    """The directory of a run of the narrow network."""
    dataset = [] if any(o.startswith("dataset=") for o in overrides) else ["dataset=digits"]
    given = [*dataset, f"runs={path.parent / 'runs'}", *overrides]
    return import_weights("gradient_reg_defense", path, given).home


def refused(path: Path, *overrides: str) -> str:
    """What is said, in one line; nothing is written."""
    with pytest.raises(ConfigError) as error:
        imported(path, *overrides)
    assert "\n" not in str(error.value)
    assert not (path.parent / "runs").exists()
    return str(error.value)


# --- the same function


@pytest.mark.parametrize("name", CASES)
def test_logits_and_gradients_are_those_of_the_authors_code(name, tmp_path):
    weights, overrides = CASES[name]
    home = import_weights(format_of(name), PUBLISHED / f"{weights}.pth", [*overrides, f"runs={tmp_path}"]).home
    for found, expected in answers(name, home).values():
        assert found.shape == expected.shape
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max().clamp(max=1)), rtol=0)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("grad_obf_snn_sew18_max", [SEW, "model.pool=avg"]),
        ("grad_obf_snn_spk18", [SEW, "model.pool=max"]),
        ("robust_snn_conversion_vgg11", ["neuron.reset=soft"]),
        ("gradient_reg_defense_vgg11", ["encoder.steps=7"]),
        ("gradient_reg_defense_vgg11", ["dataset.std=[1.0,1.0,1.0]"]),
    ],
)
def test_another_network_with_the_same_weights_answers_otherwise(name, wrong, tmp_path):
    path = PUBLISHED / f"{CASES[name][0]}.pth"
    found, expected = answers(name, import_weights(format_of(name), path, [*wrong, f"runs={tmp_path}"]).home)["logits"]
    assert (found - expected).abs().max() > 0.01


def test_the_surrogate_and_the_reset_of_the_gradient_follow_the_paper(tmp_path):
    name = "grad_obf_snn_sew18_max"
    overrides = [*CASES[name][1], f"runs={tmp_path}"]
    for wrong in ("neuron/surrogate=triangle", "neuron.detach_reset=false"):
        home = import_weights("grad_obf_snn", PUBLISHED / "grad_obf_snn_18.pth", [*overrides, wrong]).home
        found = answers(name, home)
        assert torch.allclose(*found["logits"], atol=1e-5)  # the last bits are of the processor
        assert not torch.allclose(*found["gradient"], atol=1e-4)


# --- what the weights tell, and what they do not


@pytest.mark.parametrize(
    ("weights", "overrides", "choices", "settings"),
    [
        ("gradient_reg_defense_vgg11", [], "vgg11 cifar10 direct if", {"hidden": [16, 16], "bias": "all"}),
        ("gradient_reg_defense_wrn16", [], "wrn16 cifar100 direct if", {"stem": 2, "width": 2, "bias": True}),
        ("robust_snn_conversion_vgg16", [], "vgg16 cifar10 direct trainable_threshold", {"head": "flatten"}),
        ("robust_snn_conversion_vgg11_ann", ["neuron=relu"], "vgg11 cifar10 direct relu", {"bias": "none"}),
        (
            *("robust_snn_conversion_tin", [], "vgg11_tiny_imagenet tiny_imagenet direct trainable_threshold"),
            {"plan": [4, "pool", 4, "pool", 8, 8, "pool", 8, 8, "pool", 8, 8], "hidden": [16], "head": "average"},
        ),
        (
            *("robust_snn_conversion_resnet20", ["dataset=svhn"], "resnet20 svhn direct trainable_threshold"),
            {"width": 4, "blocks": [3, 3, 3], "bias": True},
        ),
        (
            *("grad_obf_snn_50", ["model=spiking_resnet50"], "spiking_resnet50 cifar10 phase if"),
            {"block": "bottleneck", "width": 1, "blocks": [3, 4, 6, 3], "pool": "max"},
        ),
    ],
)
def test_network_widths_and_classes_follow_from_the_weights(weights, overrides, choices, settings, tmp_path):
    home = import_weights(format_of(weights), PUBLISHED / f"{weights}.pth", [*overrides, f"runs={tmp_path}"]).home
    config = yaml.safe_load((home / "config.yaml").read_text())
    composed = compose("config", yaml.safe_load((home / "overrides.yaml").read_text()))
    assert training_signature(composed.config) == training_signature(config) == home.name
    groups = ("model", "dataset", "encoder", "neuron")
    assert " ".join(composed.choices[group] for group in groups) == choices
    assert {key: config["model"][key] for key in settings} == settings
    assert config["encoder"]["steps"] == {"phase": 10, "direct": 1 if "relu" in choices else 8}[choices.split()[2]]


def test_the_conversion_paper_normalises_house_numbers_in_its_own_way(tmp_path):
    path = PUBLISHED / "robust_snn_conversion_resnet20.pth"
    model = load(import_weights("robust_snn_conversion", path, ["dataset=svhn", f"runs={tmp_path}"]).home)
    assert model.normalize.mean.flatten().tolist() == model.normalize.std.flatten().tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("weights", "overrides", "said"),
    [
        ("grad_obf_snn_18", [], "model: the weights do not tell; give model=sew_resnet18 or model=spiking_resnet18"),
        ("grad_obf_snn_18", [SEW], "model.pool: the weights do not tell; give model.pool=max or model.pool=avg"),
        ("grad_obf_snn_18", ["model=sew_resnet34"], "model: got sew_resnet34; allowed by the weights: sew_resnet18, "),
        ("grad_obf_snn_18", [SEW, "model.pool=none"], "model.pool: got none; allowed by the weights: max, avg"),
        ("robust_snn_conversion_vgg11_ann", [], "neuron: the weights do not tell; give neuron=relu or neuron=if"),
        ("robust_snn_conversion_vgg11", ["dataset=cifar100"], "got cifar100, with 3 channels and 100 classes; allowed"),
        ("robust_snn_conversion_vgg11", ["dataset=mnist"], "got mnist, with 1 channels and 10 classes; allowed"),
        ("robust_snn_conversion_vgg11", ["neuron=if"], "features.2.v_th is left over"),
        ("gradient_reg_defense_vgg11", ["training=adam"], "training=adam: of no meaning"),
        ("gradient_reg_defense_vgg11", ["encoder.step=3"], "encoder.step: unknown key; did you mean steps?"),
        ("gradient_reg_defense_vgg11", ["encoder=phase", "encoder.steps=0"], "encoder.steps: got 0"),
        ("gradient_reg_defense_vgg11", ["model._target_=os.system"], "model._target_: got 'os.system'"),
    ],
)
def test_what_is_open_or_wrong_is_said_in_one_line(weights, overrides, said, tmp_path):
    with pytest.raises(ConfigError) as error:
        import_weights(format_of(weights), PUBLISHED / f"{weights}.pth", [*overrides, f"runs={tmp_path / 'runs'}"])
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("other", FORMATS)
def test_weights_of_another_format_are_refused(other, tmp_path):
    for name in ("gradient_reg_defense_wrn16", "grad_obf_snn_18", "robust_snn_conversion_vgg11"):
        if not name.startswith(other):
            with pytest.raises(ConfigError, match=f"not weights of {other}"):
                import_weights(other, PUBLISHED / f"{name}.pth", [f"runs={tmp_path}"])


def test_of_several_parts_that_fit_a_name_the_first_counts():
    parts = [("a.b", "x"), ("a", "y")]
    assert [renamed(name, parts) for name in ("a.b", "a.b.c", "a.bc", "ab")] == ["x", "x.c", "y.bc", None]


def test_pictures_of_another_size_and_classes_without_a_dataset_are_said_to_be_so(narrow):
    with pytest.raises(ConfigError, match="28x28 pixels cannot be halved to that"):
        imported(narrow, "dataset=mnist")
    with pytest.raises(ConfigError, match="none is known for 1 channels and 10 classes; give dataset=CHOICE"):
        import_weights("gradient_reg_defense", narrow, [])


# --- every tensor, and no other


def test_a_tensor_that_is_left_over_is_named(narrow):
    def more(state):
        state["layer1.0.extra"] = torch.ones(1)

    assert "layer1.0.extra is left over" in refused(changed(narrow, more))


@pytest.mark.parametrize("name", ["layer2.4.running_var", "layer1.0.bias", "classifier.5.bias"])
def test_a_tensor_that_is_missing_is_named(narrow, name):
    assert f"{name} is missing" in refused(changed(narrow, lambda state: {k: v for k, v in state.items() if k != name}))


def test_a_tensor_of_another_shape_is_named(narrow):
    def turned(state):
        state["classifier.3.weight"] = state["classifier.3.weight"][:, :15]

    assert "classifier.3.weight is [16, 15] instead of [16, 16]" in refused(changed(narrow, turned))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_tensor_that_is_not_finite_is_named(narrow, value):
    def spoiled(state):
        state["layer2.1.running_var"][3] = value

    assert "layer2.1.running_var has entries that are not finite" in refused(changed(narrow, spoiled))


def test_a_negative_variance_is_named(narrow):
    def spoiled(state):
        state["layer2.1.running_var"][3] = -0.5

    assert "layer2.1.running_var has negative entries" in refused(changed(narrow, spoiled))


def test_a_number_that_the_network_cannot_hold_is_not_finite(narrow):
    def huge(state):
        state["layer1.0.bias"] = state["layer1.0.bias"].double() * 1e300

    assert "layer1.0.bias has entries that are not finite" in refused(changed(narrow, huge))


@pytest.mark.parametrize(
    ("name", "dtype", "allowed"),
    [
        ("layer1.0.weight", torch.complex64, "floating-point numbers"),
        ("layer1.0.weight", torch.int64, "floating-point numbers"),
        ("classifier.5.bias", torch.bool, "floating-point numbers"),
        ("layer1.1.num_batches_tracked", torch.float32, "integers"),
    ],
)
def test_a_tensor_of_another_kind_of_number_is_named(narrow, name, dtype, allowed):
    def turned(state):
        state[name] = state[name].to(dtype)

    assert f"{name} is {str(dtype)[6:]}; allowed: {allowed}" in refused(changed(narrow, turned))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floats_of_another_precision_become_those_of_the_network(narrow, dtype):
    def turned(state):
        return {k: v.to(dtype) if v.is_floating_point() else v.to(torch.int32) for k, v in state.items()}

    before = torch.load(narrow, weights_only=True)["layer1.0.weight"]
    weights = load(imported(changed(narrow, turned))).state_dict()["backbone.features.0.weight"]
    assert torch.equal(weights, before.to(dtype).float())


@pytest.mark.parametrize(
    "odd",
    [
        torch.Tensor.to_sparse,
        lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        lambda tensor: tensor.to("meta"),
    ],
    ids=["sparse", "quantised", "meta"],
)
@pytest.mark.filterwarnings("ignore")  # of torch, that it will drop quantised tensors
def test_a_tensor_that_is_not_dense_is_named(narrow, odd):
    def turned(state):
        state["classifier.3.weight"] = odd(state["classifier.3.weight"])

    assert "classifier.3.weight is sparse, quantised" in refused(changed(narrow, turned))


@pytest.mark.parametrize("kept", ["features.0", "classifier"])
def test_half_a_network_is_refused(kept, tmp_path):
    state = read(PUBLISHED / "robust_snn_conversion_vgg11_ann.pth")
    half = {name: tensor for name, tensor in state.items() if name.startswith((kept, "features.0"))}
    half |= {"features.0.weight": half["features.0.weight"].flatten()} if kept == "classifier" else {}
    half |= {"stem": torch.ones(4, 3, 3, 3), "last": torch.ones(10, 4)}
    torch.save(half, tmp_path / "half.pth")
    with pytest.raises(ConfigError, match="a VGG without convolutions below features, or without a matrix"):
        import_weights("robust_snn_conversion", tmp_path / "half.pth", ["neuron=relu", f"runs={tmp_path}"])


@pytest.mark.parametrize("shape", [(), (16,), (0, 32), (16, 32, 1)])
def test_a_layer_that_is_neither_convolution_nor_matrix_is_named(narrow, shape):
    def turned(state):
        state["classifier.1.weight"] = torch.ones(shape)

    assert f"not weights of gradient_reg_defense (classifier.1.weight is {[*shape]}" in refused(changed(narrow, turned))


# --- what was assumed


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            [],
            "assumed: dataset=cifar10 encoder=direct encoder.steps=8 neuron=if; say otherwise with key=value "
            "(the weights fit dataset=svhn as well)",
        ),
        (["dataset=svhn", "encoder.steps=4"], "assumed: encoder=direct neuron=if; say otherwise with key=value"),
        (["dataset=cifar10", "encoder=direct", "encoder.steps=8", "neuron=if"], ""),
    ],
)
def test_what_was_assumed_is_said(given, said, tmp_path):
    path = PUBLISHED / "gradient_reg_defense_vgg11.pth"
    assert import_weights("gradient_reg_defense", path, [*given, f"runs={tmp_path}"]).caution == said


@pytest.mark.parametrize(("given", "code"), [([], "poisson"), (["encoder=direct"], "direct")])
def test_poisson_spikes_are_assumed_where_the_name_of_the_file_tells_of_them(given, code, narrow):
    path = narrow.rename(narrow.with_name("vgg5_poi[0.002].pth"))
    done = import_weights("gradient_reg_defense", path, ["dataset=digits", *given, f"runs={narrow.parent}"])
    assert type(load(done.home).encoder).__name__.lower() == code
    assert ("encoder=poisson" in done.caution) == (not given)


def test_a_mistake_in_an_override_is_not_blamed_on_the_file(narrow):
    path = PUBLISHED / "gradient_reg_defense_vgg11.pth"
    with pytest.raises(ConfigError, match=r"^dataset\.mean: got 1 values; allowed: 3"):
        import_weights("gradient_reg_defense", path, ["dataset.mean=[0.5]", f"runs={narrow.parent}"])
    assert refused(narrow, "dataset=mnist").startswith("dataset: classifier.1.weight sees 32 entries of 8 channels")
    assert refused(narrow, "~encoder") == "~encoder: no setting can be left out; allowed: key=value"


# --- files from strangers


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"net": state, "acc": 93.5, "epoch": 3},
        lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}, "optimizer": {"state": {}}},
    ],
)
def test_wrappings_come_off(narrow, wrapped):
    plain, other = read(narrow), read(changed(narrow, wrapped))
    assert list(plain) == list(other)
    assert all(torch.equal(plain[name], other[name]) for name in plain)


def test_of_two_state_dicts_none_is_chosen(narrow):
    assert "state dicts in net, ema" in refused(changed(narrow, lambda state: {"net": state, "ema": state}))
    assert "no state dict" in refused(changed(narrow, lambda state: {"epoch": 3}))
    assert "no state dict" in refused(changed(narrow, lambda state: [1, 2]))
    assert "no state dict" in refused(changed(narrow, lambda state: dict(enumerate(state.values()))))
    assert "no state dict" in refused(changed(narrow, lambda state: {"net": dict(enumerate(state.values()))}))


class _Touch:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_file_that_asks_for_code_is_refused_and_not_obeyed(narrow, tmp_path):
    trap = tmp_path / "trapped"
    assert "asks for code" in refused(changed(narrow, lambda state: {"net": state, "note": _Touch(trap)}))
    older = tmp_path / "older.pth"
    torch.save({"net": torch.load(narrow), "note": _Touch(trap)}, older, _use_new_zipfile_serialization=False)
    assert "asks for code" in refused(older)
    assert not trap.exists()


def test_absent_and_damaged_files_are_said_to_be_so(narrow, tmp_path):
    whole = narrow.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not weights", whole[:-30]):
        damaged = tmp_path / "damaged.pth"
        damaged.write_bytes(content)
        assert "damaged" in refused(damaged)
    older = tmp_path / "older.pth"
    torch.save(torch.load(narrow), older, _use_new_zipfile_serialization=False)
    whole = older.read_bytes()
    for end in range(10, whole.index(b"_rebuild_tensor_v2") + 30):  # inside names, too
        damaged.write_bytes(whole[:end])
        with pytest.raises(ConfigError, match="damaged"):
            read(damaged)
    assert "No such file" in refused(tmp_path / "absent.pth")
    (tmp_path / "folder.pth").mkdir()
    assert "Is a directory" in refused(tmp_path / "folder.pth")


# --- the run that it becomes


def test_the_same_file_gives_the_same_directory_and_other_weights_another(narrow):
    home = imported(narrow)
    assert sorted(path.name for path in home.iterdir()) == ["checkpoint.pt", "config.yaml", "overrides.yaml"]
    before = {path: path.stat().st_mtime_ns for path in home.iterdir()}
    assert imported(narrow) == home
    assert {path: path.stat().st_mtime_ns for path in home.iterdir()} == before

    def nudged(state):
        state["classifier.5.bias"][0] += 1e-3

    others = {imported(changed(narrow, nudged)), imported(narrow, "encoder.steps=4"), imported(narrow, "encoder=phase")}
    assert len({home, *others}) == 4
    assert {path for path in home.parent.iterdir()} == {home, *others}  # and nothing temporary


def test_a_damaged_import_is_made_anew(narrow):
    home = imported(narrow)
    whole = (home / "checkpoint.pt").read_bytes()
    (home / "checkpoint.pt").write_bytes(whole[:100])
    assert imported(narrow) == home
    load(home)


def test_an_import_that_cannot_be_written_leaves_nothing(narrow, monkeypatch):
    def full(self, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Checkpoint, "save", full)
    with pytest.raises(OSError, match="No space left"):
        imported(narrow)
    assert [*(narrow.parent / "runs").iterdir()] == []


@pytest.mark.parametrize("verb", ["train", "describe"])
def test_without_an_import_there_is_nothing_to_train(verb, tmp_path, capsys):
    assert main([verb, "training=imported", f"runs={tmp_path / 'runs'}"]) == 2
    assert capsys.readouterr().err.startswith("snnrobust: training: got imported weights, which nothing trains")
    assert not (tmp_path / "runs").exists()


def test_an_imported_run_is_attacked_reported_and_never_trained(narrow, capsys):
    runs = narrow.parent / "runs"
    assert (
        main(["import", "gradient_reg_defense", str(narrow), "dataset=digits", "encoder.steps=2", f"runs={runs}"]) == 0
    )
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("vgg5 for digits, 1,")
    assert said[1] == "assumed: encoder=direct neuron=if; say otherwise with key=value"
    home = Path(said[2].rpartition("checkpoint=")[2])
    quick = ["tracker=none", "device=cpu", "attacks.pgd.steps=1"]
    source = ["+attack@attacks.other=transfer", f"attacks.other.source={home}"]
    assert main(["evaluate", f"checkpoint={home}", *quick, *source]) == 0
    results = json.loads(next(home.rglob("results.json")).read_text())
    assert results["training_signature"] == home.name
    assert results["training"]["imported"]["format"] == "gradient_reg_defense"
    assert results["training"]["imported"]["file"] == "narrow.pth"
    assert results["metrics"]["fgsm_accuracy"] <= results["metrics"]["clean_accuracy"]
    assert main(["report", str(home), "--out", str(narrow.parent / "report")]) == 0
    capsys.readouterr()
    weights = (home / "checkpoint.pt").read_bytes()
    overrides = yaml.safe_load((home / "overrides.yaml").read_text())
    assert main(["train", *overrides, *quick, "force=true"]) == 2
    assert "nothing trains" in capsys.readouterr().err
    assert (home / "checkpoint.pt").read_bytes() == weights
    assert main(["evaluate", f"checkpoint={home}", "encoder.steps=3"]) == 2


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 0, "usage: snnrobust import FORMAT FILE"),
        (["--help"], 0, "VGG-11 and WRN-16-4 of github.com/putshua"),
        (["other", "file.pth"], 2, "format: got 'other'; allowed: gradient_reg_defense, grad_obf_snn, robust_snn"),
        (["grad_obf_snn"], 2, "FILE is missing"),
        (["grad_obf_snn", "model=vgg11"], 2, "FILE is missing"),
        (["-m", "grad_obf_snn", "file.pth"], 2, "-m: import runs nothing"),
    ],
)
def test_the_command_explains_itself(arguments, status, said, capsys):
    assert main(["import", *arguments]) == status
    captured = capsys.readouterr()
    assert said in captured.out + captured.err
