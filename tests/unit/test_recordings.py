"""Readers of recordings against those of tonic, SpikingJelly and others, and the checks of every recording."""

import struct
from pathlib import Path

import numpy as np
import pytest
from expelliarmus import Wizard  # type: ignore[import-untyped]
from scipy.io import savemat
from spikingjelly.datasets.cifar10_dvs import _load_origin_data as spikingjelly_aedat2
from tonic.io import get_aer_events_from_file, make_structured_array, read_aedat_header_from_file, read_mnist_file

from snnrobust.data.formats.mat5 import read_arrays
from snnrobust.data.recordings import READERS, RecordingError, Sensor, Take, read
from snnrobust.data.saccades import EVENT
from tests.unit import recorded
from tests.unit.recorded import random_events

SENSOR = Sensor(128, 128)
SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def written(path: Path, content: bytes) -> Take:
    path.write_bytes(content)
    return Take(path, 0)


def bytes_of(suffix: str, events) -> bytes:
    return {".bin": recorded.bits40, ".bs2": recorded.bits40, ".dat": recorded.dat, ".aedat": recorded.aedat3}[suffix](
        events
    )


@pytest.mark.parametrize("write", [recorded.bits40, recorded.aedat2, recorded.aedat3, recorded.dat])
@pytest.mark.parametrize("number", [1, 250])
def test_events_come_back_as_they_were_written(tmp_path, write, number):
    suffix = {"bits40": ".bin", "dat": ".dat"}.get(write.__name__, ".aedat")
    events = random_events(number, number, 128, 128)
    found = read(written(tmp_path / f"x{suffix}", write(events)), SENSOR)
    assert found.dtype == EVENT
    assert np.array_equal(found, events)


def test_arrays_come_back_as_they_were_written(tmp_path):
    events = random_events(0, 300, 128, 128)
    np.save(tmp_path / "x.npy", events)
    assert np.array_equal(read(Take(tmp_path / "x.npy", 0), SENSOR), events)
    recorded.asl(tmp_path / "x.mat", events)
    assert np.array_equal(read(Take(tmp_path / "x.mat", 0), Sensor(180, 240)), events)


