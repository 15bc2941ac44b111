"""Weights on disk at the size of what is left of them: a state dict as one safetensors file, sparse where that pays.

A sparse weight `[out, ...]` is seen as a matrix `[out, N]` and stored by its rows (compressed sparse rows): of each
entry that is not +0.0 its column and its value, and for each row where its entries begin. Every entry keeps its bits:
NaN stays as it is, and -0.0 is a value that is stored. The file is plain safetensors, which any library opens; its
metadata has one entry, `snnrobust`: as JSON the format version, the shapes of the sparse tensors, and a checksum of
everything.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from snnrobust.files import write_checked

FORMAT = 1
METADATA, CHECKSUM = "snnrobust", "crc32"
OTHERS = "__metadata__"
"""What safetensors calls the entry of the header that is of no tensor."""
ROWS, COLUMNS, VALUES = PARTS = ("/rows", "/columns", "/values")
"""What the names of the three tensors end with that a sparse one is stored as."""
ENTRY = 64
"""About the bytes that the header spends on a tensor beside its name."""
LARGEST = 2**31
"""Entries of all sparse tensors of a file together: a small file cannot ask for any amount of memory."""
DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8,
)  # fmt: skip
INDICES = (torch.uint8, torch.uint16, torch.uint32)
"""Types of row pointers and columns; the smallest that holds them is used."""
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By bytes, the integers that tensors of other types are seen as."""


def packed(state: Mapping[str, Tensor], sparse: Collection[str], about: Mapping[str, str] | None = None) -> bytes:
    """A state dict as the content of one safetensors file; the same one gives the same bytes.

    Args:
        state: tensors of any of `DTYPES`, on any device. Strides are not kept.
        sparse: the names of those that may be stored sparse, which is done where it takes fewer bytes. Of one
            dimension and fewer, none is.
        about: what the file says of itself, for `about`.

    Raises:
        ValueError: if `sparse` names no tensor of the state, a dtype is another one, or a name ends as `PARTS` do.
    """
    for name in sparse:
        if name not in state:
            raise ValueError(f"{name}: to be stored sparse, but there is no such tensor")
    content: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, tensor in state.items():
        if tensor.dtype not in DTYPES:
            raise ValueError(f"{name}: got {tensor.dtype}; allowed: {', '.join(str(d) for d in DTYPES)}")
        if name.endswith(PARTS):
            raise ValueError(f"{name}: allowed: names that end with none of {', '.join(PARTS)}")
        stored = tensor.detach().cpu().contiguous()
        if name in sparse and tensor.dim() > 1 and tensor.numel() and _pays(name, stored):
            content |= _compressed(name, stored)
            shapes[name] = [*tensor.shape]
        else:
            content[name] = stored.clone()  # it may share its memory with another one
    said = {"format": FORMAT, "sparse": shapes, "about": dict(about or {})}
    checksum = _checksum(save(content), said)
    return save(content, {METADATA: json.dumps(said | {CHECKSUM: checksum})})


def _checksum(content: bytes, said: Mapping[str, Any]) -> int:
    """Of the tensors, of what the header says of them, and of the metadata apart from the checksum itself."""
    header, tensors = _divided(content)
    texts = [
        {name: entry for name, entry in parts.items() if name not in (OTHERS, CHECKSUM)} for parts in (header, said)
    ]
    return zlib.crc32(tensors, zlib.crc32(json.dumps(texts, sort_keys=True).encode()))


def _divided(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """The header of a safetensors file, and the bytes of its tensors."""
    begin = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:begin]), memoryview(content)[begin:]


