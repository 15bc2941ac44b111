"""The wheel holds the package with its yaml files and nothing else, and works from anywhere."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="no source tree")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "-w", str(folder), str(ROOT)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def python(installed, cwd, *arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(installed), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_yaml_file_is_in_the_wheel(names):
    files = {f"snnrobust/conf/{path.relative_to(ROOT / 'conf').as_posix()}" for path in ROOT.glob("conf/**/*.yaml")}
    assert "snnrobust/conf/config.yaml" in files
    assert files <= names


def test_every_module_is_in_the_wheel(names):
    modules = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("snnrobust/**/*.py")}
    assert modules <= names


def test_the_wheel_says_that_it_is_typed(names):
    assert "snnrobust/py.typed" in names


def test_nothing_else_is_in_the_wheel(names):
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"snnrobust"}
    assert not [name for name in names if "__pycache__" in name or "tests/" in name]


def test_an_installed_package_reads_its_own_yaml_files(installed, tmp_path):
    done = python(installed, tmp_path, "-c", "from snnrobust.yamls import folder; print(folder().resolve())")
    assert done.stdout.strip() == str((installed / "snnrobust" / "conf").resolve()), done.stderr


def test_an_installed_package_composes_the_same_config_from_anywhere(installed, tmp_path):
    code = (
        "import json; from snnrobust.config import compose; from snnrobust.identity import evaluation_signature;"
        "print(json.dumps(evaluation_signature(compose('config', []).config)))"
    )
    there, here = python(installed, tmp_path, "-c", code), python(ROOT, ROOT, "-c", code)
    assert json.loads(there.stdout) == json.loads(here.stdout)


def test_the_command_works_from_an_installed_package(installed, tmp_path):
    done = python(installed, tmp_path, "-m", "snnrobust", "train", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "_target_: snnrobust.models.convnet.ConvNet" in done.stdout
    assert not list(tmp_path.iterdir())