def test_tonics_gestures_are_in_milliseconds(tmp_path):
    events = random_events(0, 300, 128, 128)
    recorded.tonic_gesture(tmp_path / "3.npy", events)
    found = read(Take(tmp_path / "3.npy", 3), SENSOR)
    assert np.array_equal(found["t"], events["t"] // 1000 * 1000)
    for name in ("x", "y", "p"):
        assert np.array_equal(found[name], events[name])


def test_tactile_recordings_become_events(tmp_path):
    train = np.zeros((101, 5))
    train[-1] = [0.1, 0.2, 0.3, 0.4, 0.5]
    train[37, 1], train[4, 1], train[99, 4] = 1, -1, 1
    savemat(tmp_path / "x.mat", {"spiketrain": train})
    found = read(Take(tmp_path / "x.mat", 0), Sensor(10, 10))
    assert found.tolist() == [(4, 0, 200_000, False), (7, 3, 200_000, True), (9, 9, 500_000, True)]


@pytest.mark.parametrize("seed", range(5))
def test_40_bit_events_are_those_of_tonic_with_overflows(tmp_path, seed):
    """Also with events of y = 240, from which on the clock is 2^13 us ahead."""
    raw = np.random.default_rng(seed).integers(256, size=(500, 5), dtype=np.uint8)
    raw[:, 1] %= 239
    raw[np.random.default_rng(seed).integers(500, size=seed), 1] = 240
    file = tmp_path / "x.bin"
    file.write_bytes(raw.tobytes())
    assert np.array_equal(READERS[".bin"](file), read_mnist_file(file, dtype=EVENT))


def test_aedat3_words_are_those_of_tonic(tmp_path):
    (tmp_path / "x.aedat").write_bytes(recorded.aedat3(random_events(1, 400, 128, 128), others=False))
    version, start, _ = read_aedat_header_from_file(str(tmp_path / "x.aedat"))
    words = get_aer_events_from_file(str(tmp_path / "x.aedat"), version, start)
    x, y, p = (words["address"] >> shift & mask for shift, mask in ((17, 0x1FFF), (2, 0x1FFF), (1, 1)))
    expected = make_structured_array(x, y, words["timeStamp"], p)
    assert np.array_equal(READERS[".aedat"](tmp_path / "x.aedat"), expected)


def test_aedat2_events_are_those_of_spikingjelly(tmp_path):
    raw = np.random.default_rng(0).integers(1 << 15, size=(500, 2), dtype=np.uint32)
    file = tmp_path / "x.aedat"
    file.write_bytes(b"#!AER-DAT2.0\r\n# a comment\r\n" + raw.astype(">u4").tobytes())
    ours, theirs = READERS[".aedat"](file), spikingjelly_aedat2(file)
    for name in ("x", "y", "t", "p"):
        assert np.array_equal(ours[name], theirs[name])


def test_an_aedat2_word_by_hand(tmp_path):
    """Column 3 from the right, row 5 from below, off."""
    take = written(tmp_path / "x.aedat", b"#!AER-DAT2.0\r\n" + struct.pack(">II", 3 << 8 | 5 << 1 | 1, 77))
    assert read(take, SENSOR).tolist() == [(124, 122, 77, False)]


def test_invalid_events_of_aedat3_are_left_out(tmp_path):
    events = random_events(2, 10, 128, 128)
    content = bytearray(recorded.aedat3(events, others=False))
    first = content.index(b"#!END-HEADER\r\n") + len(b"#!END-HEADER\r\n") + 28
    content[first + 8] &= 0xFE  # the second event's lowest bit
    found = read(written(tmp_path / "x.aedat", bytes(content)), SENSOR)
    assert np.array_equal(found, np.delete(events, 1))


def test_the_clock_of_aedat3_goes_on_after_its_overflow(tmp_path):
    events = random_events(2, 10, 128, 128)
    content = bytearray(recorded.aedat3(events, others=False))
    header = content.index(b"#!END-HEADER\r\n") + len(b"#!END-HEADER\r\n")
    content[header + 12] = 3
    found = read(written(tmp_path / "x.aedat", bytes(content)), SENSOR)
    assert np.array_equal(found["t"], events["t"] + (3 << 31))


def test_dat_events_are_those_of_expelliarmus(tmp_path):
    take = written(tmp_path / "x.dat", recorded.dat(random_events(3, 500, 640, 480)))
    theirs = Wizard(encoding="dat").read(take.path)
    ours = read(take, Sensor(480, 640))
    for name in ("x", "y", "t", "p"):
        assert np.array_equal(ours[name], theirs[name])


@pytest.mark.parametrize("version", [2, 3])
def test_raw_events_are_those_of_expelliarmus(tmp_path, version):
    # expelliarmus counts every overflow of the lower 12 bits of EVT 3 twice where the file has its higher bits too.
    events = random_events(4, 3_000, 640, 480, until_us=200_000 if version == 2 else 4_000)
    events[500:530]["x"], events[500:530]["y"] = np.arange(100, 130), 77  # neighbours, which EVT 3 packs as vectors
    events[500:530]["t"], events[500:530]["p"] = events["t"][500], True
    events["t"].sort()
    raw = np.zeros(len(events), dtype=[("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")])
    for name in ("x", "y", "t", "p"):
        raw[name] = events[name]
    Wizard(encoding=f"evt{version}").save(fpath=tmp_path / "x.raw", arr=raw)
    theirs = Wizard(encoding=f"evt{version}").read(tmp_path / "x.raw")
    content = (tmp_path / "x.raw").read_bytes()
    if b"% evt" not in content[:200].lower():
        content = f"% evt {version}.0\n".encode() + content
    ours = read(written(tmp_path / "x.raw", content), Sensor(480, 640))
    for name in ("x", "y", "t", "p"):
        assert np.array_equal(ours[name], theirs[name])


@pytest.mark.parametrize("until_us", [3_000, 200_000, 40_000_000])
def test_evt3_events_come_back_as_they_were_written(tmp_path, until_us):
    events = random_events(5, 3_000, 1280, 720, until_us)
    found = read(written(tmp_path / "x.raw", recorded.evt3(events)), Sensor(720, 1280))
    assert np.array_equal(found, events)


def words(*pairs: tuple[int, int]) -> bytes:
    return b"% evt 3.0\n% end\n" + b"".join(struct.pack("<H", kind << 12 | value) for kind, value in pairs)


def test_evt3_words_by_hand(tmp_path):
    """Vectors follow each other from their base; the time overflows after 2^24 us; what comes before a time is lost."""
    take = written(
        tmp_path / "x.raw",
        words(
            *((0, 9), (2, 5), (8, 0xFFF), (6, 7)),
            *((0, 10), (2, 3 | 1 << 11), (3, 20 | 1 << 11), (4, 0b100000000001), (5, 0b10), (4, 1)),
            *((8, 0), (6, 1), (3, 50), (5, 1), (7, 5), (2, 4)),
        ),
    )
    first, second = 0xFFF007, (1 << 24) + 1
    assert read(take, Sensor(720, 1280)).tolist() == [
        *((3, 10, first, True), (20, 10, first, True), (31, 10, first, True), (33, 10, first, True)),
        *((40, 10, first, True), (50, 10, second, False), (4, 10, second, False)),
    ]


def test_aedat4_without_its_package_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr("snnrobust.data.formats.aedat4.find_spec", lambda _: None)
    with pytest.raises(RecordingError, match=r"x.aedat4 is of the format AEDAT 4, .*: pip install aedat"):
        read(written(tmp_path / "x.aedat4", b"#!AER-DAT4.0\r\n"), SENSOR)


@pytest.mark.parametrize("suffix", [".bin", ".bs2", ".dat", ".aedat"])
@pytest.mark.parametrize("lost", [1, 3])
def test_a_recording_that_is_cut_off_is_refused(tmp_path, suffix, lost):
    content = bytes_of(suffix, random_events(0, 300, 128, 128))
    take = written(tmp_path / f"x{suffix}", content[:-lost])
    with pytest.raises(RecordingError, match=rf"^{take.path} .*cut off") as caught:
        read(take, SENSOR)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [10, 60, 150, 400, -1])
