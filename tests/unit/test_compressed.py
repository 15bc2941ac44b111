"""Weights on disk: every bit comes back, absent ones take no place, and damaged files are refused in one line."""

import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor

from snnrobust.compressed import DTYPES, LARGEST, about, packed, read, same_bits, unpacked, write
from tests.unit.pruned import pruned

HEADER = 8


def sparse(*shape: int, share: float = 0.1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random entries, of which that share is not zero."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(1, 100, shape, generator=generator)
    return torch.where(torch.rand(shape, generator=generator) < share, values, 0).to(dtype)


def metadata(content: bytes) -> Any:
    size = int.from_bytes(content[:HEADER], "little")
    return json.loads(json.loads(content[HEADER : HEADER + size])["__metadata__"]["snnrobust"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (0, 5), (5, 0), (1, 1), (40, 3, 3, 3), (300, 300)], ids=str)
@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
def test_every_bit_comes_back(dtype, shape, share):
    state = {"a": sparse(*shape, share=share, dtype=dtype), "b": torch.tensor(3)}
    found = unpacked(packed(state, {"a"}))
    assert same_bits(found, state)
    assert found["a"].dtype == dtype
    assert found["a"].shape == shape


def test_minus_zero_nan_and_their_payloads_are_values():
    bits = torch.tensor([0, 0, -(2**31), 0x7FC00001, 0x7F800000, 1, 0, 0] * 40, dtype=torch.int32)
    weight = torch.cat([bits.view(torch.float32), torch.zeros(20 * 320)]).view(21, 320)
    content = packed({"w": weight}, ["w"])
    assert len(load(content)["w/values"]) == 4 * 40
    assert torch.equal(unpacked(content)["w"].view(torch.int32), weight.view(torch.int32))


def test_what_is_stored_by_hand():
    weight = torch.zeros(3, 2, 200)
    weight[0, 0, 1], weight[0, 1, 199], weight[2, 0, 0] = 5.0, 6.0, 7.0
    content = packed({"w": weight}, ["w"])
    stored = load(content)
    assert stored["w/rows"].tolist() == [0, 2, 2, 3]
    assert stored["w/columns"].tolist() == [1, 399, 0]
    assert stored["w/values"].tolist() == [5.0, 6.0, 7.0]
    assert [stored[f"w/{part}"].dtype for part in ("rows", "columns")] == [torch.uint8, torch.uint16]
    size = int.from_bytes(content[:HEADER], "little")
    assert len(content) == HEADER + size + 4 * 1 + 3 * 2 + 3 * 4
    said = {"format": 1, "sparse": {"w": [3, 2, 200]}, "about": {}}
    assert metadata(content) == said | {"crc32": checksum(save(stored), said)}


@pytest.mark.parametrize(("width", "kind"), [(256, torch.uint8), (257, torch.uint16), (65537, torch.uint32)])
def test_columns_are_of_the_smallest_type(width, kind):
    weight = torch.zeros(2, width)
    weight[1, -1] = 1
    content = packed({"w": weight}, ["w"])
    assert load(content)["w/columns"].dtype == kind
    assert same_bits(unpacked(content), {"w": weight})


def test_pointers_are_of_the_smallest_type():
    for entries, kind in ((255, torch.uint8), (256, torch.uint16), (65536, torch.uint32)):
        weight = torch.zeros(2, 10 * entries)
        weight[0, :entries] = 1
        assert load(packed({"w": weight}, ["w"]))["w/rows"].dtype == kind


def test_a_sparse_weight_takes_less_place_and_a_full_one_no_more():
    state = {"w": sparse(64, 32, 3, 3), "b": torch.rand(64)}
    dense = len(packed(state, []))
    # per entry a value of 4 and a column of 2 bytes instead of ten values of 4
    assert len(packed(state, ["w"])) / dense == pytest.approx(0.15, abs=0.02)
    full = {"w": sparse(64, 32, 3, 3, share=1.0)}
    assert len(packed(full, ["w"])) == len(packed(full, []))
    assert set(load(packed(full, ["w"]))) == {"w"}


def test_only_what_is_named_is_stored_sparse():
    state = {"w": sparse(64, 64), "v": sparse(64, 64)}
    assert set(load(packed(state, ["v"]))) == {"w", "v/rows", "v/columns", "v/values"}


def test_the_same_state_gives_the_same_bytes():
    state = {"w": sparse(64, 64), "v": sparse(64, 64), "b": torch.rand(3)}
    assert packed(state, ["w", "v"], {"x": "1"}) == packed(state, ["w", "v"], {"x": "1"})


def test_other_strides_and_shared_memory():
    weight = sparse(8, 6, 3, 3)
    state = {"w": weight.to(memory_format=torch.channels_last), "view": weight[::2, 1:], "same": weight}
    assert same_bits(unpacked(packed(state, ["w", "view"])), state)


def test_a_network(classifier, tmp_path):
    pruned(classifier, 0.9)
    names = ["backbone.features.0.weight", "backbone.classifier.1.weight", "backbone.classifier.3.weight"]
    path = tmp_path / "x"
    size = write(path, classifier.state_dict(), names, {"model": "tiny"})
    assert size == path.stat().st_size
    assert size < len(packed(classifier.state_dict(), []))
    assert same_bits(read(path), classifier.state_dict())
    assert about(path.read_bytes()) == {"model": "tiny"}
    write(path, {"a": torch.ones(1)}, [])
    assert read(path)["a"] == 1
    assert [*tmp_path.iterdir()] == [path]


def test_a_disk_that_returns_something_else_is_an_error(tmp_path, monkeypatch):
    def cut(source: str, target: Path) -> None:
        target.write_bytes(Path(source).read_bytes()[:-1])
        Path(source).unlink()

    monkeypatch.setattr(os, "replace", cut)
    with pytest.raises(OSError, match="reads back as something else") as error:
        write(tmp_path / "x", {"a": torch.ones(3)}, [])
    assert error.value.filename == str(tmp_path / "x")


def test_any_library_opens_it(tmp_path):
    path = tmp_path / "x"
    write(path, {"a": torch.arange(3.0)}, [])
    with safe_open(path, "np") as file:
        assert file.get_tensor("a").tolist() == [0, 1, 2]
        assert json.loads(file.metadata()["snnrobust"])["format"] == 1


@pytest.mark.parametrize(
    ("state", "names", "said"),
    [
        ({"a": torch.zeros(2)}, ["b"], "b: to be stored sparse"),
        ({"a/rows": torch.zeros(2)}, [], "a/rows: allowed: names"),
        ({"a": torch.zeros(2, dtype=torch.complex128)}, [], "a: got torch.complex128; allowed: torch.float64"),
    ],
)
def test_what_cannot_be_stored(tmp_path, state, names, said):
    with pytest.raises(ValueError, match=said):
        write(tmp_path / "x", state, names)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.tensor(0.0), torch.tensor(-0.0)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        (torch.zeros(2), torch.zeros(1, 2)),
        (torch.zeros(2), torch.tensor([0.0, 1.0])),
    ],
)
def test_same_bits_sees_differences(a, b):
    assert same_bits({"x": a}, {"x": a})
    assert not same_bits({"x": a}, {"x": b})
    assert not same_bits({"x": a}, {"y": a})


