"""What is recorded about versions, source and machine."""

import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from snnrobust import environment


def git(folder, *arguments):
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    return subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one committed package, which `environment` takes for its own."""
    if shutil.which("git") is None:
        pytest.skip("no git here")
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    monkeypatch.setattr(environment, "__file__", str(package / "environment.py"))
    return tmp_path


def test_versions_are_those_of_the_installed_packages():
    versions = environment.versions()
    assert set(versions) == {"python", *environment.PACKAGES}
    assert versions["python"] == platform.python_version()
    assert versions["torch"] == metadata.version("torch")


def test_an_absent_package_is_recorded_as_such(monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("no-such-package",))
    assert environment.versions()["no-such-package"] == "not installed"


def test_a_clean_checkout_is_recorded_by_its_commit(checkout):
    assert environment.commit() == {"commit": git(checkout, "rev-parse", "HEAD").strip(), "dirty": False}


def test_changes_make_a_checkout_dirty(checkout):
    (checkout / "package" / "__init__.py").write_text("changed = True\n")
    assert environment.commit() == {"commit": git(checkout, "rev-parse", "HEAD").strip(), "dirty": True}


def test_an_installed_copy_inside_another_repository_has_no_commit(checkout, monkeypatch):
    installed = checkout / "venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    monkeypatch.setattr(environment, "__file__", str(installed / "environment.py"))
    assert environment.commit() is None


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", str(Path(__file__).parent))
    assert environment.commit() is None


def test_hardware_names_the_machine():
    hardware = environment.hardware("cpu", 2)
    assert (hardware["device"], hardware["threads"]) == ("cpu", 2)
    assert int(hardware["cores"]) >= 1
    assert isinstance(hardware["cpu"], str)
