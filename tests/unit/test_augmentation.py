"""Augmentations in batch against the same on one sample, and against torchvision."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import functional

from snnrobust.data.augmentation import NONE, Augmentation, Composed
from snnrobust.data.image_augmentation import Crop, Cutout, Flip, ResizedCrop
from snnrobust.randomness import hashed_integers, hashed_uniform

torch.set_num_threads(1)

STREAM = ("augmentation", 3, 7)
EVERY: dict[str, Augmentation] = {
    "none": NONE,
    "crop": Crop(2),
    "flip": Flip(),
    "cutout": Cutout(4, (0.2, 0.4, 0.6)),
    "resized": ResizedCrop(),
    "all": Composed({"crop": Crop(2), "flip": Flip(), "cutout": Cutout(4)}),
}


def images(number: int = 40, shape: tuple[int, ...] = (3, 9, 7)) -> Tensor:
    """Random pixels, none of them 0."""
    return 0.1 + 0.9 * torch.rand(number, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("shape", [(3, 9, 7), (4, 3, 8, 8)])
def test_shape_range_and_input_are_kept(name, shape):
    x = images(shape=shape)
    before = x.clone()
    out = EVERY[name](x, torch.arange(len(x)), *STREAM)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert torch.equal(x, before)
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.equal(out, x) == (name == "none")


@pytest.mark.parametrize("name", EVERY)
def test_a_sample_is_changed_alike_in_any_batch_and_order(name):
    x, index = images(), torch.arange(40) + 100
    whole = EVERY[name](x, index, *STREAM)
    chosen = torch.tensor([31, 4, 17])
    assert torch.equal(EVERY[name](x[chosen], index[chosen], *STREAM), whole[chosen])
    assert torch.equal(EVERY[name](x[5:6], index[5:6], *STREAM)[0], whole[5])


@pytest.mark.parametrize("name", set(EVERY) - {"none"})
def test_another_epoch_changes_samples_otherwise(name):
    x, index = images(), torch.arange(40)
    assert not torch.equal(EVERY[name](x, index, "a", 0, 1), EVERY[name](x, index, "a", 0, 2))


@pytest.mark.parametrize("name", EVERY)
def test_all_frames_of_a_recording_are_changed_alike(name):
    frame = images(shape=(1, 3, 8, 8))
    out = EVERY[name](frame.expand(-1, 4, -1, -1, -1), torch.arange(40), *STREAM)
    assert torch.equal(out, out[:, :1].expand_as(out))
    assert torch.equal(out[:, 0], EVERY[name](frame[:, 0], torch.arange(40), *STREAM))


def test_draws_and_global_streams_are_apart():
    state = torch.get_rng_state()
    EVERY["all"](images(), torch.arange(40), *STREAM)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("padding", [1, 4])
def test_a_crop_is_a_window_of_the_padded_image(padding):
    x, index = images(), torch.arange(40)
    out = Crop(padding)(x, index, *STREAM)
    places = hashed_integers(index, (2 * padding + 1, 2 * padding + 1), *STREAM).tolist()
    for picture, found, (top, left) in zip(x, out, places, strict=True):
        padded = functional.pad(picture, [padding])
        assert torch.equal(found, functional.crop(padded, top, left, 9, 7))


def test_every_place_of_a_crop_is_met():
    x = torch.zeros(3000, 1, 5, 5)
    x[:, :, 2, 2] = 1
    out = Crop(2)(x, torch.arange(3000), *STREAM)
    counts = out.sum(0)[0]
    assert counts.sum() == 3000
    assert (counts - 120).abs().max() < 5 * np.sqrt(120)


def test_torchvision_crops_cover_the_same_windows():
    """Both meet the same 25 windows of one image, and no others."""
    x = torch.rand(1, 6, 6) + 0.1
    ours = Crop(2)(x.expand(1500, 1, 6, 6), torch.arange(1500), *STREAM)
    torch.manual_seed(0)
    theirs = torch.stack([transforms.RandomCrop(6, padding=2)(x) for _ in range(600)])
    assert torch.equal(ours.unique(dim=0), theirs.unique(dim=0))
    assert len(ours.unique(dim=0)) == 25


@pytest.mark.parametrize(("probability", "low", "high"), [(0.0, 0, 0), (1.0, 2000, 2000), (0.5, 888, 1112)])
def test_flips_are_mirror_images_of_so_many(probability, low, high):
    x = images(2000, (1, 3, 4))
    out = Flip(probability)(x, torch.arange(2000), *STREAM)
    mirrored = (hashed_uniform(torch.arange(2000), 1, *STREAM) < probability)[:, 0]
    assert low <= int(mirrored.sum()) <= high
    expected = torch.stack([functional.hflip(a) if m else a for a, m in zip(x, mirrored.tolist(), strict=True)])
    assert torch.equal(out, expected)


@pytest.mark.parametrize(
    ("length", "fill"), [(1, (0.0,)), (2, (0.0,)), (4, (0.1, 0.2, 0.3)), (5, (0.5,)), (40, (0.0,))]
)
def test_cutout_is_the_clipped_square_around_the_centre(length, fill):
    x, index = images(), torch.arange(40)
    out = Cutout(length, fill)(x, index, *STREAM)
    expected = x.clone()
    for picture, (row, column) in zip(expected, hashed_integers(index, (9, 7), *STREAM).tolist(), strict=True):
        top, bottom = max(row - length // 2, 0), min(row - length // 2 + length, 9)
        left, right = max(column - length // 2, 0), min(column - length // 2 + length, 7)
        for channel, plane in enumerate(picture):
            plane[top:bottom, left:right] = fill[channel % len(fill)]
    assert torch.equal(out, expected)


@pytest.mark.parametrize(
    ("augmentation", "message"),
    [
        (Cutout(4, (0.1, 0.2)), "fill: got 2 values; allowed: one for all, or 3, one per channel"),
        (Cutout(4, ()), "fill: got 0 values; allowed: one for all, or 3, one per channel"),
        (Crop(8), "padding: got 8; allowed: up to 7, the size of the image"),
        (ResizedCrop((1.0, 0.5)), "scale: got 1 to 0.5; allowed: the smaller one first"),
        (Composed({"a": Composed({"b": Crop(8)})}), "operations.a.operations.b.padding: got 8; allowed: up to 7,"),
    ],
)
def test_settings_that_do_not_fit_the_image_are_named(augmentation, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        augmentation(images(), torch.arange(40))


def windows(augmentation: ResizedCrop, index: Tensor, height: int, width: int) -> list[list[int]]:
    """Top, left, height and width of the windows, from the documented draws, in Python's numbers."""
    found = []
    for place_y, place_x, *tries in hashed_uniform(index, 22, *STREAM).double().tolist():
        size = (height, width)
        for area, ratio in zip(tries[::2], tries[1::2], strict=True):
            low, high = np.log(augmentation.ratio)
            pixels = height * width * (augmentation.scale[0] + area * (augmentation.scale[1] - augmentation.scale[0]))
            aspect = np.exp(low + ratio * (high - low))
            tried = round(np.sqrt(pixels / aspect)), round(np.sqrt(pixels * aspect))
            if 1 <= tried[0] <= height and 1 <= tried[1] <= width:
                size = tried
                break
        found.append([int(place_y * (height - size[0] + 1)), int(place_x * (width - size[1] + 1)), *size])
    return found


