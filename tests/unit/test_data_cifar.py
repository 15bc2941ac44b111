"""CIFAR-10 and CIFAR-100 on small pickles of the same format, whose checksums stand in for the official ones."""

import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import datasets

from snnrobust.data.cifar import Cifar10, Cifar100
from snnrobust.data.dataset import DataError
from snnrobust.data.images import Images

torch.set_num_threads(1)

CLASSES = {"CIFAR10": 10, "CIFAR100": 100}
LABELS = {"CIFAR10": "labels", "CIFAR100": "fine_labels"}
SOURCES: dict[str, Any] = {"CIFAR10": Cifar10, "CIFAR100": Cifar100}


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def batch_of(name: str, start: int, per_class: int, side: int = 32, shift: int = 0) -> bytes:
    """Every image has its label in its first red pixel and its running number in the last blue one."""
    labels = np.tile(np.arange(CLASSES[name]), per_class)
    pictures = np.zeros((len(labels), 3, side, side), np.uint8)
    pictures[:, 0, 0, 0], pictures[:, 2, -1, -1] = labels, (start + np.arange(len(labels))) % 256
    return pickle.dumps({"data": pictures.reshape(len(labels), -1), LABELS[name]: (labels + shift).tolist()})


@pytest.fixture(params=["CIFAR10", "CIFAR100"])
def folder(tmp_path, request, monkeypatch) -> Path:
    """A folder in which every file has the checksum that torchvision knows."""
    source = getattr(datasets, request.param)
    folder = tmp_path / source.base_folder
    folder.mkdir()
    trains = [(file, batch_of(request.param, 50 * i, 4)) for i, (file, _) in enumerate(source.train_list)]
    tests = [(file, batch_of(request.param, 0, 2)) for file, _ in source.test_list]
    meta = pickle.dumps({source.meta["key"]: [str(i) for i in range(CLASSES[request.param])]})
    known: dict[str, Any] = {
        "train_list": [[file, md5(content)] for file, content in trains],
        "test_list": [[file, md5(content)] for file, content in tests],
        "meta": {**source.meta, "md5": md5(meta)},
    }
    for file, content in [*trains, *tests, (source.meta["filename"], meta)]:
        (folder / file).write_bytes(content)
    for name, value in known.items():
        monkeypatch.setattr(source, name, value)
    return folder


def name_of(folder: Path) -> str:
    return "CIFAR10" if "10-" in folder.name else "CIFAR100"


def dataset(folder: Path, **settings: Any) -> Images:
    return Images(SOURCES[name_of(folder)](), root=str(folder.parent), **settings)


def test_files_load_as_torchvision_reads_them(folder):
    name = name_of(folder)
    source = dataset(folder, validation=0.25)
    splits = source.load()
    theirs = getattr(datasets, name)(folder.parent, train=True)
    assert len(splits.train) + len(splits.validation) == len(theirs)
    assert (splits.validation.labels.bincount(minlength=CLASSES[name]) == len(theirs) // CLASSES[name] // 4).all()
    for split in (splits.train, splits.validation, splits.test):
        assert split.values.dtype == torch.uint8
        assert split.values.shape[1:] == source.shape
        assert split.values.is_contiguous()
        assert torch.equal(split.values[:, 0, 0, 0].long(), split.labels)
        assert split.scale == 255
    expected = torch.from_numpy(theirs.data).permute(0, 3, 1, 2)
    ours = torch.cat([splits.train.values, splits.validation.values])
    assert sorted(map(tuple, ours.flatten(1).tolist())) == sorted(map(tuple, expected.flatten(1).tolist()))
    test = getattr(datasets, name)(folder.parent, train=False)
    assert torch.equal(splits.test.values, torch.from_numpy(test.data).permute(0, 3, 1, 2))
    assert splits.test.labels.tolist() == test.targets
    assert max(test.targets) == source.classes - 1


def test_limits_are_balanced(folder):
    splits = dataset(folder, validation=0.25, train_limit=CLASSES[name_of(folder)] * 2).load()
    assert (splits.train.labels.bincount() == 2).all()


def test_absent_files_are_named(folder):
    (folder / "meta").unlink(missing_ok=True)
    (folder / "batches.meta").unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"cannot read .*meta: No such file.*cifar-100?-python\.tar\.gz") as caught:
        dataset(folder).load()
    assert "\n" not in str(caught.value)


