"""Imports point downwards only, and every heavy package has one door."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import snnrobust

ROOT = Path(snnrobust.__file__).parent
LAYERS = (
    {"__main__"},
    {"cli"},
    {"verbs"},
    {"convert", "search"},
    {"stages"},
    {"launch", "api", "importing", "exporting"},
    {"planning", "sweeping", "syncing"},
    {"launchers"},
    {"perform", "together"},
    {"config", "reporting"},
    {"sweepfiles"},
    {"overrides", "building", "fitting"},
    {"run", "console", "describe"},
    {"weights"},
    {"record"},
    {"experiment", "foreign_experiment"},
    {"conversion"},
    {"training", "evaluation", "tracking"},
    {"regularizers", "attacks"},
    {"estimators"},
    {"models", "data", "foreign", "compressed"},
    {"spiking", "threat", "flips", "randomness", "traceless", "distributed"},
    {
        "settings",
        "schema",
        "trainable",
        "check",
        "identity",
        "job",
        "saved",
        "files",
        "claims",
        "forgetting",
        "placement",
        "yamls",
        "environment",
        "usage",
    },
    {"__init__"},
)
LIGHT = LAYERS[-2]
DOORS = {
    "hydra": {"launch", "config", "overrides", "building", "search.space"},
    "omegaconf": {"launch", "config", "building", "fitting"},
    "wandb": {"tracking"},
    "tonic": {"data.events", "data.formats.aedat4"},
    "torchattacks": {"attacks.thirdparty"},
    "torchvision": {"data.pictures", "data.mnist", "data.cifar", "data.svhn"},
    "numba": {"spiking.machine"},
    "safetensors": {"compressed"},
    "nir": {"exporting.graph"},
    "joblib": {"launchers.parallel"},
    "submitit": {"launchers.slurm"},
    "ray": {"launchers.ray"},
    "optuna": {"search.study"},
}
REPORTING = {"numpy", "matplotlib", "jinja2", "tabulate", "rich", "pydantic"}


def _module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def _imports(path):
    """Full dotted names that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _own(name):
    """The module of this package that an imported name lies in."""
    parts = name.split(".")[1:]
    while parts and not (ROOT.joinpath(*parts).with_suffix(".py").exists() or ROOT.joinpath(*parts).is_dir()):
        parts.pop()
    return ".".join(parts) or "__init__"


def _layer(module):
    (found,) = [i for i, layer in enumerate(LAYERS) if module.partition(".")[0] in layer]
    return found


PATHS = {_module(path): path for path in sorted(ROOT.rglob("*.py"))}
IMPORTS = {module: sorted(set(_imports(path))) for module, path in PATHS.items()}
OWN = {m: {_own(n) for n in names if n.partition(".")[0] == "snnrobust"} - {m} for m, names in IMPORTS.items()}
OTHERS = {m: {n.partition(".")[0] for n in names} - {"snnrobust"} for m, names in IMPORTS.items()}


@pytest.mark.parametrize("module", PATHS)
def test_imports_point_downwards(module):
    assert not [below for below in OWN[module] if _layer(below) < _layer(module)]


def test_imports_have_no_cycle():
    assert set(TopologicalSorter(OWN).static_order()) >= set(PATHS)


@pytest.mark.parametrize("package", DOORS)
def test_every_heavy_package_has_one_door(package):
    assert {module for module, names in OTHERS.items() if package in names} <= DOORS[package]


@pytest.mark.parametrize("module", sorted(m for m in PATHS if m.partition(".")[0] == "reporting"))
def test_reporting_knows_records_only(module):
    assert not {m for m in OWN[module] if m.partition(".")[0] not in {*LIGHT, "reporting", "__init__"}}
    assert OTHERS[module] <= REPORTING | sys.stdlib_module_names


@pytest.mark.parametrize("module", sorted(LIGHT))
def test_light_modules_never_import_torch(module):
    assert "torch" not in OTHERS[module]


def test_nothing_heavy_is_imported_before_a_config_is_checked():
    modules = ", ".join(f"snnrobust.{name}" for name in ("cli", "launch", "config", *sorted(LIGHT)))
    heavy = ("torch", "wandb", "spikingjelly", "torchattacks", "tonic", "torchvision", "sklearn", "matplotlib")
    code = f"import sys, {modules}\nprint([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
