"""Checkpoints: whole, and without a way to run code."""

import errno
import io
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from snnrobust.training.checkpoint import FORMAT, Checkpoint, CheckpointError
from tests.contracts.toys import Toy


def checkpoint(model: torch.nn.Module, seed: int = 0) -> Checkpoint:
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return Checkpoint(f"signature{seed}", 3, {"validation_accuracy": 0.5}, {"train": 1.5}, {"git": None}, state)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "checkpoint.pt"


class Payload:
    """Creates a file as soon as it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_what_is_saved_is_loaded(path, classifier):
    saved = checkpoint(classifier)
    saved.save(path)
    loaded = Checkpoint.load(path)
    assert loaded.state.keys() == saved.state.keys()
    assert all(torch.equal(loaded.state[name], tensor) for name, tensor in saved.state.items())
    rest = {name: value for name, value in vars(loaded).items() if name != "state"}
    assert rest == {name: value for name, value in vars(saved).items() if name != "state"}


def test_a_restored_model_gives_the_same_logits(path, make_tiny, images):
    trained, fresh = make_tiny(seed=1), make_tiny(seed=2)
    checkpoint(trained).save(path)
    assert not torch.equal(fresh(images[0]), trained(images[0]))
    Checkpoint.load(path).restore(fresh, path)
    assert torch.equal(fresh(images[0]), trained(images[0]))


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(path, classifier, share):
    checkpoint(classifier).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path)


def test_flipped_bits_of_the_weights_are_refused(path, classifier):
    """Which torch itself loads without a word."""
    saved = checkpoint(classifier)
    saved.save(path)
    content = path.read_bytes()
    for tensor in saved.state.values():
        weights = tensor.numpy().tobytes()
        if len(weights) > 64:
            at = content.index(weights) + len(weights) // 2
            path.write_bytes(content[:at] + bytes([content[at] ^ 0x80]) + content[at + 1 :])
            torch.load(path, weights_only=True)
            assert "BadZipFile" in refused(path)


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes_are_refused(path, seed):
    path.write_bytes(random.Random(seed).randbytes(4000))
    refused(path)


def test_a_missing_file_and_a_folder_are_refused(path, tmp_path):
    assert refused(path).endswith("no such checkpoint")
    refused(tmp_path)


def test_code_in_a_checkpoint_is_refused_and_does_not_run(path, tmp_path):
    mark = tmp_path / "ran"
    torch.save({"format": FORMAT, "payload": Payload(mark)}, path)
    refused(path)
    assert not mark.exists()


def test_code_in_a_plain_pickle_is_refused_and_does_not_run(path, tmp_path):
    mark = tmp_path / "ran"
    path.write_bytes(pickle.dumps(Payload(mark)))
    refused(path)
    assert not mark.exists()


def test_the_payload_would_run_where_it_is_trusted(tmp_path):
    mark = tmp_path / "ran"
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()


@pytest.mark.parametrize("content", [[1, 2], {}, {"format": FORMAT}, {"format": FORMAT, "other": 1}, {"format": -1}])
def test_other_content_is_refused(path, content):
    torch.save(content, path)
    refused(path)


def test_another_format_is_named(path, classifier):
    content = io.BytesIO()
    torch.save({**vars(checkpoint(classifier)), "format": FORMAT + 1}, content)
    path.write_bytes(content.getvalue())
    assert refused(path).endswith(f"written in another format than {FORMAT}")


@pytest.mark.parametrize("other", [Toy(64), Toy(64, classes=3), torch.nn.Linear(2, 2)])
def test_weights_of_another_architecture_are_refused(path, classifier, other):
    model = Toy(32) if isinstance(other, Toy) else classifier
    with pytest.raises(CheckpointError, match="weights of another architecture") as caught:
        checkpoint(other).restore(model, path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_the_old_checkpoint(path, classifier, monkeypatch):
    checkpoint(classifier, seed=1).save(path)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint(classifier, seed=2).save(path)
    assert Checkpoint.load(path).signature == "signature1"
    assert [*path.parent.iterdir()] == [path]
