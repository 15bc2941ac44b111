"""Frames from events: `steps` slices of a recording, in each of which the events of every cell are counted.

A frame has a channel per polarity (off, on). The sensor's pixels are gathered into cells: column x of W0 falls into
column `x * W // W0` of W, rows alike; counts of pixels add up. Counts are clipped to `max_count`, by which an input is
divided: inputs lie in [0, 1], in a unit that is the same for all samples. With `max_count` 1 frames are binary.

- `count`: slices of n // T events each, in order; the last n mod T events are left out. As `ToFrame(n_event_bins=T)` of
  tonic. A recording of fewer than T events has empty frames.
- `time`: slices of equal duration from the first event on: `window_us` each, with later events left out; or, where it
  is None, a T-th of the recording's own duration, rounded up to whole microseconds such that the last event is within.
  As `ToFrame(time_window=...)` of tonic with the end given (its `n_time_bins` would lose the last events).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from snnrobust.data.recordings import Sensor
from snnrobust.data.saccades import Recording


@dataclass(frozen=True)
class Framing:
    """How recordings become frames.

    Args:
        sensor: that the events come from.
        steps: number of frames T.
        slices: by equal numbers of events or by equal times.
        window_us: duration of a frame, for `time`; None for a T-th of the recording.
        size: rows and columns of a frame; None for those of the sensor.
        max_count: of events per cell, at most 255.
    """

    sensor: Sensor
    steps: int
    slices: Literal["count", "time"]
    window_us: int | None
    size: tuple[int, int] | None
    max_count: int

    def __post_init__(self) -> None:
        height, width = self.shape[2:]
        if not (0 < height <= self.sensor.height and 0 < width <= self.sensor.width):
            raise ValueError(
                f"dataset.size: got [{height}, {width}]; allowed: null, or at most the sensor's "
                f"[{self.sensor.height}, {self.sensor.width}]"
            )
        if self.window_us is not None and self.slices == "count":
            raise ValueError("dataset.window_us: allowed with dataset.slices=time only")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """`(T, 2, H, W)` of one recording."""
        height, width = self.size or (self.sensor.height, self.sensor.width)
        return (self.steps, 2, height, width)

    def __call__(self, events: Recording) -> NDArray[np.uint8]:
        """Frames `[T, 2, H, W]` in 0..max_count of a recording of at least one event, all on the sensor."""
        _, _, height, width = self.shape
        slices, kept = self._sliced(events)
        events = events[kept]
        x, y = events["x"].astype(np.int64), events["y"].astype(np.int64)
        if (height, width) != (self.sensor.height, self.sensor.width):
            x, y = x * width // self.sensor.width, y * height // self.sensor.height
        cells = ((slices * 2 + events["p"]) * height + y) * width + x
        counts = np.bincount(cells, minlength=self.steps * 2 * height * width)
        return np.minimum(counts, self.max_count).astype(np.uint8).reshape(self.shape)

    def _sliced(self, events: Recording) -> tuple[NDArray[Any], slice]:
        """The slice of each event that is kept, and which are."""
        if self.slices == "count":
            each = len(events) // self.steps
            return np.repeat(np.arange(self.steps), each), slice(each * self.steps)
        since = events["t"] - events["t"][0]
        window = self.window_us or -(-(int(since[-1]) + 1) // self.steps)
        kept = slice(int(np.searchsorted(since, window * self.steps)))
        return since[kept] // window, kept
