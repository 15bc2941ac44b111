"""What all image datasets share, by the example of MNIST and Fashion-MNIST on tiny files of the same format."""

import gzip
import hashlib
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import datasets

from snnrobust.building import instantiate
from snnrobust.config import compose
from snnrobust.data.augmentation import Composed
from snnrobust.data.dataset import DataError, balanced
from snnrobust.data.event_augmentation import DropSteps
from snnrobust.data.image_augmentation import Cutout
from snnrobust.data.images import Images
from snnrobust.data.mnist import FILES, FashionMnist, Mnist

torch.set_num_threads(1)

TRAIN, TEST = 200, 60
SHARED = Path("../shared/data")


def write_idx(file: Path, array: np.ndarray) -> None:
    header = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    file.write_bytes(header + array.astype(np.uint8).tobytes())


def labels_of(number: int) -> np.ndarray:
    return np.arange(number) % 10


def pictures_of(number: int) -> np.ndarray:
    """Every image has its own number in its first pixel and its label in the last."""
    pictures = np.zeros((number, 28, 28))
    pictures[:, 0, 0], pictures[:, -1, -1] = np.arange(number), labels_of(number)
    return pictures


@pytest.fixture(params=["MNIST", "FashionMNIST"])
def folder(tmp_path, request) -> Path:
    raw = tmp_path / request.param / "raw"
    raw.mkdir(parents=True)
    for part, number in (("train", TRAIN), ("t10k", TEST)):
        write_idx(raw / f"{part}-images-idx3-ubyte", pictures_of(number))
        write_idx(raw / f"{part}-labels-idx1-ubyte", labels_of(number))
    return raw


def source(folder: Path, **settings) -> Images:
    chosen = Mnist if folder.parent.name == "MNIST" else FashionMnist
    return Images(chosen(), root=str(folder.parents[1]), mean=(0.3,), std=(0.4,), **settings)


def test_files_load_and_the_parts_cover_them(folder):
    mnist = source(folder)
    splits = mnist.load()
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [180, 20, TEST]
    for split in (splits.train, splits.validation, splits.test):
        assert split.values.dtype == torch.uint8
        assert split.values.shape[1:] == mnist.shape
        assert torch.equal(split.values[:, 0, -1, -1].long(), split.labels)
        assert split.scale == 255
    numbers = torch.cat([splits.train.values, splits.validation.values])[:, 0, 0, 0]
    assert sorted(numbers.tolist()) == list(range(TRAIN))
    assert (splits.validation.labels.bincount() == 2).all()
    assert torch.equal(splits.test.values[:, 0, 0, 0].long(), torch.arange(TEST))


def test_limits_are_balanced_and_leave_the_validation_part_alone(folder):
    whole, limited = source(folder).load(), source(folder, train_limit=43, test_limit=20).load()
    counts = limited.train.labels.bincount(minlength=10)
    assert len(limited.train) == 43
    assert int(counts.max() - counts.min()) == 1
    assert (limited.test.labels.bincount() == 2).all()
    assert torch.equal(limited.validation.values, whole.validation.values)
    assert len(source(folder, train_limit=10_000).load().train) == 180


def test_a_smaller_limit_is_a_subset_of_a_larger_one():
    labels = torch.from_numpy(np.random.default_rng(0).integers(10, size=500))
    small, large = (set(balanced(labels, limit, seed=1).tolist()) for limit in (33, 100))
    assert len(small) == 33
    assert small < large
    assert torch.equal(balanced(labels, None, seed=1), torch.arange(500))


def test_small_classes_are_used_up():
    labels = torch.tensor([0] * 3 + [1] * 50)
    assert labels[balanced(labels, 20, seed=0)].bincount().tolist() == [3, 17]


def test_absent_files_are_named(folder):
    (folder / FILES[1]).unlink()
    with pytest.raises(DataError) as caught:
        source(folder).load()
    message = str(caught.value)
    assert str(folder) in message
    assert "train-labels-idx1-ubyte" in message
    assert "t10k" not in message
    assert "dataset.download=true" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("length", [0, 3, 9, -1])