def test_matlab_files_that_are_cut_off_are_refused(tmp_path, cut):
    file = tmp_path / "x.mat"
    recorded.asl(file, random_events(0, 300))
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(RecordingError, match=rf"{file} is .*cut off") as caught:
        read(Take(file, 0), Sensor(180, 240))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_arrays_that_are_cut_off_are_refused(tmp_path, cut):
    file = tmp_path / "x.npy"
    np.save(file, random_events(0, 300))
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(RecordingError, match="cannot be read as a NumPy array"):
        read(Take(file, 0), SENSOR)


def test_pickles_are_not_loaded(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(RecordingError, match=r"cannot be read as a NumPy array: .*allow_pickle"):
        read(Take(tmp_path / "x.npy", 0), SENSOR)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.bin", b"", "holds no event"),
        ("x.dat", b"", "is no .dat recording of events of 8 bytes"),
        ("x.dat", b"% header without an end", "header without an end"),
        ("x.aedat", b"", "is of AEDAT version unknown: expected 2.0 or 3.1"),
        ("x.aedat", b"#!AER-DAT1.0\r\n", "is of AEDAT version 1.0"),
        ("x.aedat", recorded.aedat3(random_events(0, 0)), "holds no event"),
        ("x.raw", b"% evt 4.0\n", "is of EVT version 4.0: expected 2.0 or 3.0"),
        ("x.raw", b"", "is of EVT version unknown"),
        ("x.raw", b"% evt 3.0\n% firmware", "header without an end"),
        ("x.raw", b"% evt 3.0\n123", "has 3 bytes of words of 2; it is cut off"),
        ("x.raw", b"% evt 2.0\n123", "has 3 bytes of words of 4; it is cut off"),
        ("x.raw", b"% evt 3.0\n", "holds no event"),
        ("x.mat", b"", "is no MATLAB file of version 5 to 7.2"),
        ("x.txt", b"1 2 3", r"has the ending .txt: expected .aedat, .aedat4, .bin"),
        ("x", b"1 2 3", "has the ending of no format"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, message):
    with pytest.raises(RecordingError, match=message) as caught:
        read(written(tmp_path / name, content), SENSOR)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("array", [np.zeros((3, 5)), np.zeros(4), np.array(2), np.zeros((3, 4), dtype=bool)])
def test_other_arrays_are_refused(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(RecordingError, match=r"expected events \[N\] with x, y, t, p, or \[N, 4\]"):
        read(Take(tmp_path / "x.npy", 0), SENSOR)


def test_other_variables_are_refused(tmp_path):
    savemat(tmp_path / "x.mat", {"a": 1})
    with pytest.raises(RecordingError, match="has the variables a: expected ts, x, y, pol"):
        read(Take(tmp_path / "x.mat", 0), SENSOR)
    savemat(tmp_path / "x.mat", {"ts": [1, 2], "x": [1], "y": [1], "pol": [1]})
    with pytest.raises(RecordingError, match="columns of different lengths"):
        read(Take(tmp_path / "x.mat", 0), SENSOR)
    savemat(tmp_path / "x.mat", {"spiketrain": np.zeros((5, 5))})
    with pytest.raises(RecordingError, match=r"spiketrain of shape \(5, 5\)"):
        read(Take(tmp_path / "x.mat", 0), SENSOR)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["i1", "u1", "<i2", "<u2", "<i4", "<u4", "<f4", "<f8", "<i8", "<u8"])
def test_matlab_arrays_are_those_of_scipy(tmp_path, dtype, compressed):
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.integers(100, size=(3, 5)).astype(dtype),
        "long_name": rng.integers(9, size=(70, 1)).astype(dtype),
    }
    arrays["small"] = np.array([[1]], dtype=dtype)
    savemat(tmp_path / "x.mat", arrays | {"text": "left out", "cell": {"a": 1}}, do_compression=compressed)
    ours = read_arrays(tmp_path / "x.mat")
    assert ours.keys() == arrays.keys()
    for name, array in arrays.items():
        assert ours[name].dtype == array.dtype
        assert np.array_equal(ours[name], array)


