"""The simulated event sensor against cases that are worked out by hand."""

import numpy as np
import pytest
from tonic.io import events_struct

from snnrobust.data.saccades import (
    EVENT,
    Firings,
    Saccades,
    Sensor,
    after_refractory,
    crossings,
    log_intensities,
    noise,
    record,
    resize,
)

STEP, STEPS = 1000, 20
DURATION = STEP * STEPS


def ramp(total: float) -> list[np.ndarray]:
    """One pixel whose log intensity changes by `total` at constant speed."""
    return [np.array([total * k / STEPS]) for k in range(STEPS + 1)]


def images(number: int) -> np.ndarray:
    return np.random.default_rng(0).random((number, 12, 12))


def test_events_have_the_type_that_tonic_expects():
    assert events_struct == EVENT


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("total", [0.2, 0.95, 9.9])
def test_a_ramp_fires_once_per_threshold_at_the_analytic_times(total, sign):
    threshold = 0.25
    events = crossings(ramp(sign * total), threshold, STEP, DURATION)
    expected = [DURATION * k * threshold / total for k in range(1, int(total / threshold) + 1)]
    assert len(events.t) == len(expected)
    assert np.allclose(events.t, expected, rtol=0, atol=1)
    assert (events.sign == sign).all()


def test_the_reference_follows_the_events_on_the_way_back():
    # Up by 2.5 thresholds: on events at 1 and 2. Back down to 0: off events at 1 and 0, not at 2.
    up = [np.array([x]) for x in (0.0, 2.5, 0.0)]
    events = crossings(up, 1.0, 1000, 2000)
    assert events.sign.tolist() == [1, 1, -1, -1]
    assert events.t.tolist() == [400, 800, 1600, 1999]


def test_changes_below_the_threshold_do_not_fire():
    wave = [np.array([0.24 * np.sin(k)]) for k in range(STEPS + 1)]
    assert len(crossings(wave, 0.25, STEP, DURATION).t) == 0


def test_refractory_period_drops_what_follows_a_surviving_event():
    pixel = np.array([0, 0, 0, 0, 7, 7])
    t = np.array([0, 60, 100, 190, 10, 110])
    kept = after_refractory(Firings(pixel, t, np.ones(6, dtype=np.int64)), 100)
    # 60 is lost to 0; 100 survives, because 60 did not; 190 is lost to 100.
    assert kept.t.tolist() == [0, 100, 10, 110]
    assert kept.pixel.tolist() == [0, 0, 7, 7]


def test_recordings_keep_the_refractory_period():
    sensor = Sensor(refractory_us=3000, noise_rate=50.0)
    for events in record(images(3), sensor, Saccades(), 0, np.arange(3)):
        where = events["y"].astype(int) * sensor.width + events["x"]
        for pixel in np.unique(where):
            assert (np.diff(events["t"][where == pixel]) >= 3000).all()


def test_an_image_at_rest_is_silent():
    silent = record(images(2), Sensor(noise_rate=0.0), Saccades(amplitude=0.0), 0, np.arange(2))
    assert [len(events) for events in silent] == [0, 0]


def test_noise_has_the_given_rate_and_both_polarities():
    sensor = Sensor(noise_rate=10.0)
    number = 200
    events = noise(sensor, 300_000, 0, np.arange(number))
    mean = number * 10.0 * 0.3 * sensor.height * sensor.width
    assert abs(len(events.t) - mean) < 5 * mean**0.5
    assert abs(events.sign.sum()) < 5 * mean**0.5
    assert events.t.min() >= 0
    assert events.t.max() < 300_000
    assert events.pixel.min() >= 0
    assert events.pixel.max() < number * sensor.height * sensor.width


def test_a_bright_edge_that_comes_closer_switches_on():
    # At first the picture moves down: it brightens the black pixels below it and leaves dark ones above. The columns
    # that its left edge passes see both.
    events = record(np.ones((1, 12, 12)), Sensor(noise_rate=0.0), Saccades(), 0, np.arange(1))[0]
    inner = events[(events["t"] < 100_000) & (events["x"] >= 2) & (events["x"] < 12)]
    below, above = inner[inner["y"] >= 12], inner[inner["y"] < 4]
    assert len(below)
    assert below["p"].all()
    assert len(above)
    assert not above["p"].any()
    assert len(below) + len(above) == len(inner)


def test_recordings_are_sorted_and_on_the_sensor():
    sensor, path = Sensor(noise_rate=20.0), Saccades(saccade_us=50_001)
    for events in record(images(5), sensor, path, 0, np.arange(5)):
        assert events.dtype == EVENT
        assert len(events) > 100
        assert (np.diff(events["t"]) >= 0).all()
        assert events["t"][0] >= 0
        assert events["t"][-1] < path.duration_us
        assert events["x"].min() >= 0
        assert events["x"].max() < sensor.width
        assert events["y"].min() >= 0
        assert events["y"].max() < sensor.height


def test_recordings_depend_on_their_number_and_not_on_the_batch():
    sensor, path, pictures = Sensor(noise_rate=20.0), Saccades(), images(70)
    together = record(pictures, sensor, path, 3, np.arange(70))
    order = np.array([69, 4, 0])
    alone = record(pictures[order], sensor, path, 3, order)
    assert all(np.array_equal(together[number], events) for number, events in zip(order, alone, strict=True))
    other = record(pictures[:1], sensor, path, 4, np.arange(1))
    assert not np.array_equal(together[0], other[0])


def test_the_path_is_a_closed_triangle_on_the_sensor():
    path = Saccades(amplitude=4.0, saccade_us=1000)
    assert [path.position(t) for t in (0, 500, 1000, 2000, 3000)] == [(0, 0), (1, 2), (2, 4), (4, 0), (0, 0)]


def test_the_picture_is_shifted_by_bilinear_interpolation():
    dot = np.zeros((1, 12, 12))
    dot[0, 5, 5] = 1.0
    sensor = Sensor(offset=1.0, step_us=500)
    seen = [np.exp(log.reshape(16, 16)) - 1 for log in log_intensities(dot, sensor, Saccades(4.0, 1000))]
    halfway = np.zeros((16, 16))
    halfway[7, 6] = 1.0
    assert np.allclose(seen[1], halfway)
    # From (2, 4) to (4, 0): after a quarter of the second saccade half a pixel to the right, one up.
    quarter = [log for log in log_intensities(dot, Sensor(offset=1.0, step_us=250), Saccades(4.0, 1000))][5]
    between = np.zeros((16, 16))
    between[8, 7:9] = 0.5
    assert np.allclose(np.exp(quarter.reshape(16, 16)) - 1, between)


def test_resize_keeps_constants_and_the_middle_of_a_ramp():
    assert np.allclose(resize(np.full((2, 8, 8), 0.3), 12), 0.3)
    enlarged = resize(np.tile(np.arange(8.0), (1, 8, 1)), 16)
    assert np.allclose(enlarged[0, 0, 1:-1], np.arange(0.25, 7, 0.5))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="leave the 16x16 sensor"):
        record(np.zeros((1, 13, 13)), Sensor(), Saccades(amplitude=4.0), 0, np.arange(1))
    with pytest.raises(ValueError, match="2 images, but 1 numbers"):
        record(np.zeros((2, 12, 12)), Sensor(), Saccades(), 0, np.arange(1))