def test_a_truncated_file_is_named(folder, name, length):
    file = folder / name
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(DataError) as caught:
        source(folder, download=True).load()
    assert f"{file} is damaged" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_with_other_contents_are_refused(folder):
    write_idx(folder / FILES[1], labels_of(TRAIN - 1))
    with pytest.raises(DataError, match=f"{FILES[1]} holds 199 labels: expected 200"):
        source(folder).load()
    write_idx(folder / FILES[1], labels_of(TRAIN) + 1)
    with pytest.raises(DataError, match="holds the label 10: expected 0 to 9"):
        source(folder).load()
    write_idx(folder / FILES[0], np.zeros((TRAIN, 27, 28)))
    with pytest.raises(DataError, match="images of 27x28 pixels: expected 28x28"):
        source(folder).load()
    (folder / FILES[0]).write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match="is damaged: its header is 3c 68 74 6d"):
        source(folder).load()


def test_a_download_that_fails_is_reported(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", unreachable)
    with pytest.raises(DataError, match=r"cannot download MNIST .*no route to host") as caught:
        source(tmp_path / "MNIST" / "raw", download=True).load()
    assert "\n" not in str(caught.value)


def test_a_download_puts_the_files_where_they_are_read(folder, monkeypatch):
    held = {name: (folder / name).read_bytes() for name in FILES}
    for name in FILES:
        (folder / name).unlink()

    def deliver(_url, download_root, filename, md5):
        (Path(download_root) / filename.removesuffix(".gz")).write_bytes(held[filename.removesuffix(".gz")])

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", deliver)
    assert len(source(folder, download=True).load().train) == 180


def test_compressed_files_are_unpacked_if_they_are_the_official_ones(folder, monkeypatch):
    before, known = source(folder).load(), getattr(datasets, folder.parent.name)
    for name in FILES:
        with gzip.open(folder / f"{name}.gz", "wb") as archive:
            archive.write((folder / name).read_bytes())
        (folder / name).unlink()
    with pytest.raises(
        DataError, match=rf"{FILES[0]}\.gz has the MD5 .* expected {dict(known.resources)[FILES[0] + '.gz']}"
    ):
        source(folder).load()
    digests = {f.name: hashlib.md5(f.read_bytes(), usedforsecurity=False).hexdigest() for f in folder.iterdir()}
    monkeypatch.setattr(known, "resources", [*digests.items()])
    after = source(folder).load()
    assert torch.equal(after.train.values, before.train.values)
    assert sorted(file.name for file in folder.iterdir()) == sorted([*FILES, *digests])


def test_statistics_have_one_value_per_channel():
    with pytest.raises(ValueError, match=r"^mean: got 3 values; allowed: 1, one per channel of MNIST$"):
        Images(Mnist(), mean=(0.1, 0.2, 0.3), std=(0.1,))
    with pytest.raises(ValueError, match=r"^std: got 0 values; allowed: 1, one per channel of Fashion-MNIST$"):
        Images(FashionMnist(), mean=(0.1,), std=())


def test_an_augmentation_that_does_not_fit_is_named_before_any_file_is_read():
    with pytest.raises(
        ValueError, match=r"^augmentation\.operations\.cutout\.fill: got 3 values; allowed: one for all"
    ):
        Images(Mnist(), mean=(0.3,), std=(0.4,), augmentation=Composed({"cutout": Cutout(4, (0.1, 0.2, 0.3))}))
    with pytest.raises(ValueError, match=r"^augmentation\.operations\.steps\.probability: got images"):
        Images(Mnist(), mean=(0.3,), std=(0.4,), augmentation=Composed({"steps": DropSteps()}))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real files are not here")
def test_the_real_fashion_mnist_has_the_stated_statistics():
    mnist = instantiate(
        "dataset", compose("config", ["dataset=fashion_mnist", f"dataset.root={SHARED}"]).config["dataset"]
    )
    splits = mnist.load()
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [54_000, 6_000, 10_000]
    values = torch.cat([splits.train.values, splits.validation.values]).double() / 255
    assert float(values.mean()) == pytest.approx(mnist.mean[0], abs=5e-5)
    assert float(values.std()) == pytest.approx(mnist.std[0], abs=5e-5)


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_torchvision_has_the_same_files(name):
    known = [file.removesuffix(".gz") for file, _ in getattr(datasets, name).resources]
    assert sorted(known) == sorted(FILES)