def test_damage_of_any_kind_is_reported_as_such(tmp_path):
    """Bytes changed, lost and cut off at random: either it makes no difference, or one line says what is wrong."""
    events, rng = random_events(0, 100, 128, 128), np.random.default_rng(0)
    np.save(tmp_path / "array.npy", events)
    recorded.asl(tmp_path / "asl.mat", events)
    whole = {
        **{".bin": recorded.bits40(events), ".dat": recorded.dat(events), ".raw": recorded.evt3(events)},
        **{".aedat": recorded.aedat3(events), ".npy": (tmp_path / "array.npy").read_bytes()},
        ".mat": (tmp_path / "asl.mat").read_bytes(),
    }
    refused: list[str] = []
    for number in range(600):
        suffix = list(whole)[number % len(whole)]
        content = bytearray(whole[suffix])
        for _ in range(rng.integers(1, 4)):
            # Half of them in the header.
            at = int(rng.integers(len(content) if rng.random() < 0.5 else min(250, len(content))))
            damage = rng.integers(4)
            if damage == 0:
                content[at] = rng.integers(256)
            elif damage == 1:
                content[at : at + 4] = b"\xff" * 4
            elif damage == 2:
                del content[at : at + int(rng.integers(1, 9))]
            else:
                del content[at + 1 :]
        try:
            read(written(tmp_path / f"x{suffix}", bytes(content)), Sensor(180, 240))
        except RecordingError as error:
            refused.append(str(error))
    assert len(refused) > 300
    assert not [message for message in refused if "\n" in message]


def test_events_outside_of_the_sensor_are_refused(tmp_path):
    take = written(tmp_path / "x.bin", recorded.bits40(random_events(0, 300, 35, 34)))
    with pytest.raises(RecordingError, match="has an event at x = 34: expected 0 to 33 on a sensor of 34 rows and 34"):
        read(take, Sensor(34, 34))
    events = random_events(0, 300)
    events["y"][7] = -1
    np.save(tmp_path / "x.npy", events)
    with pytest.raises(RecordingError, match="has an event at y = -1"):
        read(Take(tmp_path / "x.npy", 0), Sensor(34, 34))


@pytest.mark.parametrize(("x", "message"), [(65_536 + 3, "x = 32767"), (-65_536, "x = -32768"), (np.nan, "not finite")])
def test_coordinates_do_not_come_in_at_the_other_end(tmp_path, x, message):
    np.save(tmp_path / "x.npy", np.array([[5, 6, 1, 7], [x, 6, 1, 7]]))
    with pytest.raises(RecordingError, match=message):
        read(Take(tmp_path / "x.npy", 0), SENSOR)


