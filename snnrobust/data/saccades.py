"""Event streams from still images: a picture makes three saccades in front of a simulated event sensor.

The motion is that of N-MNIST, where a real sensor looked at MNIST digits along a triangle of three 100 ms saccades
(Orchard, Jayawant, Cohen and Thakor, 2015, "Converting static image datasets to spiking neuromorphic datasets using
saccades"). The sensor is the usual model of an event camera (Rebecq, Gehrig and Scaramuzza, 2018, "ESIM: an open event
camera simulator"; Gallego et al., 2020, "Event-based vision: a survey"): every pixel sends an event whenever its log
intensity has moved by the contrast threshold since its last one.

Images are float arrays `[B, H, W]` in [0, 1], lengths are in pixels, times in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Recording = NDArray[np.void]

# Field by field what tonic calls `tonic.io.events_struct`.
EVENT = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", np.bool_)])

# Images that are simulated together: small enough for the arrays of one time step to stay in the processor's cache.
CHUNK = 64


@dataclass(frozen=True)
class Sensor:
    """An event sensor of `height` x `width` pixels.

    Args:
        threshold: contrast C > 0, the change of log intensity per event.
        refractory_us: after an event a pixel is blind for this long; events that fall into it are lost.
        noise_rate: events per pixel and second that come without any change, with random polarity.
        offset: of the intensity I in [0, 1] before the logarithm, `L = log(offset + I)`; stands for the sensor's dark
            current and keeps black finite.
        step_us: time step of the simulation; within a step the log intensity is taken as linear.
    """

    height: int = 16
    width: int = 16
    threshold: float = 0.25
    refractory_us: int = 1000
    noise_rate: float = 0.1
    offset: float = 0.2
    step_us: int = 1000


@dataclass(frozen=True)
class Saccades:
    """Three straight saccades at constant speed: down and right, up and right, back to the left.

    Args:
        amplitude: width and height of the triangle, in pixels.
        saccade_us: duration of each saccade.
    """

    amplitude: float = 4.0
    saccade_us: int = 100_000

    @property
    def duration_us(self) -> int:
        return 3 * self.saccade_us

    def position(self, t_us: float) -> tuple[float, float]:
        """Displacement `(x, y)` at time `t_us` in [0, duration]; x to the right and y downwards, both >= 0."""
        corners = np.arange(4) * self.saccade_us
        x = np.interp(t_us, corners, (0.0, self.amplitude / 2, self.amplitude, 0.0))
        y = np.interp(t_us, corners, (0.0, self.amplitude, 0.0, 0.0))
        return float(x), float(y)


class Firings(NamedTuple):
    """Events before they have coordinates, all `[N]`: number of the pixel in the batch, time, +1 or -1."""

    pixel: Ints
    t: Ints
    sign: Ints


def record(images: NDArray[Any], sensor: Sensor, path: Saccades, seed: int, index: Ints) -> list[Recording]:
    """What the sensor sees while each image moves along the path.

    Args:
        images: `[B, H, W]` in [0, 1]; the surroundings are black.
        seed: of the noise.
        index: `[B]`, a number >= 0 for every image. The noise depends on `(seed, number)` alone, so that a recording
            does not change with the batch that it is made in.

    Returns:
        One array of dtype `EVENT` per image, sorted by t, with 0 <= t < `path.duration_us`.

    Raises:
        ValueError: if the images leave the sensor, or `index` does not fit.
    """
    height, width = images.shape[1:]
    if height + path.amplitude > sensor.height or width + path.amplitude > sensor.width:
        room = f"{sensor.height}x{sensor.width}"
        raise ValueError(f"{height}x{width} images that move by {path.amplitude} pixels leave the {room} sensor")
    if len(index) != len(images):
        raise ValueError(f"{len(images)} images, but {len(index)} numbers")
    recordings = []
    for first in range(0, len(images), CHUNK):
        chunk = slice(first, first + CHUNK)
        recordings += _record_chunk(images[chunk], sensor, path, seed, index[chunk])
    return recordings


def _record_chunk(images: NDArray[Any], sensor: Sensor, path: Saccades, seed: int, index: Ints) -> list[Recording]:
    signal = crossings(log_intensities(images, sensor, path), sensor.threshold, sensor.step_us, path.duration_us)
    firings = after_refractory(merge(signal, noise(sensor, path.duration_us, seed, index)), sensor.refractory_us)
    return recordings_of(firings, len(images), sensor)


def resize(images: NDArray[Any], size: int) -> Floats:
    """Bilinear interpolation from `[B, n, n]` to `[B, size, size]`, pixels as squares, edges continued."""
    n = images.shape[-1]
    centre = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
    weights = np.maximum(0, 1 - np.abs(centre[:, None] - np.arange(n)))
    enlarged: Floats = weights @ images @ weights.T
    return enlarged


def log_intensities(images: NDArray[Any], sensor: Sensor, path: Saccades) -> Iterator[Floats]:
    """`log(offset + I)` of all pixels, `[B * height * width]`, at the times 0, step, 2 step, ... up to the duration."""
    batch, height, width = images.shape
    margin = max(sensor.height - height, sensor.width - width) + 1
    canvas = np.zeros((batch, sensor.height + margin, sensor.width + margin))
    canvas[:, margin : margin + height, margin : margin + width] = images
    # The triangle of the path, and with it the picture, lies in the middle of the sensor.
    left = (sensor.width - width - path.amplitude) / 2
    top = (sensor.height - height - path.amplitude) / 2
    for t_us in _times(sensor.step_us, path.duration_us):
        x, y = path.position(t_us)
        seen = _shifted(_shifted(canvas, top + y, margin, 1), left + x, margin, 2)
        yield np.log(sensor.offset + seen).reshape(-1)


def _times(step_us: int, duration_us: int) -> list[int]:
    return [*range(0, duration_us, step_us), duration_us]


def _shifted(canvas: Floats, shift: float, margin: int, axis: int) -> Floats:
    """`canvas` without its margin, moved by 0 <= `shift` < `margin` pixels along `axis`, linearly interpolated."""
    whole = int(shift)
    part = shift - whole
    size = canvas.shape[axis] - margin
    near, far = ([slice(None)] * 3 for _ in range(2))
    near[axis] = slice(margin - whole, margin - whole + size)
    far[axis] = slice(margin - whole - 1, margin - whole - 1 + size)
    return (1 - part) * canvas[tuple(near)] + part * canvas[tuple(far)]


def crossings(logs: Iterable[Floats], threshold: float, step_us: int, duration_us: int) -> Firings:
    """The events of ideal pixels, without noise and refractory period.

    In units of the threshold, `u = (L - L(0)) / C`, a pixel's reference level is a whole number, at first 0. Where u
    reaches the next whole number above or below, an event of that polarity fires and the reference moves there; the
    time is interpolated linearly within the step, and a step may hold several crossings.

    Args:
        logs: log intensities `[P]` at the times 0, step, 2 step, ... and `duration_us`.
    """
    steps = iter(logs)
    start = next(steps)
    reference, before = np.zeros_like(start), np.zeros_like(start)
    times = _times(step_us, duration_us)
    found = [_no_firings()]
    for t0, t1, now in zip(times, times[1:], steps, strict=False):
        level = (now - start) / threshold
        gap = level - reference
        pixel = np.flatnonzero(np.abs(gap) >= 1)
        if len(pixel):
            number, sign = np.abs(gap[pixel]).astype(np.int64), np.sign(gap[pixel])
            each = np.repeat(np.arange(len(pixel)), number)
            rank = np.arange(len(each)) - np.repeat(np.cumsum(number) - number, number) + 1
            at, way = pixel[each], sign[each]
            reached = reference[at] + way * rank
            t = t0 + (t1 - t0) * (reached - before[at]) / (level[at] - before[at])
            # A crossing at the very end belongs to the last microsecond of the recording.
            found.append(Firings(at, np.minimum(t.astype(np.int64), duration_us - 1), way.astype(np.int64)))
            reference[pixel] += sign * number
        before = level
    return merge(*found)


def noise(sensor: Sensor, duration_us: int, seed: int, index: Ints) -> Firings:
    """A Poisson process of `noise_rate` in every pixel, both polarities equally likely; keyed by `(seed, index)`."""
    pixels = sensor.height * sensor.width
    mean = sensor.noise_rate * duration_us * 1e-6 * pixels
    found = [_no_firings()]
    for position, number in enumerate(index.tolist()):
        draw = np.random.default_rng((seed, number))
        n = draw.poisson(mean)
        where, t = draw.integers(pixels, size=n), draw.integers(duration_us, size=n)
        found.append(Firings(position * pixels + where, t, 2 * draw.integers(2, size=n) - 1))
    return merge(*found)


def merge(*parts: Firings) -> Firings:
    """All events, sorted by pixel, then by time; simultaneous ones keep their order."""
    pixel, t, sign = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((t, pixel))
    return Firings(pixel[order], t[order], sign[order])


def after_refractory(firings: Firings, refractory_us: int) -> Firings:
    """Without the events less than `refractory_us` after the last surviving one of their pixel.

    Args:
        firings: sorted by pixel, then by time.
    """
    first = np.flatnonzero(np.diff(firings.pixel, prepend=-1))
    number = np.diff(first, append=len(firings.pixel))
    last = np.full(len(first), -refractory_us)
    keep = np.ones(len(firings.pixel), dtype=np.bool_)
    # Whether an event survives depends on the one before it: one round per rank, over all pixels at once.
    for rank in range(int(number.max(initial=0))):
        active = np.flatnonzero(number > rank)
        event = first[active] + rank
        keep[event] = firings.t[event] - last[active] >= refractory_us
        last[active] = np.where(keep[event], firings.t[event], last[active])
    return Firings(firings.pixel[keep], firings.t[keep], firings.sign[keep])


def recordings_of(firings: Firings, batch: int, sensor: Sensor) -> list[Recording]:
    """One array of dtype `EVENT` per image, sorted by time, simultaneous events by pixel."""
    sample, where = np.divmod(firings.pixel, sensor.height * sensor.width)
    events = np.empty(len(sample), dtype=EVENT)
    events["y"], events["x"] = np.divmod(where, sensor.width)
    events["t"], events["p"] = firings.t, firings.sign > 0
    order = np.lexsort((firings.t, sample))
    ends = np.searchsorted(sample[order], np.arange(1, batch))
    return np.split(events[order], ends)


def _no_firings() -> Firings:
    nothing = np.zeros(0, dtype=np.int64)
    return Firings(nothing, nothing, nothing)
