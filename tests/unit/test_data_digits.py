"""The digits as images, and stratified splits."""

import pytest
import torch

from snnrobust.data.dataset import DataError, stratified
from snnrobust.data.digits import Digits, read

torch.set_num_threads(1)


def test_parts_are_disjoint_stratified_and_cover_everything():
    labels = read()[1]
    parts = stratified(labels, (0.2, 0.1), seed=5)
    together = torch.cat(parts)
    assert len(together) == len(labels)
    assert len(together.unique()) == len(labels)
    for part, fraction in zip(parts, (0.2, 0.1, 0.7), strict=True):
        for label in range(10):
            members = int((labels == label).sum())
            assert abs(int((labels[part] == label).sum()) - fraction * members) <= 1


def test_the_seed_decides_the_split():
    labels = read()[1]
    first, again, other = (stratified(labels, (0.2,), seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_class_that_is_too_small_is_reported():
    message = r"^class 1 has 2 samples, of which the parts would have 0 \+ 2: .* set dataset.validation .*"
    with pytest.raises(DataError, match=message):
        stratified(torch.tensor([0] * 20 + [1] * 2), (0.2,), seed=0)


def test_digits_load_whole_and_in_range():
    source = Digits()
    splits = source.load()
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 1797
    assert splits.train.values.shape[1:] == source.shape
    x = splits.train.batch(torch.arange(len(splits.train))).x
    assert x.min() == 0
    assert x.max() == 1
    assert x.mean() == pytest.approx(source.mean[0], abs=5e-3)
    assert x.std() == pytest.approx(source.std[0], abs=5e-3)