# --- damaged and hostile files

GOOD = packed({"w": sparse(20, 50), "b": torch.ones(3)}, ["w"])


def bytes_of(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.uint8)


ROWS, COLUMNS, VALUES = bytes_of(0, 1, 1, 2), bytes_of(3, 0), torch.ones(2)


def forged(
    shape: object = (3, 4),
    rows: Tensor = ROWS,
    columns: Tensor = COLUMNS,
    values: Tensor | None = VALUES,
    **said: object,
) -> bytes:
    """A file that is sound as safetensors, with one sparse tensor."""
    parts = {"w/rows": rows, "w/columns": columns, "w/values": values}
    return signed({name: part for name, part in parts.items() if part is not None}, sparse={"w": shape}, **said)


def signed(parts: dict[str, Tensor], **said: object) -> bytes:
    """With the right checksum."""
    content = {"format": 1, "sparse": {}, "about": {}, **said}
    return save(parts, {"snnrobust": json.dumps({"crc32": checksum(save(parts), content), **content})})


def checksum(bare: bytes, said: dict[str, object]) -> int:
    size = int.from_bytes(bare[:HEADER], "little")
    header = json.loads(bare[HEADER : HEADER + size])
    return zlib.crc32(json.dumps([header, said], sort_keys=True).encode() + bare[HEADER + size :])


