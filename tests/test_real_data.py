"""Real files, where they are at hand: read, converted and trained on."""

import json
from pathlib import Path

import pytest

from snnrobust.cli import main

ROOTS = [root for root in (Path("data"), Path("../shared/data")) if root.is_dir()]
CASES = {
    "FashionMNIST/raw": ("dataset=fashion_mnist", "dataset.train_limit=2000", "model.channels=[8,16]"),
    "cifar10/meta.npz": ("dataset=cifar10_sprites", "dataset.train_limit=2000", "model.channels=[8,16]"),
    "NMNIST/Train": ("dataset=nmnist", "dataset.recordings.partial=true", "model.channels=[8,16]"),
}
"""What has to be there, and how it is trained on."""


@pytest.mark.long
@pytest.mark.parametrize("place", CASES)
def test_a_network_learns_from_real_files(place, tmp_path):
    root = next((root for root in ROOTS if (root / place).exists()), None)
    if root is None:
        pytest.skip(f"{place} is not here")
    validation = () if place.startswith("NMNIST") else ("dataset.validation=0.02", "dataset.test_limit=200")
    settings = (f"dataset.root={root}", *validation, "encoder.steps=4", "regularizer=none", "training.epochs=3")
    where = (f"runs={tmp_path}", "tracker=none", "device=cpu", "threads=1")
    cache = (f"dataset.cache={tmp_path / 'cache'}",) if place.startswith("NMNIST") else ()
    assert main(["train", *CASES[place], *settings, *where, *cache]) == 0
    (results,) = (json.loads(file.read_text()) for file in tmp_path.glob("*/results.json"))
    metrics = results["metrics"]
    assert metrics["clean_accuracy"] > 0.25  # chance is a tenth
    assert metrics["worst_accuracy"] <= metrics["fgsm_accuracy"] <= metrics["clean_accuracy"]
    assert (results["split_digests"] != {}) == place.startswith("NMNIST")
