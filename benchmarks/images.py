"""Images per second that reach a training step: whole tensors and batched augmentation against a DataLoader.

Both deliver every image once per epoch in a new order, cropped from a border of 4 pixels of zeros and mirrored with
probability 1/2, in batches of 128, as float tensors in [0, 1]. The pixels are random: neither side looks at them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import CIFAR10

from benchmarks.pairs import Timing, measure
from snnrobust.data.augmentation import Composed
from snnrobust.data.dataset import Split
from snnrobust.data.image_augmentation import Crop, Flip
from snnrobust.randomness import generator

IMAGES = 50_000
BATCH = 128
WORKERS = 2
ROUNDS = 3


def theirs(images: Tensor, labels: Tensor) -> Callable[[], int]:
    """An epoch of torchvision's pipeline, as its documentation writes it, with workers that stay."""
    changed = transforms.Compose(
        [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    )
    dataset = CIFAR10.__new__(CIFAR10)  # its way of reading a sample, without its files
    dataset.data, dataset.targets = images.permute(0, 2, 3, 1).contiguous().numpy(), labels.tolist()
    dataset.transform, dataset.target_transform = changed, None
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        dataset, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True
    )
    return lambda: sum(len(x) for x, _ in loader)


def ours(images: Tensor, labels: Tensor) -> Callable[[], int]:
    """An epoch as the training loop makes it."""
    split = Split(images, labels, 255)
    augmentation = Composed({"crop": Crop(4), "flip": Flip(0.5)})
    epochs = iter(range(10**6))

    def epoch() -> int:
        number, delivered = next(epochs), 0
        for index in torch.randperm(len(split), generator=generator("order", 0, number)).split(BATCH):
            batch = split.batch(index)
            delivered += len(augmentation(batch.x, index, "augmentation", 0, number))
        return delivered

    return epoch


def measured() -> list[Timing]:
    draw = np.random.default_rng(0)
    images = torch.from_numpy(draw.integers(256, size=(IMAGES, 3, 32, 32)).astype(np.uint8))
    labels = torch.from_numpy(draw.integers(10, size=IMAGES))
    pipelines = {
        f"torchvision, DataLoader with {WORKERS} workers": theirs(images, labels),
        "snnrobust, one thread": ours(images, labels),
    }
    assert all(epoch() == IMAGES for epoch in pipelines.values())
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measure(pipelines, rounds=ROUNDS, warmup=0)
    finally:
        torch.set_num_threads(before)


def delivery() -> list[str]:
    """Lines of a table."""
    rows = [
        f"| {t.name} | {1e3 * IMAGES / t.median:,.0f} | {1e3 * IMAGES / t.highest:,.0f} - "
        f"{1e3 * IMAGES / t.lowest:,.0f} | {1 / t.ratio:.1f} |"
        for t in measured()
    ]
    return [
        f"### {IMAGES:,} random images of 3x32x32: shuffled, cropped, mirrored, batches of {BATCH}",
        "",
        "| | images per second, median | range | times as fast as the first |",
        "|---|---:|---:|---:|",
        *rows,
        "",
    ]


if __name__ == "__main__":
    print("\n".join(delivery()))
