"""Random streams: one per purpose, each a function of what it is for.

A draw of an attack is keyed by (seed, attack, restart, position of the sample in its split), so that a sample meets
the same noise whatever the batch size is and whichever samples stand beside it; so are the draws of a stochastic
encoder while `per_sample` is open. Augmentations need a few draws for each of many samples, for which a generator per
sample is too slow: theirs are hashes of the same words (`hashed_uniform`). Third-party attacks draw from the global
streams, which are keyed by the first sample of a batch: these do depend on its size.
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


def hashed_uniform(index: Tensor, count: int, *parts: object) -> Tensor:
    """Draws from U(0, 1), `[B, count]` float32 on the device of `index`; row b uses the stream `(*parts, index[b])`.

    Multiples of 2^-24 in [0, 1), the same on every device. A counter-based generator: SplitMix64 (Steele, Lea and
    Flood, 2014, "Fast splittable pseudorandom number generators"), whose state is the hash of the stream.

    Args:
        index: `[B]` int64.
        count: draws per sample; more of them begin with the same ones.
        parts: words that say what the draws are for.
    """
    own = _splitmix(key(*parts) + (index + 1) * _GOLDEN)
    draws = _splitmix(own.unsqueeze(1) + torch.arange(1, count + 1, device=index.device) * _GOLDEN)
    return _shifted(draws, 40).float() * 2.0**-24


def hashed_integers(index: Tensor, ends: tuple[int, ...], *parts: object) -> Tensor:
    """Integers `[B, len(ends)]`, column k uniform in 0 to `ends[k]` - 1, from the draws of `hashed_uniform`.

    Args:
        index: `[B]` int64.
        ends: each from 1 to 2^16, so that no number is favoured by more than 2^-8 of its share.
        parts: words that say what the draws are for.
    """
    assert all(1 <= end <= 2**16 for end in ends)
    draws = hashed_uniform(index, len(ends), *parts)
    return (draws.double() * torch.tensor(ends, device=index.device)).long()


_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
"""2^64 divided by the golden ratio, as the int64 with the same bits: arithmetic on int64 wraps around, as it should."""


def _splitmix(state: Tensor) -> Tensor:
    """The output function of SplitMix64 on int64 tensors."""
    state = (state ^ _shifted(state, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    state = (state ^ _shifted(state, 27)) * (0x94D049BB133111EB - 2**64)
    return state ^ _shifted(state, 31)


def _shifted(state: Tensor, bits: int) -> Tensor:
    """A shift to the right that fills in zeros, whatever the sign is."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


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
    return _fresh(torch.rand, like, batch)


def fresh_normal(like: Tensor, batch: int = 0) -> Tensor:
    """The same with N(0, 1)."""
    return _fresh(torch.randn, like, batch)


def _fresh(draw: Callable[..., Tensor], like: Tensor, batch: int) -> Tensor:
    streams = _STREAMS.get()
    if streams is None or len(streams) != like.shape[batch]:
        return draw(like.shape, device=like.device, dtype=like.dtype)
    one = like.select(batch, 0)
    return torch.stack([draw(one.shape, generator=g) for g in streams], batch).to(like)


def remembered() -> Callable[[], None]:
    """What takes the global streams (torch, NumPy, the standard library) back to where they are now, when called."""
    python_state, numpy_state, state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    on_devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def back() -> None:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(state)
        if on_devices:
            torch.cuda.set_rng_state_all(on_devices)

    return back


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
