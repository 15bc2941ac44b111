"""CIFAR-10 as sprites: small ones that the tests write, and the real ones where they are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from snnrobust.building import instantiate
from snnrobust.config import compose
from snnrobust.data import sprites
from snnrobust.data.dataset import DataError
from snnrobust.data.images import Images
from snnrobust.data.sprites import META, TEST, TRAIN, Cifar10Sprites

torch.set_num_threads(1)

SIDE = 6
"""Images per row and column of the small sprites."""
SHARED = Path("../shared/data")


def images_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(SIDE * SIDE, 3, 32, 32)).astype(np.uint8)


def write_sprite(file: Path, images: np.ndarray) -> None:
    rows = [np.concatenate([*row.transpose(0, 2, 3, 1)], axis=1) for row in images.reshape(SIDE, SIDE, 3, 32, 32)]
    Image.fromarray(np.concatenate(rows)).save(file, lossless=True, method=0)


def write_meta(file: Path, **changes: Any) -> None:
    number = {"train": 5 * SIDE * SIDE, "test": SIDE * SIDE}
    content: dict[str, Any] = {f"y_{part}": (np.arange(n) % 10).astype(np.uint8) for part, n in number.items()}
    content |= {f"lossless_{part}": np.arange(n) >= 4 for part, n in number.items()}
    np.savez(file, **(content | changes))


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(sprites, "GRID", SIDE)
    folder = tmp_path / "cifar10"
    folder.mkdir()
    for number, name in enumerate((*TRAIN, *TEST)):
        write_sprite(folder / name, images_of(number))
    write_meta(folder / META)
    return folder


def source(folder: Path, lossless_only: bool = False, **settings: Any) -> Images:
    return Images(Cifar10Sprites(lossless_only), root=str(folder.parent), **settings)


def test_sprites_are_cut_row_by_row(folder):
    splits = source(folder).load()
    assert torch.equal(splits.test.values, torch.from_numpy(images_of(5)))
    assert splits.test.labels.tolist() == [i % 10 for i in range(36)]
    assert [len(splits.train), len(splits.validation)] == [160, 20]
    ours = {
        a.numpy().tobytes(): k
        for s in (splits.train, splits.validation)
        for a, k in zip(s.values, s.labels, strict=True)
    }
    expected = np.concatenate([images_of(i) for i in range(5)])
    assert [int(ours[picture.tobytes()]) for picture in expected] == [i % 10 for i in range(180)]


def test_inexact_images_can_be_left_out(folder):
    splits = source(folder, lossless_only=True).load()
    assert torch.equal(splits.test.values, torch.from_numpy(images_of(5)[4:]))
    assert splits.test.labels[0] == 4
    assert len(splits.train) + len(splits.validation) == 176


def refused(folder: Path, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        source(folder, **settings).load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_absent_files_are_named(folder):
    for name in ("train_3.webp", META):
        (folder / name).unlink()
    message = f"the CIFAR-10 sprites are not in {folder}: expected train_3.webp, meta.npz"
    assert refused(folder) == message
    assert refused(folder, download=True) == f"{message}; dataset.download=true cannot fetch them"


@pytest.mark.parametrize("length", [0, 20, 5000, -100])
def test_a_truncated_sprite_is_named(folder, length):
    file = folder / "train_3.webp"
    file.write_bytes(file.read_bytes()[:length])
    assert f"{file} is damaged: " in refused(folder)


def test_a_picture_of_another_size_or_format_is_named(folder):
    Image.new("RGB", (64, 64)).save(folder / "test.webp", lossless=True)
    assert "test.webp has 64x64 pixels: expected 192x192" in refused(folder)
    Image.new("RGB", (192, 192)).save(folder / "test.webp", "PNG")
    assert "test.webp is damaged: cannot identify image file" in refused(folder)


@pytest.mark.parametrize("length", [0, 10, 1000, -30])
def test_damaged_labels_are_named(folder, length):
    file = folder / META
    file.write_bytes(file.read_bytes()[:length])
    assert f"{file} is damaged: " in refused(folder)


def test_wrong_labels_are_refused(folder):
    write_meta(folder / META, y_train=np.zeros(179, np.uint8))
    assert "meta.npz is of 179 train images: expected 180" in refused(folder)
    write_meta(folder / META, y_test=np.arange(36).astype(np.uint8))
    assert "holds the labels 0 to 35: expected 0 to 9" in refused(folder)
    write_meta(folder / META, y_test=np.array([object()] * 36))
    assert "Object arrays cannot be loaded when allow_pickle=False" in refused(folder)
    np.savez(folder / META, y_train=np.zeros(1))
    assert "y_test" in refused(folder)


@pytest.mark.skipif(not (SHARED / "cifar10").is_dir(), reason="the real files are not here")
def test_the_real_sprites_have_the_stated_statistics():
    overrides = ["dataset=cifar10_sprites", f"dataset.root={SHARED}"]
    dataset = instantiate("dataset", compose("config", overrides).config["dataset"])
    splits = dataset.load()
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [45_000, 5_000, 10_000]
    assert (splits.test.labels.bincount() == 1000).all()
    grey = torch.arange(256).double() / 255
    whole = torch.cat([splits.train.values, splits.validation.values])
    counts = torch.stack([plane.flatten().bincount(minlength=256) for plane in whole.unbind(1)]).double()
    assert (counts @ grey / counts.sum(1)).tolist() == pytest.approx(dataset.mean, abs=5e-5)
    within = splits.validation.values.flatten(2).float().div_(255).std(2).mean(0)
    assert within.tolist() == pytest.approx(dataset.std, abs=2e-3)