def _pays(name: str, tensor: Tensor) -> bool:
    """True if it takes fewer bytes stored sparse."""
    entries, rows = int(_bits(tensor).count_nonzero()), len(tensor)
    pointers = (rows + 1) * _index(entries).itemsize
    columns = entries * _index(tensor.numel() // rows - 1).itemsize
    header = 2 * (len(name) + ENTRY) + len("".join(PARTS)) + len(f'"{name}": {[*tensor.shape]}, ')
    return pointers + columns + entries * tensor.itemsize + header < tensor.nbytes


def _compressed(name: str, tensor: Tensor) -> dict[str, Tensor]:
    bits = _bits(tensor.flatten(1))
    kept = bits != 0
    rows = torch.cat([torch.zeros(1, dtype=torch.int64), kept.sum(1).cumsum(0)])
    columns = kept.nonzero()[:, 1]
    return {
        name + ROWS: rows.to(_index(int(rows[-1]))),
        name + COLUMNS: columns.to(_index(bits.shape[1] - 1)),
        name + VALUES: bits[kept].view(tensor.dtype),
    }


def _bits(tensor: Tensor) -> Tensor:
    """The same memory as integers, of which +0.0 alone is zero."""
    return tensor.view(BITS[tensor.itemsize])


def _index(largest: int) -> torch.dtype:
    """The smallest type that holds it."""
    return next(dtype for dtype in INDICES if largest < 1 << 8 * dtype.itemsize)


def unpacked(content: bytes) -> dict[str, Tensor]:
    """The state dict that `packed` has stored, bit by bit, ordered by name.

    Raises:
        ValueError: in one line, if the content is damaged, truncated, or not made by `packed`.
    """
    return _read(content)[0]


def about(content: bytes) -> dict[str, str]:
    """What a file says of itself.

    Raises:
        ValueError: as of `unpacked`.
    """
    return _read(content)[1]


def _read(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        stored = load(content)  # checks that the header is sound, and that the tensors fill the file
        said = json.loads(_divided(content)[0][OTHERS][METADATA])
        version = said["format"]
    except SafetensorError as error:
        raise ValueError(f"not a safetensors file, or damaged ({str(error).splitlines()[0]})") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"a safetensors file that snnrobust has not written ({type(error).__name__})") from error
    if version != FORMAT:
        raise ValueError(f"written in format {version!r}; allowed: {FORMAT}")
    shapes, about = said.get("sparse"), said.get("about")
    if not all(isinstance(each, dict) for each in (shapes, about)) or not all(type(v) is str for v in about.values()):
        raise ValueError("damaged metadata")
    if said.get(CHECKSUM) != _checksum(content, said):
        raise ValueError("damaged: its content is another one than was written")
    _check_shapes(shapes, stored)
    for name, shape in shapes.items():
        parts = [stored.pop(name + part) for part in PARTS]
        stored[name] = _expanded(name, shape, *parts)
    return dict(sorted(stored.items())), about


def _check_shapes(shapes: Mapping[str, Any], stored: Mapping[str, Tensor]) -> None:
    entries = 0
    for name, shape in shapes.items():
        sizes = shape if isinstance(shape, list) else []
        if len(sizes) < 2 or not all(type(size) is int and 0 < size <= LARGEST for size in sizes):
            raise ValueError(f"{name}: damaged shape; allowed: two or more positive integers")
        entries += math.prod(sizes)
        if entries > LARGEST:
            raise ValueError(f"{name}: more than {LARGEST} entries in sparse tensors")
        if name in stored or not all(name + part in stored for part in PARTS):
            raise ValueError(f"{name}: allowed: {', '.join(PARTS)}, and no tensor of that name")
    for name in stored:
        if name.endswith(PARTS) and name.rpartition("/")[0] not in shapes:
            raise ValueError(f"{name}: part of a sparse tensor without a shape")


def _expanded(name: str, shape: list[int], rows: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    pointers, places = _numbers(name + ROWS, rows), _numbers(name + COLUMNS, columns)
    lengths, width, entries = np.diff(pointers), math.prod(shape[1:]), len(places)
    if len(pointers) != shape[0] + 1 or pointers[0] != 0 or pointers[-1] != entries or (lengths < 0).any():
        raise ValueError(f"{name}{ROWS}: damaged; allowed: {shape[0] + 1} that rise from 0 to {entries}")
    if values.shape != columns.shape:
        raise ValueError(f"{name}{VALUES}: got {[*values.shape]}; allowed: as many as columns, {entries}")
    flat = places + width * np.repeat(np.arange(shape[0]), lengths)
    if (places >= width).any() or (np.diff(flat) <= 0).any():
        raise ValueError(f"{name}{COLUMNS}: damaged; allowed: below {width}, rising within each row")
    bits = _bits(values)
    dense = torch.zeros(shape[0] * width, dtype=bits.dtype).index_copy_(0, torch.from_numpy(flat), bits)
    return dense.view(values.dtype).view(shape)


def _numbers(name: str, indices: Tensor) -> npt.NDArray[np.int64]:
    if indices.dtype not in INDICES or indices.dim() != 1:
        raise ValueError(f"{name}: damaged; allowed: one dimension of unsigned integers")
    numbers: npt.NDArray[np.int64] = indices.numpy().astype(np.int64)
    return numbers


def same_bits(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """True if both hold tensors of the same names, dtypes, shapes and bits; -0.0 is not 0.0, and NaN is itself."""
    return a.keys() == b.keys() and all(_same(tensor, b[name]) for name, tensor in a.items())


def _same(a: Tensor, b: Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    first, second = (tensor.detach().cpu().reshape(-1).view(torch.uint8) for tensor in (a, b))
    return torch.equal(first, second)


def write(
    path: Path, state: Mapping[str, Tensor], sparse: Collection[str], about: Mapping[str, str] | None = None
) -> int:
    """Replaces the file by the state, see `packed`; what is on the disk has been read again and has the same bits.

    Returns:
        Bytes of the file.

    Raises:
        ValueError: as of `packed`.
        OSError: if it cannot be written, or reads back as something else.
    """
    content = packed(state, sparse, about)
    assert same_bits(unpacked(content), state), "packed and unpacked disagree"
    write_checked(path, content)
    return len(content)


def read(path: Path) -> dict[str, Tensor]:
    """The state dict that `write` has stored.

    Raises:
        ValueError: in one line that names the file, as of `unpacked`.
        OSError: if it cannot be read.
    """
    try:
        return unpacked(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
