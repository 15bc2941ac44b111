"""Frames against tonic's, over random recordings and at the edges."""

import numpy as np
import pytest
from tonic.transforms import ToFrame

from snnrobust.data.frames import Framing
from snnrobust.data.recordings import Sensor
from snnrobust.data.saccades import EVENT
from tests.unit.recorded import random_events

SENSOR = Sensor(20, 34)
NUMBERS = (1, 2, 5, 6, 7, 11, 12, 100, 2000)


def framing(steps=6, slices="count", window_us=None, size=None, max_count=255) -> Framing:
    return Framing(SENSOR, steps, slices, window_us, size, max_count)


def recordings():
    """Sparse and dense ones: in the latter many events share a microsecond, also at the edges of slices."""
    for seed, number in enumerate(NUMBERS):
        for until_us in (7, 50, 1_000, 300_000):
            events = random_events(10 * seed + until_us % 7, number, 34, 20, until_us)
            events["t"] += 10**15 * (seed % 2)
            yield events


def tonic(events, **how):
    return ToFrame(sensor_size=(34, 20, 2), **how)(events)


@pytest.mark.parametrize("steps", [1, 2, 6, 10])
def test_slices_by_count_are_those_of_tonic(steps):
    for events in recordings():
        assert np.array_equal(framing(steps)(events), np.minimum(tonic(events, n_event_bins=steps), 255))


@pytest.mark.parametrize("steps", [1, 2, 6, 10])
def test_slices_of_a_fixed_time_are_those_of_tonic(steps):
    for events in recordings():
        first = int(events["t"][0])
        for window in (1, 3, 17, 1_000, 10**6):
            expected = tonic(events, time_window=window, start_time=first, end_time=first + steps * window)
            assert np.array_equal(framing(steps, "time", window)(events), np.minimum(expected, 255))


@pytest.mark.parametrize("steps", [1, 2, 6, 10])
def test_slices_of_equal_time_are_those_of_tonic_and_lose_no_event(steps):
    for events in recordings():
        first, last = int(events["t"][0]), int(events["t"][-1])
        window = -(-(last + 1 - first) // steps)
        expected = tonic(events, time_window=window, start_time=first, end_time=first + steps * window)
        found = framing(steps, "time")(events)
        assert np.array_equal(found, np.minimum(expected, 255))
        if expected.max() <= 255:
            assert found.sum() == len(events)


def test_slices_by_hand():
    """Seven events, at the times 0 0 1 5 5 9 9, all at x = their number, y = 0."""
    events = np.zeros(7, dtype=EVENT)
    events["x"], events["t"], events["p"] = np.arange(7), (0, 0, 1, 5, 5, 9, 9), (0, 1, 0, 0, 0, 0, 1)

    def places(frames):
        return [sorted(zip(*(axis.tolist() for axis in frame.nonzero()), strict=True)) for frame in frames]

    assert places(framing(3)(events)) == [[(0, 0, 0), (1, 0, 1)], [(0, 0, 2), (0, 0, 3)], [(0, 0, 4), (0, 0, 5)]]
    # Ten microseconds in three slices of four: 0-3, 4-7, 8-11.
    assert places(framing(3, "time")(events)) == [
        [(0, 0, 0), (0, 0, 2), (1, 0, 1)],
        [(0, 0, 3), (0, 0, 4)],
        [(0, 0, 5), (1, 0, 6)],
    ]
    # Slices of five: the last events begin a third one, which two frames do not have.
    assert places(framing(1, "time", 5)(events)) == [[(0, 0, 0), (0, 0, 2), (1, 0, 1)]]
    assert places(framing(2, "time", 9)(events))[1] == [(0, 0, 5), (1, 0, 6)]
    assert framing(8)(events).sum() == 0


@pytest.mark.parametrize("size", [(20, 34), (10, 17), (7, 5), (20, 1), (1, 34)])
def test_cells_gather_pixels(size):
    """Against tonic's frames of the whole sensor, pixel by pixel."""
    events = random_events(0, 3000, 34, 20)
    whole = tonic(events, n_event_bins=4)
    expected = np.zeros((4, 2, *size), dtype=np.int64)
    for y in range(20):
        for x in range(34):
            expected[:, :, y * size[0] // 20, x * size[1] // 34] += whole[:, :, y, x]
    assert np.array_equal(framing(4, size=size)(events), np.minimum(expected, 255))


@pytest.mark.parametrize("max_count", [1, 3, 255])
def test_counts_are_clipped(max_count):
    events = np.zeros(300, dtype=EVENT)
    frames = framing(1, max_count=max_count)(events)
    assert frames.dtype == np.uint8
    assert frames[0, 0, 0, 0] == max_count
    assert frames.sum() == max_count


def test_more_events_than_16_bits_count_are_clipped_too():
    frames = framing(1)(np.zeros(70_000, dtype=EVENT))
    assert frames[0, 0, 0, 0] == 255


def test_settings_that_do_not_fit_are_refused():
    assert framing(3, size=(10, 17)).shape == (3, 2, 10, 17)
    assert framing(3).shape == (3, 2, 20, 34)
    for size in ((21, 34), (20, 35), (0, 5)):
        with pytest.raises(ValueError, match=r"dataset.size: got .*at most the sensor's \[20, 34\]"):
            framing(size=size)
    with pytest.raises(ValueError, match=r"dataset.window_us: allowed with dataset.slices=time only"):
        framing(window_us=5)
