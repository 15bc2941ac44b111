"""Random streams: one per purpose, each a function of what it is for.

A draw of an attack is keyed by (seed, attack, restart, position of the sample in its split), so that a sample meets
the same noise whatever the batch size is and whichever samples stand beside it; so are the draws of a stochastic
encoder while `per_sample` is open. Third-party attacks draw from the global streams, which are keyed by the first
sample of a batch: these do depend on its size.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor


def key(*parts: object) -> int:
    """A 63-bit seed from the words that say what it is for; equal words give equal seeds on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: object) -> torch.Generator:
    """A CPU generator seeded with `key(*parts)`."""
    return torch.Generator().manual_seed(key(*parts))


def uniform(like: Tensor, index: Tensor, *parts: object) -> Tensor:
    """Draws from U(0, 1) of the shape of `like` `[B, ...]`; sample b uses the stream `(*parts, index[b])`."""
    return _per_sample(torch.rand, like, index, *parts)


def normal(like: Tensor, index: Tensor, *parts: object) -> Tensor:
    """Draws from N(0, 1) of the shape of `like` `[B, ...]`; sample b uses the stream `(*parts, index[b])`."""
    return _per_sample(torch.randn, like, index, *parts)


def _per_sample(draw: Callable[..., Tensor], like: Tensor, index: Tensor, *parts: object) -> Tensor:
    rows = [draw(like.shape[1:], generator=generator(*parts, i)) for i in index.tolist()]
    return torch.stack(rows).to(like) if rows else torch.empty_like(like)


_STREAMS: ContextVar[list[torch.Generator] | None] = ContextVar("streams", default=None)


@contextmanager
def per_sample(index: Tensor, *parts: object) -> Iterator[None]:
    """While open, `fresh` draws for the sample at batch position b from the stream `(*parts, index[b])`."""
    token = _STREAMS.set([generator(*parts, i) for i in index.tolist()])
    try:
        yield
    finally:
        _STREAMS.reset(token)


def fresh(like: Tensor, batch: int = 0) -> Tensor:
    """U(0, 1) of the shape of `like`, new at every call: from each sample's own stream where `per_sample` is open.

    Args:
        like: gives shape, device and dtype.
        batch: its dimension that counts samples.
    """
    streams = _STREAMS.get()
    if streams is None or len(streams) != like.shape[batch]:
        return torch.rand(like.shape, device=like.device, dtype=like.dtype)
    one = like.select(batch, 0)
    return torch.stack([torch.rand(one.shape, generator=g) for g in streams], batch).to(like)


@contextmanager
def isolated(*parts: object) -> Iterator[None]:
    """Runs its body with all global streams seeded by `key(*parts)` and gives the caller's streams back untouched.

    Covers torch (CPU and CUDA), NumPy and the standard library, since third-party attacks draw from any of them.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        try:
            seed_all(key(*parts))
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def seed_all(seed: int) -> None:
    """Seeds the global streams of torch, NumPy and the standard library."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)
