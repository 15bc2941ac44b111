"""SVHN on small MATLAB files of the same format, whose checksums stand in for the official ones."""

import hashlib
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from scipy import io
from torchvision.datasets import SVHN

from snnrobust.data.dataset import DataError
from snnrobust.data.images import Images
from snnrobust.data.svhn import Svhn

torch.set_num_threads(1)

SIZES = {"train": 100, "test": 30}


def write_mat(file: Path, number: int, labels: np.ndarray | None = None) -> str:
    """As the official files: images along the last dimension, 10 for the digit 0. Returns the MD5."""
    digits = np.arange(number) % 10
    pictures = np.zeros((32, 32, 3, number), np.uint8)
    pictures[0, 0, 0], pictures[1, 0, 2] = digits, np.arange(number)
    stored = np.where(digits == 0, 10, digits) if labels is None else labels
    io.savemat(file, {"X": pictures, "y": stored.reshape(-1, 1).astype(np.uint8)})
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "SVHN"
    folder.mkdir()
    known = dict(SVHN.split_list)
    for part, number in SIZES.items():
        url, name, _ = known[part]
        known[part] = [url, name, write_mat(folder / name, number)]
    monkeypatch.setattr(SVHN, "split_list", known)
    return folder


def source(folder: Path, **settings) -> Images:
    return Images(Svhn(), root=str(folder.parent), **settings)


def test_files_load_as_torchvision_reads_them(folder):
    svhn = source(folder)
    splits = svhn.load()
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [90, 10, 30]
    for split in (splits.train, splits.validation, splits.test):
        assert split.values.dtype == torch.uint8
        assert split.values.shape[1:] == svhn.shape
        assert torch.equal(split.values[:, 0, 0, 0].long(), split.labels)
    assert torch.equal(splits.test.values[:, 2, 1, 0].long(), torch.arange(30))
    theirs = SVHN(folder, "test")
    assert torch.equal(splits.test.values, torch.from_numpy(theirs.data))
    assert splits.test.labels.tolist() == theirs.labels.tolist()


def test_absent_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"train_32x32\.mat is absent: .*MD5 e26dedcc.*ufldl\.stanford\.edu") as caught:
        Images(Svhn(), root=str(tmp_path)).load()
    assert "dataset.download=true" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(folder):
    file = folder / "test_32x32.mat"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{file} has the MD5 .* expected .*ufldl") as caught:
        source(folder, download=True).load()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(np.arange(30) % 12, "labels 0 to 11: expected 0 to 9"), (np.arange(29) % 10, "holds 29 labels: expected 30")],
)
def test_contents_that_cannot_be_are_refused(folder, monkeypatch, labels, message):
    digest = write_mat(folder / "test_32x32.mat", 30, labels)
    known = {**SVHN.split_list, "test": [*SVHN.split_list["test"][:2], digest]}
    monkeypatch.setattr(SVHN, "split_list", known)
    with pytest.raises(DataError, match=message):
        source(folder).load()


def test_a_download_that_fails_is_reported(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.svhn.download_url", unreachable)
    with pytest.raises(DataError, match=r"cannot download train_32x32\.mat to .*no route to host"):
        Images(Svhn(), root=str(tmp_path), download=True).load()