def put_columns(path: Path, t, x, p, how: str) -> Take:
    """Events in the row 4, as an array with fields or of rows, or as ASL-DVS; every column of its own type."""
    columns = {"x": np.array(x), "y": np.full(len(x), 4), "t": np.array(t), "p": np.array(p)}
    if how == "mat":
        savemat(path / "x.mat", {"ts": columns["t"], "x": columns["x"], "y": columns["y"], "pol": columns["p"]})
        return Take(path / "x.mat", 0)
    if how == "rows":
        rows = np.stack([columns["x"], columns["y"], columns["p"], columns["t"] / 1000], axis=1)
        np.save(path / "x.npy", rows)
    else:
        events = np.zeros(len(x), dtype=[(name, column.dtype) for name, column in columns.items()])
        for name, column in columns.items():
            events[name] = column
        np.save(path / "x.npy", events)
    return Take(path / "x.npy", 0)


@pytest.mark.parametrize("how", ["fields", "rows", "mat"])
@pytest.mark.parametrize(
    ("p", "on"),
    [
        ([0, 1, 1], [False, True, True]),
        ([-1, 1, -1], [False, True, False]),
        ([-1.0, 1.0, 1.0], [False, True, True]),
        ([-1, -1, -1], [False] * 3),
        ([0, 0, 0], [False] * 3),
        ([True, False, True], [True, False, True]),
        (np.array([0, 1, 1], dtype=np.uint8), [False, True, True]),
    ],
)
def test_polarities_are_0_and_1_or_minus_1_and_1(tmp_path, how, p, on):
    take = put_columns(tmp_path, [1, 2, 3], [5, 6, 7], p, how)
    found = read(take, Sensor(180, 240))
    assert found["p"].tolist() == on
    assert found["t"].tolist() == [1, 2, 3]
    assert found["x"].tolist() == [5, 6, 7]


@pytest.mark.parametrize("how", ["fields", "rows", "mat"])
@pytest.mark.parametrize(
    ("p", "values"),
    [([-1, 0, 1], "-1, 0, 1"), ([0, 2, 2], "0, 2"), ([1, 2, 1], "1, 2"), ([-3, 0, 5], "-3, 0, 5")],
)
def test_other_polarities_are_refused(tmp_path, how, p, values):
    take = put_columns(tmp_path, [1, 2, 3], [5, 6, 7], p, how)
    with pytest.raises(RecordingError, match=f"has the polarities {values}: expected 0 and 1, or -1 and 1"):
        read(take, Sensor(180, 240))


@pytest.mark.parametrize(
    ("how", "t", "x", "p", "message"),
    [
        ("fields", [1.0, 1e19], [5, 6], [0, 1], r"an event at t = 1e\+19 us: expected times that 64 bits hold"),
        ("fields", [-1e19, 1.0], [5, 6], [0, 1], r"an event at t = -1e\+19 us"),
        ("fields", np.array([1, 1 << 63], dtype=np.uint64), [5, 6], [0, 1], r"an event at t = 9.22e\+18 us"),
        ("rows", [1.0, 1e19], [5, 6], [0, 1], r"an event at t = 1e\+19 us"),
        ("rows", [1.0, 1e308 * 1000], [5, 6], [0, 1], "holds numbers that are not finite"),
        ("mat", [1.0, 1e19], [5, 6], [0, 1], r"an event at t = 1e\+19 us"),
        ("fields", [1.0, 2.5], [5, 6], [0, 1], "has t = 2.5 at event 1: expected whole numbers"),
        ("mat", [1.0, 2.5], [5, 6], [0, 1], "has t = 2.5 at event 1: expected whole numbers"),
        ("rows", [1.0, 2.0], [5, 6.25], [0, 1], "has x = 6.25 at event 1"),
        ("mat", [1.0, 2.0], [0.5, 6], [0, 1], "has x = 0.5 at event 0"),
        ("fields", [1, 2], [5, 6], [0.0, 0.5], "has p = 0.5 at event 1"),
        ("fields", [1, 2], [5, 1e30], [0, 1], "has an event at x = 32767"),
        ("fields", ["1", "2"], [5, 6], [0, 1], r"has t as an array \[2\] of <U1: expected numbers"),
    ],
)
def test_numbers_that_are_no_times_or_places_are_refused(tmp_path, how, t, x, p, message):
    with np.errstate(over="ignore"):
        take = put_columns(tmp_path, t, x, p, how)
    with pytest.raises(RecordingError, match=message) as caught:
        read(take, Sensor(180, 240))
    assert "\n" not in str(caught.value)