def test_the_forged_file_is_sound_but_for_what_is_forged():
    assert unpacked(forged())["w"].tolist() == [[0, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]


HOSTILE = {
    "columns out of range": (forged(columns=bytes_of(4, 0)), "w/columns: damaged; allowed: below 4"),
    "columns twice": (forged(rows=bytes_of(0, 2, 2, 2), columns=bytes_of(1, 1)), "w/columns"),
    "columns fall": (forged(rows=bytes_of(0, 2, 2, 2), columns=bytes_of(2, 1)), "w/columns"),
    "pointers fall": (forged(rows=bytes_of(0, 2, 1, 2)), "w/rows: damaged; allowed: 4 that rise from 0 to 2"),
    "pointers begin late": (forged(rows=bytes_of(1, 1, 1, 2)), "w/rows"),
    "pointers end early": (forged(rows=bytes_of(0, 1, 1, 1)), "w/rows"),
    "pointers end late": (forged(rows=bytes_of(0, 1, 1, 9)), "w/rows"),
    "too few rows": (forged(shape=(4, 4)), "w/rows"),
    "no rows": (forged(rows=bytes_of()), "w/rows"),
    "values too few": (forged(values=torch.ones(1)), r"w/values: got \[1\]; allowed: as many"),
    "values of two dimensions": (forged(values=torch.ones(2, 1)), "w/values"),
    "a part is missing": (forged(values=None), "w: allowed: "),
    "one dimension": (forged(shape=(12,)), "w: damaged shape"),
    "no shape": (forged(shape="12"), "w: damaged shape"),
    "a negative size": (forged(shape=(3, -4)), "w: damaged shape"),
    "a size that is true": (forged(shape=(3, True)), "w: damaged shape"),
    "a huge size": (forged(shape=(3, LARGEST)), "w: more than"),
    "another format": (forged(format=2), "format 2; allowed: 1"),
    "about is no text": (forged(about={"x": 1}), "metadata"),
    "sparse is a list": (signed({"a": torch.ones(1)}, sparse=[]), "metadata"),
    "another checksum": (forged(crc32=1), "another one than was written"),
    "no checksum": (forged(crc32=None), "another one than was written"),
    "a part without a shape": (signed({"w/rows": torch.ones(1)}), "w/rows: part of a sparse tensor"),
    "no metadata": (save({"a": torch.ones(1)}), "that snnrobust has not written"),
    "other metadata": (save({"a": torch.ones(1)}, {"snnrobust": "[]"}), "that snnrobust has not written"),
    "nested metadata": (save({"a": torch.ones(1)}, {"snnrobust": "[" * 100_000}), "that snnrobust has not written"),
    "empty": (b"", "not a safetensors file"),
    "a long header": (struct.pack("<Q", 2**40) + b"{}", "not a safetensors file"),
    "a pickle": (b"\x80\x04\x95" + b"x" * 40, "not a safetensors file"),
    "more than there should be": (GOOD + b"x", "not a safetensors file"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_in_one_line(case):
    content, said = HOSTILE[case]
    with pytest.raises(ValueError, match=said) as error:
        unpacked(content)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.float32])
def test_indices_are_unsigned_integers(dtype):
    for part, content in (("rows", forged(rows=ROWS.to(dtype))), ("columns", forged(columns=COLUMNS.to(dtype)))):
        with pytest.raises(ValueError, match=f"w/{part}: damaged; allowed: one dimension of unsigned"):
            unpacked(content)


def test_truncated_files_are_refused():
    for length in range(0, len(GOOD), 7):
        with pytest.raises(ValueError, match=r"^not a safetensors file"):
            unpacked(GOOD[:length])


@pytest.mark.parametrize("bit", [1, 4, 64])
def test_every_flipped_bit_is_noticed_in_one_line(bit):
    for place in range(len(GOOD)):
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            unpacked(GOOD[:place] + bytes([GOOD[place] ^ bit]) + GOOD[place + 1 :])


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(GOOD[:-1])
    with pytest.raises(ValueError, match=f"^{path}: not a safetensors file"):
        read(path)