@pytest.mark.parametrize("augmentation", [ResizedCrop(), ResizedCrop((0.5, 1.0), (1.0, 1.0)), ResizedCrop((1.0, 1.0))])
@pytest.mark.parametrize("size", [(16, 16), (12, 20)])
def test_a_resized_crop_is_torchvisions(augmentation, size):
    x, index = images(60, (3, *size)), torch.arange(60)
    out = augmentation(x, index, *STREAM)
    boxes = windows(augmentation, index, *size)
    for picture, found, box in zip(x, out, boxes, strict=True):
        expected = functional.resized_crop(picture, *box, list(size), antialias=False)
        assert torch.allclose(found, expected, atol=2e-6)
    assert len({tuple(box) for box in boxes}) > 5 or augmentation.scale == (1.0, 1.0)


def test_the_windows_of_a_resized_crop_have_the_sizes_of_torchvisions():
    torch.manual_seed(0)
    x = torch.zeros(3, 32, 32)
    theirs = torch.tensor(
        [transforms.RandomResizedCrop.get_params(x, [0.08, 1.0], [3 / 4, 4 / 3])[2:] for _ in range(2000)]
    )
    ours = torch.tensor(windows(ResizedCrop(), torch.arange(2000), 32, 32))[:, 2:]
    for power in (1.0, 2.0):
        mine, others = ((sizes.double() / 32).pow(power).mean(0) for sizes in (ours, theirs))
        assert torch.allclose(mine, others, atol=0.03)


def test_operations_are_applied_in_order_each_with_its_stream():
    x, index = images(), torch.arange(40)
    step = Crop(2)(x, index, *STREAM, "crop")
    step = Flip()(step, index, *STREAM, "flip")
    expected = Cutout(4)(step, index, *STREAM, "cutout")
    assert torch.equal(EVERY["all"](x, index, *STREAM), expected)
    other: Any = Composed({"cutout": Cutout(4), "flip": Flip(), "crop": Crop(2)})
    assert not torch.equal(other(x, index, *STREAM), expected)
