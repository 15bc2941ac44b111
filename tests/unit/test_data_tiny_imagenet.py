"""Tiny-ImageNet on a few pictures in the folders of the official zip."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from snnrobust.data import tiny_imagenet
from snnrobust.data.dataset import DataError
from snnrobust.data.images import Images
from snnrobust.data.tiny_imagenet import TinyImageNet

torch.set_num_threads(1)

NAMES = ("n02", "n01", "n10")
PER_CLASS = 8
TEST = 6


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(tiny_imagenet, "CLASSES", len(NAMES))
    monkeypatch.setattr(tiny_imagenet, "TRAIN_PER_CLASS", PER_CLASS)
    monkeypatch.setattr(tiny_imagenet, "TEST", TEST)


def draw(path: Path, seed: int, mode: str = "RGB", kind: str = "JPEG") -> None:
    shape = (64, 64) if mode == "L" else (64, 64, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(256, size=shape).astype(np.uint8)
    Image.fromarray(pixels, mode).save(path, kind)


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "data" / "tiny-imagenet-200"
    for number, name in enumerate(NAMES):
        for i in range(PER_CLASS):
            path = folder / "train" / name / "images" / f"{name}_{i}.JPEG"
            draw(path, 100 * number + i, "L" if i == 3 else "RGB", "PNG" if i == 4 else "JPEG")
    lines = []
    for i in reversed(range(TEST)):
        draw(folder / "val" / "images" / f"val_{i}.JPEG", 1000 + i)
        lines.append(f"val_{i}.JPEG\t{NAMES[i % 3]}\t0\t0\t62\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return folder


def source(folder: Path, **settings) -> Images:
    places = {"root": str(folder.parent), "cache": str(folder.parents[1] / "cache")}
    return Images(TinyImageNet(), validation=0.25, **{**places, **settings})


def test_pictures_load_as_pil_decodes_them(folder):
    splits = source(folder).load()
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [18, 6, 6]
    assert splits.validation.labels.bincount().tolist() == [2, 2, 2]
    theirs = ImageFolder(folder / "train")
    expected = {np.asarray(picture).transpose(2, 0, 1).tobytes(): label for picture, label in theirs}
    for split in (splits.train, splits.validation):
        assert split.values.dtype == torch.uint8
        assert split.values.shape[1:] == (3, 64, 64)
        for picture, label in zip(split.values, split.labels.tolist(), strict=True):
            assert expected.pop(picture.numpy().tobytes()) == label
    assert not expected
    for i, (picture, label) in enumerate(zip(splits.test.values, splits.test.labels.tolist(), strict=True)):
        with Image.open(folder / "val" / "images" / f"val_{TEST - 1 - i}.JPEG") as original:
            assert np.array_equal(picture.numpy(), np.asarray(original).transpose(2, 0, 1))
        assert label == {"n01": 0, "n02": 1, "n10": 2}[NAMES[(TEST - 1 - i) % 3]]


def test_pictures_are_decoded_once(folder, monkeypatch):
    first = source(folder).load()
    with monkeypatch.context() as patch:
        patch.setattr(tiny_imagenet, "_decoded", lambda _part: pytest.fail("decoded again"))
        second = source(folder, train_limit=9).load()
    assert torch.equal(second.test.values, first.test.values)
    assert second.train.labels.bincount().tolist() == [3, 3, 3]


def test_other_pictures_are_decoded_anew(folder):
    before = source(folder).load()
    path = folder / "val" / "images" / "val_5.JPEG"
    size = path.stat().st_size
    draw(path, 7, "L")
    assert path.stat().st_size != size
    after = source(folder).load()
    assert not torch.equal(after.test.values[0], before.test.values[0])
    assert torch.equal(after.test.values[1:], before.test.values[1:])


def test_a_cache_that_cannot_be_written_is_named_with_its_setting(folder):
    file = folder.parents[1] / "file"
    file.touch()
    with pytest.raises(DataError, match=r"^cannot write the cache .*file/tiny_imagenet: .*\(dataset\.cache\)$"):
        source(folder, cache=str(file)).load()


def refused(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        source(folder).load()
    message = str(caught.value)
    assert "\n" not in message
    assert not [*(folder.parents[1] / "cache").rglob("*.npy")]
    return message


def test_an_absent_folder_is_named_with_its_archive(tmp_path):
    with pytest.raises(DataError, match=r"tiny-imagenet-200 is absent: .*\.zip \(MD5 90528d7.*cs231n\.stanford\.edu"):
        Images(TinyImageNet(), root=str(tmp_path)).load()


def test_a_broken_picture_is_named(folder):
    path = folder / "train" / "n02" / "images" / "n02_5.JPEG"
    path.write_bytes(path.read_bytes()[:700])
    assert f"{path} is damaged: image file is truncated" in refused(folder)
    path.write_bytes(b"<html>not found</html>")
    assert f"{path} is damaged: cannot identify image file" in refused(folder)


def test_a_picture_of_another_size_is_named(folder):
    path = folder / "val" / "images" / "val_0.JPEG"
    Image.new("RGB", (64, 63)).save(path, "JPEG")
    assert f"{path} has 64x63 pixels: expected 64x64" in refused(folder)


def test_a_missing_picture_is_noticed(folder):
    (folder / "train" / "n02" / "images" / "n02_5.JPEG").unlink()
    assert f"{folder}/train/n02/images holds 7 pictures: expected 8" in refused(folder)
    shutil.rmtree(folder / "train" / "n01")
    assert f"{folder}/train/n01/images holds no .JPEG file" in refused(folder)


def test_annotations_that_are_too_short_are_noticed(folder):
    file = folder / "val" / "val_annotations.txt"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))
    assert "0 of its files are absent, 1 have no line" in refused(folder)
    file.write_text("".join([*lines[:-1], "val_9.JPEG\tn01\t0\t0\t62\t62\n"]))
    assert "1 of its files are absent, 1 have no line" in refused(folder)
    file.write_text("".join([*lines[:-1], "val_0.JPEG\tn11\t0\t0\t62\t62\n"]))
    assert f"{file}, line 6: got 'val_0.JPEG\\tn11" in refused(folder)
    file.write_text("".join([*lines[:-1], "../../../secret.JPEG\tn01\n"]))
    assert f"{file}, line 6" in refused(folder)
    file.write_bytes(b"\xff\xfe")
    assert f"cannot read {file}: not a text" in refused(folder)
    file.unlink()
    assert f"cannot read {file}: No such file" in refused(folder)


def test_a_missing_class_is_noticed(folder):
    (folder / "wnids.txt").write_text("n01\nn02\n")
    assert "wnids.txt names 2 classes: expected 3" in refused(folder)


def test_the_archive_is_unpacked(folder, monkeypatch):
    before = source(folder).load()
    archive = Path(shutil.make_archive(str(folder), "zip", folder.parent, folder.name))
    shutil.rmtree(folder)
    with pytest.raises(DataError, match=r"\.zip has the MD5 .* expected 90528d7ca1a48142e341f4ef8d21d0de"):
        source(folder).load()
    digest = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(tiny_imagenet, "MD5", digest)
    assert torch.equal(source(folder).load().test.values, before.test.values)
