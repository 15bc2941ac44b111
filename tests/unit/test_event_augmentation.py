"""Augmentations of event frames against the same done sample by sample."""

from math import cos, radians, sin

import pytest
import torch

from snnrobust.config import compose
from snnrobust.data.augmentation import Augmentation, Composed
from snnrobust.data.event_augmentation import DropCells, DropSteps, OneOf, Rotate
from snnrobust.data.image_augmentation import Crop, Cutout, Flip
from snnrobust.randomness import hashed_integers, hashed_uniform

NDA = Composed({"flip": Flip(), "one": OneOf({"shift": Crop(5), "rotate": Rotate(), "cutout": Cutout(8)})})
ALL = {"rotate": Rotate(), "steps": DropSteps(0.3), "cells": DropCells(0.3), "nda": NDA}
STREAM = ("augmentation", 0, 3)


def frames(batch: int = 16, height: int = 12, width: int = 16) -> torch.Tensor:
    """Counts of 0 to 5, divided by 5."""
    return torch.randint(6, (batch, 3, 2, height, width), generator=torch.Generator().manual_seed(0)) / 5


@pytest.mark.parametrize("augmentation", ALL.values(), ids=ALL)
def test_a_sample_is_changed_in_the_same_way_whatever_stands_beside_it(augmentation: Augmentation):
    x, index = frames(), torch.arange(16) * 7
    before = x.clone()
    whole = augmentation(x, index, *STREAM)
    assert torch.equal(x, before)
    assert whole.shape == x.shape
    assert not torch.equal(whole, x)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(augmentation(x[order], index[order], *STREAM), whole[order])
    assert torch.equal(augmentation(x[3:4], index[3:4], *STREAM), whole[3:4])
    assert not torch.equal(augmentation(x, index, "augmentation", 0, 4), whole)


@pytest.mark.parametrize("augmentation", ALL.values(), ids=ALL)
def test_counts_stay_counts(augmentation: Augmentation):
    changed = augmentation(frames(), torch.arange(16), *STREAM)
    assert set(changed.unique().tolist()) <= set(frames().unique().tolist())


@pytest.mark.parametrize(("height", "width"), [(12, 16), (15, 15)])
def test_rotation_takes_the_nearest_pixel(height, width):
    x, index = frames(4, height, width), torch.arange(4)
    found = Rotate(40.0)(x, index, *STREAM)
    draws = hashed_uniform(index, 1, *STREAM)[:, 0]
    wrong = 0
    for sample in range(4):
        angle = radians(40.0) * (2 * float(draws[sample]) - 1)
        for row in range(height):
            for column in range(width):
                # From the middle, x to the right and y downwards.
                right, down = column - (width - 1) / 2, row - (height - 1) / 2
                u = cos(angle) * right - sin(angle) * down + (width - 1) / 2
                v = sin(angle) * right + cos(angle) * down + (height - 1) / 2
                if abs(u % 1 - 0.5) < 1e-4 or abs(v % 1 - 0.5) < 1e-4:
                    continue  # as near to one as to the other
                inside = 0 <= round(u) < width and 0 <= round(v) < height
                expected = x[sample, :, :, round(v), round(u)] if inside else torch.zeros(3, 2)
                wrong += not torch.equal(found[sample, :, :, row, column], expected)
    assert wrong == 0


def test_angles_cover_both_directions():
    x = torch.zeros(200, 1, 1, 21, 21)
    x[..., 10, 20] = 1  # at the right of the middle
    found = Rotate(30.0)(x, torch.arange(200), *STREAM)
    rows = found.nonzero()[:, 3]
    assert rows.min() < 7
    assert rows.max() > 13


def test_steps_and_cells_are_lost_at_their_rates():
    x = torch.ones(2000, 5, 2, 4, 4)
    steps = DropSteps(0.3)(x, torch.arange(2000), *STREAM)
    kept = steps.flatten(2).mean(2)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert float(kept.mean()) == pytest.approx(0.7, abs=0.02)
    cells = DropCells(0.2)(x, torch.arange(2000), *STREAM)
    assert float(cells.mean()) == pytest.approx(0.8, abs=0.01)
    assert cells.mean(0).min() > 0.7
    assert torch.equal(DropSteps(0.0)(x, torch.arange(2000), *STREAM), x)
    assert not DropCells(1.0)(x, torch.arange(2000), *STREAM).any()


def test_one_of_several_is_chosen_for_every_sample():
    x, index = frames(300), torch.arange(300)
    operations: dict[str, Augmentation] = {"flip": Flip(1.0), "none": DropSteps(0.0), "all": DropSteps(1.0)}
    found = OneOf(operations)(x, index, *STREAM)
    chosen = hashed_integers(index, (3,), *STREAM)[:, 0]
    for number, (name, operation) in enumerate(operations.items()):
        members = (chosen == number).nonzero().flatten()
        assert 70 < len(members) < 130
        assert torch.equal(found[members], operation(x[members], index[members], *STREAM, name))


def test_images_have_no_steps_to_lose():
    message = r"^operations\.a\.operations\.b\.probability: got images; allowed: event frames \[B, T, C, H, W\]"
    with pytest.raises(ValueError, match=message):
        Composed({"a": OneOf({"b": DropSteps()})})(torch.ones(2, 3, 8, 8), torch.arange(2), *STREAM)


def test_a_misfit_among_several_is_found_whichever_is_drawn():
    operations: dict[str, Augmentation] = {f"fits{i}": Flip() for i in range(8)}
    with pytest.raises(ValueError, match=r"^operations\.one\.operations\.late\.padding: got 9; allowed: up to 8"):
        Composed({"one": OneOf({**operations, "late": Crop(9)})}).refuse_misfit((3, 2, 8, 8))
    Composed({"one": OneOf(operations)}).refuse_misfit((3, 2, 8, 8))


def test_cells_are_drawn_alike_in_parts(monkeypatch):
    x, index = frames(), torch.arange(16)
    whole = DropCells(0.3)(x, index, *STREAM)
    monkeypatch.setattr("snnrobust.data.event_augmentation.DRAWS", 3 * x[0].numel() + 1)
    assert torch.equal(DropCells(0.3)(x, index, *STREAM), whole)


@pytest.mark.parametrize("dataset", ["nmnist", "dvs_gesture", "asl_dvs", "cifar10_dvs", "ncaltech101", "recordings"])
def test_nothing_is_mirrored_unless_asked_for(dataset):
    assert compose("config", [f"dataset={dataset}"]).choices["dataset/augmentation"] == "none"


def test_nda_without_mirror_images_has_none():
    def targets(node) -> set[str]:
        if not isinstance(node, dict):
            return set()
        own = {node["_target_"]} if "_target_" in node else set()
        return own | {t for value in node.values() for t in targets(value)}

    def chosen(choice: str) -> set[str]:
        config = compose("config", ["dataset=nmnist", f"dataset/augmentation={choice}"]).config
        return {target.rpartition(".")[2] for target in targets(config["dataset"]["augmentation"])}

    assert chosen("events_nda") == {"Composed", "Flip", "OneOf", "Crop", "Rotate", "Cutout"}
    assert chosen("events_nda_unmirrored") == {"OneOf", "Crop", "Rotate", "Cutout"}
