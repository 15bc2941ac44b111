"""Times alternatives in one process, in turn: A B C A B C ..., so that a drifting machine hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Milliseconds per call, and the median over rounds of the ratio to the reference of the same round."""

    name: str
    median: float
    lowest: float
    highest: float
    ratio: float


def measure(alternatives: Mapping[str, Callable[[], object]], rounds: int = 15, warmup: int = 3) -> list[Timing]:
    """Times every alternative once per round; the first one is the reference of the ratios."""
    times: dict[str, list[float]] = {name: [] for name in alternatives}
    for number in range(warmup + rounds):
        for name, call in alternatives.items():
            start = time.perf_counter()
            call()
            if number >= warmup:
                times[name].append(1e3 * (time.perf_counter() - start))
    reference = next(iter(times.values()))
    return [
        Timing(
            name,
            statistics.median(values),
            min(values),
            max(values),
            statistics.median(v / r for v, r in zip(values, reference, strict=True)),
        )
        for name, values in times.items()
    ]
