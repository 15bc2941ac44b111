"""The 8x8 digits as event streams: real images, a simulated sensor (`saccades.py`), nothing to download.

A recording becomes `steps` frames of equal duration with one channel per polarity (off, on). The number of events in
a cell is clipped to `max_count` and divided by it: inputs lie in [0, 1], in a unit that is the same for all samples.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnrobust.data.cache import Arrays, cached
from snnrobust.data.dataset import DataError, DataSource, Split, Splits, stratified
from snnrobust.data.digits import GREY_LEVELS, read
from snnrobust.data.saccades import Recording, Saccades, Sensor, record, resize
from snnrobust.settings import Byte, Contrast, HeldOut, NonNegativeInt, Positive, PositiveInt, Rate

SENSOR_SIZE = 16
DIGIT_SIZE = 12
NOISE_SEED = 0

# Part of the key of the cache: to be raised with every change of this file or of the simulator that changes frames.
FORMAT = 1


@dataclass(frozen=True)
class DigitsEvents(DataSource):
    """Digits as event frames, in the same split as `Digits` with the same shares and seed.

    Args:
        steps: number of frames T.
        threshold: change of log intensity per event.
        refractory_us: blind time of a pixel after an event, in microseconds.
        noise_rate: events per pixel and second that come without any change.
        saccade_us: duration of each of the three saccades, in microseconds.
        max_count: of events per cell; more are clipped. An input is the count divided by it.
        validation: share of every class for validation.
        test: share of every class for the test.
        split_seed: of the split, apart from the seed of the run.
        root: folder of the cache, which is `<root>/digits_events`.
        eps: customary l_inf budget, used where `threat.eps` is not given.
    """

    kind: Literal["events"] = "events"
    steps: PositiveInt = 8
    threshold: Contrast = 0.25
    refractory_us: NonNegativeInt = 1000
    noise_rate: Rate = 0.1
    saccade_us: PositiveInt = 100_000
    max_count: Byte = 5
    validation: HeldOut = 0.2
    test: HeldOut = 0.2
    split_seed: NonNegativeInt = 0
    root: str = "data"
    eps: Positive = 0.02

    classes = 10
    # Over the training part with the settings above.
    mean = (0.084, 0.084)
    std = (0.206, 0.200)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.steps, 2, SENSOR_SIZE, SENSOR_SIZE)

    def load(self) -> Splits:
        """Reads the frames, after simulating them (some seconds) where they are not in the cache.

        Raises:
            DataError: if the cache cannot be written, or the settings give more events than can be counted.
        """
        folder = Path(self.root).expanduser() / "digits_events"
        arrays = cached(folder, self._content(), self._build)

        def part(name: str) -> Split:
            values, labels = arrays[name], arrays[f"{name}_labels"]
            return Split(torch.from_numpy(values), torch.from_numpy(labels), self.max_count)

        return Splits(part("train"), part("validation"), part("test"))

    def _content(self) -> dict[str, object]:
        """All that the frames depend on."""
        settings = {name: value for name, value in asdict(self).items() if name not in ("kind", "root", "eps")}
        return {"format": FORMAT, **settings}

    def _build(self) -> Arrays:
        images, labels = read()
        validation, test, train = stratified(labels, (self.validation, self.test), self.split_seed)
        arrays: Arrays = {}
        for name, index in (("train", train), ("validation", validation), ("test", test)):
            arrays[name] = self._frames(images[index], index)
            arrays[f"{name}_labels"] = labels[index].numpy()
        return arrays

    def _frames(self, images: Tensor, index: Tensor) -> NDArray[np.uint8]:
        """`[N, T, 2, H, W]` in 0..max_count of the digits `[N, 8, 8]` at the positions `index` of the whole data."""
        path = Saccades(amplitude=SENSOR_SIZE - DIGIT_SIZE, saccade_us=self.saccade_us)
        sensor = Sensor(
            height=SENSOR_SIZE,
            width=SENSOR_SIZE,
            threshold=self.threshold,
            refractory_us=self.refractory_us,
            noise_rate=self.noise_rate,
            # Whatever the speed, the picture moves by a small part of a pixel per step.
            step_us=max(1, self.saccade_us // 100),
        )
        enlarged = resize(images.numpy() / GREY_LEVELS, DIGIT_SIZE)
        recordings = record(enlarged, sensor, path, NOISE_SEED, index.numpy())
        counts = frames(recordings, self.steps, path.duration_us, (SENSOR_SIZE, SENSOR_SIZE))
        return np.minimum(counts, self.max_count).astype(np.uint8)


def frames(recordings: list[Recording], steps: int, duration_us: int, size: tuple[int, int]) -> NDArray[np.int16]:
    """Events counted in `steps` frames of equal duration.

    Frames are cut by the clock and not, as `n_time_bins` of tonic does, between the first and the last event of each
    recording: with that the frames of two samples would mean different times, and the last events would be lost.
    If `steps` does not divide the duration, the last frame is shorter by less than `steps` microseconds.

    Args:
        recordings: N arrays of events with 0 <= t < `duration_us`.
        size: height and width of the sensor.

    Returns:
        `[N, steps, 2, height, width]`: off events in channel 0, on events in channel 1; 0 where nothing happened.

    Raises:
        DataError: if a cell has more events than 16 bits hold.
    """
    from tonic.transforms import ToFrame

    height, width = size
    window = -(-duration_us // steps)
    to_frame = ToFrame(sensor_size=(width, height, 2), time_window=window, start_time=0, end_time=window * steps)
    counts: NDArray[np.int16] = np.zeros((len(recordings), steps, 2, height, width), dtype=np.int16)
    for count, events in zip(counts, recordings, strict=True):
        # Without any event tonic returns a single frame.
        if len(events):
            count[:] = to_frame(events)
        if count.sum() != len(events):
            limit = np.iinfo(count.dtype).max
            raise DataError(f"a frame has more than {limit} events in a cell: raise dataset.threshold")
    return counts