def test_an_absent_folder_is_named_with_its_archive(tmp_path):
    with pytest.raises(DataError, match=r"cifar-10-batches-py is absent: .*cifar-10-python\.tar\.gz \(MD5 c58f30") as e:
        Images(Cifar10(), root=str(tmp_path)).load()
    assert "dataset.download=true" in str(e.value)
    assert "\n" not in str(e.value)


class Malicious:
    """Unpickled, it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.target,)


def test_a_pickle_that_is_not_the_official_one_is_never_opened(folder):
    for file in [f for f in folder.iterdir() if "meta" not in f.name]:
        file.write_bytes(pickle.dumps(Malicious(folder / "opened")))
    with pytest.raises(DataError, match=r"has the MD5 [0-9a-f]{32}: expected [0-9a-f]{32}; delete it") as caught:
        dataset(folder).load()
    assert not (folder / "opened").exists()
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_named(folder):
    file = next(f for f in sorted(folder.iterdir()) if "test" in f.name)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{file} has the MD5"):
        dataset(folder).load()


@pytest.mark.parametrize("folder", ["CIFAR10"], indirect=True)
def test_official_files_with_other_contents_are_refused(folder, monkeypatch):
    def deliver(content: bytes) -> None:
        (folder / "test_batch").write_bytes(content)
        monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", md5(content)]])

    deliver(batch_of("CIFAR10", 0, 2, shift=1))
    with pytest.raises(DataError, match="holds the labels 1 to 10: expected 0 to 9"):
        dataset(folder).load()
    deliver(pickle.dumps({"data": np.zeros((4, 3072), np.uint8), "labels": [0, 1]}))
    with pytest.raises(DataError, match="holds 2 labels: expected 4"):
        dataset(folder).load()
    deliver(pickle.dumps({"data": np.zeros((4, 3072)), "labels": [0, 1, 2, 3]}))
    with pytest.raises(DataError, match=r"float64 of shape .* expected uint8, N x 3x32x32"):
        dataset(folder).load()


def archived(folder: Path) -> bytes:
    """The folder as an archive; afterwards it is gone."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        archive.add(folder, folder.name)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    return content.getvalue()


def test_an_archive_is_unpacked(folder, monkeypatch):
    source, before = getattr(datasets, name_of(folder)), dataset(folder, validation=0.25).load()
    content = archived(folder)
    (folder.parent / source.filename).write_bytes(content)
    monkeypatch.setattr(source, "tgz_md5", md5(content))
    after = dataset(folder, validation=0.25).load()
    assert torch.equal(after.train.values, before.train.values)
    assert folder.is_dir()


def test_a_truncated_archive_is_named_and_leaves_nothing(folder):
    source = getattr(datasets, name_of(folder))
    file = folder.parent / source.filename
    file.write_bytes(archived(folder)[:-20])
    with pytest.raises(DataError, match=f"{file} has the MD5 .* expected {source.tgz_md5}"):
        dataset(folder).load()
    assert [*folder.parent.iterdir()] == [file]


@pytest.mark.parametrize("folder", ["CIFAR10"], indirect=True)
def test_a_download_is_verified_and_unpacked(folder, monkeypatch):
    content = archived(folder)
    asked = []

    def deliver(url, root, filename, md5):
        asked.append((url, md5))
        (Path(root) / filename).write_bytes(content)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", deliver)
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz has the MD5"):
        dataset(folder, download=True).load()
    official, url = datasets.CIFAR10.tgz_md5, datasets.CIFAR10.url
    (folder.parent / datasets.CIFAR10.filename).unlink()
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(content))
    assert len(dataset(folder, download=True, validation=0.25).load().test) == 20
    assert asked == [(url, official), (url, md5(content))]


def test_a_download_that_fails_is_reported(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", unreachable)
    with pytest.raises(DataError, match=r"cannot download cifar-100-python\.tar\.gz to .*no route to host") as caught:
        Images(Cifar100(), root=str(tmp_path), download=True).load()
    assert "\n" not in str(caught.value)