def test_tonics_gestures_may_have_fractions_of_milliseconds(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[5, 6, 1, 4.035], [5, 6, 0, 4.0361]]))  # 1000 * 4.035 is a little less
    assert read(Take(tmp_path / "x.npy", 0), SENSOR)["t"].tolist() == [4035, 4036]


def test_the_unused_bits_of_dat_are_no_polarity(tmp_path):
    content = recorded.dat(random_events(0, 0)) + struct.pack("<II", 9, 5 | 6 << 14 | 0b1110 << 28)
    assert read(written(tmp_path / "x.dat", content), SENSOR).tolist() == [(5, 6, 9, False)]


def test_events_that_go_back_in_time_are_refused(tmp_path):
    events = random_events(0, 300)
    events["t"] = np.arange(300) // 2  # equal times are in order
    assert len(read(written(tmp_path / "x.bin", recorded.bits40(events)), SENSOR)) == 300
    events["t"][40] = 3
    with pytest.raises(RecordingError, match="goes back in time at event 40: 3 us after 19 us"):
        read(written(tmp_path / "x.bin", recorded.bits40(events)), SENSOR)


def test_a_take_is_a_part_of_a_recording(tmp_path):
    events = random_events(0, 1000, 128, 128)
    file = written(tmp_path / "x.aedat", recorded.aedat3(events)).path
    start, stop = int(events["t"][100]), int(events["t"][500])
    found = read(Take(file, 0, start, stop), SENSOR)
    assert np.array_equal(found, events[(events["t"] >= start) & (events["t"] < stop)])
    assert found["t"][0] == start
    with pytest.raises(RecordingError, match=f"{file} from 900000 to 900001 us holds no event"):
        read(Take(file, 0, 900_000, 900_001), SENSOR)


def test_an_absent_file_is_reported(tmp_path):
    for take in (Take(tmp_path / "x.bin", 0), Take(tmp_path / "x.aedat", 0, 0, 5)):
        with pytest.raises(RecordingError, match=r"cannot read .*: No such file"):
            read(take, SENSOR)


SAMPLES = {
    "event_samples/dvs128_MovingDarkBox.aedat": (489_834, Sensor(128, 128)),
    "event_samples/evt3_pedestrians.raw": (5_000, Sensor(720, 1280)),
    "event_samples/ncaltech101_faces_easy_0001.bin": (67_445, Sensor(180, 240)),
    "event_samples/ncars_obj_004397_td.dat": (4_407, Sensor(100, 120)),
    "event_samples/ncars_tonic_sample.dat": (2_009, Sensor(100, 120)),
    "event_samples/nmnist_tonic_sample.bin": (4_325, Sensor(34, 34)),
    "event_samples/stmnist_tonic_sample.mat": (2_346, Sensor(10, 10)),
    "dvs_gesture_clips/01_hand_clapping.bs2": (63_471, Sensor(128, 128)),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_real_recordings_are_read(name):
    if not (SHARED / name).exists():
        pytest.skip("needs real recordings")
    number, sensor = SAMPLES[name]
    assert len(read(Take(SHARED / name, 0), sensor)) == number


@pytest.mark.parametrize(("name", "number"), [("davis.aedat4", 117_667), ("sample.aedat4", 111_954)])
def test_real_aedat4_recordings_are_read(name, number):
    pytest.importorskip("aedat")
    if not (SHARED / "event_samples" / name).exists():
        pytest.skip("needs real recordings")
    assert len(read(Take(SHARED / "event_samples" / name, 0), Sensor(260, 346))) == number


def test_every_real_n_mnist_recording_is_that_of_tonic():
    if not (SHARED / "NMNIST").exists():
        pytest.skip("needs real recordings")
    for file in sorted((SHARED / "NMNIST" / "Test").glob("*/*.bin")):
        assert np.array_equal(read(Take(file, 0), Sensor(34, 34)), read_mnist_file(file, dtype=EVENT))
