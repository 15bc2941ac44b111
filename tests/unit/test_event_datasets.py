"""The event datasets on small files of the same formats, in the folders where the real ones lie."""

import hashlib
import shutil
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from snnrobust.config import build, compose
from snnrobust.data.augmentation import Composed
from snnrobust.data.collections import asl_dvs, cifar10_dvs, dvs_gesture, nmnist
from snnrobust.data.collections.asl_dvs import AslDvs
from snnrobust.data.collections.base import natural
from snnrobust.data.collections.cifar10_dvs import Cifar10Dvs
from snnrobust.data.collections.dvs_gesture import DvsGesture
from snnrobust.data.collections.folder import Folder
from snnrobust.data.collections.ncaltech101 import NCaltech101
from snnrobust.data.collections.nmnist import NMnist
from snnrobust.data.dataset import DataError
from snnrobust.data.event_augmentation import OneOf
from snnrobust.data.event_frames import EventFrames
from snnrobust.data.frames import Framing
from snnrobust.data.image_augmentation import Crop, Cutout, Flip
from snnrobust.data.recordings import read
from snnrobust.identity import training_signature
from snnrobust.schema import ConfigError, parameters_of
from tests.unit import recorded
from tests.unit.recorded import random_events

NAMES = ("nmnist", "cifar10_dvs", "dvs_gesture", "ncaltech101", "asl_dvs", "recordings")
PARTS = ("train", "validation", "test")
SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def put(file: Path, seed: int, write=recorded.bits40, size: int = 34) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(write(random_events(seed, 60, size, size)))


def put_nmnist(root: Path) -> None:
    for part, number in (("Train", 5), ("Test", 2)):
        for digit in range(10):
            for i in range(number):
                put(root / "NMNIST" / part / str(digit) / f"{7 * i:05}.bin", 100 * digit + i + 50 * (part == "Test"))


def put_cifar10_dvs(root: Path) -> None:
    for label, name in enumerate(cifar10_dvs.CLASSES):
        for i in range(12):
            put(root / "CIFAR10DVS" / name / f"cifar10_{name}_{i}.aedat", 20 * label + i, recorded.aedat2, 128)


def put_dvs_gesture(root: Path) -> None:
    """Two users for training and one for the test; every recording holds all gestures, 20 ms each, some twice."""
    folder = root / "DvsGesture"
    folder.mkdir(parents=True)
    for part, names in (("train", ("user01_led", "user02_lab")), ("test", ("user24_led",))):
        (folder / f"trials_to_{part}.txt").write_text("".join(f"{name}.aedat\n" for name in names))
        for seed, name in enumerate(names):
            put(folder / f"{name}.aedat", seed, recorded.aedat3, 128)
            events = random_events(seed, 2_000, 128, 128)
            (folder / f"{name}.aedat").write_bytes(recorded.aedat3(events))
            rows = [f"{label},{20_000 * label - 9_000},{20_000 * label + 9_000}\n" for label in range(1, 12)]
            (folder / f"{name}_labels.csv").write_text("class,startTime_usec,endTime_usec\n" + "".join(rows))


def put_ncaltech101(root: Path) -> None:
    for label in range(101):
        for i in range(4):
            put(root / "NCALTECH101" / "Caltech101" / f"class_{label:03}" / f"image_{i:04}.bin", 5 * label + i)


def put_asl_dvs(root: Path) -> None:
    for label, letter in enumerate(asl_dvs.LETTERS):
        for i in range(4):
            file = root / "ASLDVS" / letter / f"{letter}_{i:04}.mat"
            file.parent.mkdir(parents=True, exist_ok=True)
            recorded.asl(file, random_events(5 * label + i, 60, 180, 180))


def put_recordings(root: Path) -> None:
    for label in range(10):
        for i in range(5):
            put(root / "recordings" / f"class{label}" / f"{i}.dat", 5 * label + i, recorded.dat, 128)


WRITERS = {
    "nmnist": put_nmnist,
    "cifar10_dvs": put_cifar10_dvs,
    "dvs_gesture": put_dvs_gesture,
    "ncaltech101": put_ncaltech101,
    "asl_dvs": put_asl_dvs,
    "recordings": put_recordings,
}
SIZES = {
    "nmnist": (40, 10, 20),
    "cifar10_dvs": (100, 10, 10),
    "dvs_gesture": (11, 11, 11),
    "ncaltech101": (202, 101, 101),
    "asl_dvs": (48, 24, 24),
    "recordings": (30, 10, 10),
}


def source(tmp_path: Path, name: str, *overrides: str) -> EventFrames:
    """What the yaml file of that name makes of small files."""
    if not (tmp_path / "root").exists():
        WRITERS[name](tmp_path / "root")
    partial = [] if name == "recordings" else ["dataset.recordings.partial=true"]
    places = [f"dataset.root={tmp_path / 'root'}", f"dataset.cache={tmp_path / 'cache'}", "dataset.workers=1"]
    wide = {"dvs_gesture": 0.5, "ncaltech101": 0.34, "asl_dvs": 0.34, "recordings": 0.25, "nmnist": 0.2}
    share = f"dataset.validation={wide.get(name, 0.1)}"
    given = [f"dataset={name}", *places, *partial, share, "encoder.steps=3", "tracker=none", "device=cpu", *overrides]
    dataset = build(compose("config", given).config)[0].dataset
    assert isinstance(dataset, EventFrames)
    return dataset


@pytest.mark.parametrize("name", NAMES)
def test_every_dataset_loads(tmp_path, name):
    dataset = source(tmp_path, name)
    splits, parts = dataset.load(), dataset.parts()
    assert tuple(len(getattr(splits, part)) for part in PARTS) == SIZES[name]
    for part in PARTS:
        split, takes = getattr(splits, part), getattr(parts, part)
        assert split.values.dtype == torch.uint8
        assert split.values.shape[1:] == dataset.shape
        assert split.scale == dataset.max_count
        assert split.labels.tolist() == [take.label for take in takes]
        assert set(split.labels.tolist()) == set(range(dataset.classes))
        expected = np.stack([dataset.framing(read(take, dataset.recordings.sensor)) for take in takes])
        assert np.array_equal(split.values.numpy(), expected)
        x = split.batch(torch.arange(5)).x
        assert x.min() >= 0
        assert x.max() <= 1
        assert x.max() > 0
    files = [take.path for part in PARTS for take in getattr(parts, part)]
    assert name == "dvs_gesture" or len(set(files)) == len(files)


@pytest.mark.parametrize("name", NAMES)
def test_the_split_is_the_same_wherever_the_data_lie(tmp_path, name):
    dataset = source(tmp_path, name)
    digests = dataset.split_digests()
    assert set(digests) == set(PARTS)
    shutil.copytree(tmp_path / "root", tmp_path / "copy")
    assert replace(dataset, root=str(tmp_path / "copy")).split_digests() == digests
    assert replace(dataset, split_seed=1).split_digests() != digests
    assert replace(dataset, split_seed=1).split_digests()["test"] == digests["test"]


@pytest.mark.parametrize("name", NAMES)
def test_an_absent_folder_says_what_belongs_there(tmp_path, name):
    dataset = source(tmp_path, name)
    with pytest.raises(DataError, match=rf"{tmp_path}/nowhere/.*expected") as caught:
        replace(dataset, root=str(tmp_path / "nowhere")).load()
    assert "\n" not in str(caught.value)
    if name != "recordings":
        assert "https://" in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_root_that_cannot_be_read_is_reported(tmp_path, name):
    with pytest.raises(DataError, match=r"cannot read x+/.*: File name too long"):
        replace(source(tmp_path, name), root="x" * 300).load()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "recordings"])
def test_a_part_of_a_dataset_is_not_taken_for_the_whole(tmp_path, name):
    dataset = source(tmp_path, name, "dataset.recordings.partial=false")
    with pytest.raises(DataError, match=r"holds \d+ of \d+ recordings: .*dataset.recordings.partial=true") as caught:
        dataset.load()
    assert "\n" not in str(caught.value)


def test_recordings_in_both_formats_are_refused(tmp_path):
    put_cifar10_dvs(tmp_path / "root")
    put(tmp_path / "root" / "CIFAR10DVS" / "cat" / "cifar10_cat_3.aedat4", 0)
    with pytest.raises(
        DataError, match=r"_0\.aedat and .*_cat_3\.aedat4 are of different formats, of which only one may be there"
    ) as caught:
        source(tmp_path, "cifar10_dvs").parts()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["crop_flip_cutout", "crop_flip", "resized_crop_flip", "events_nda", "events_drop"])
def test_augmentations_of_images_and_of_events_fit(tmp_path, name):
    dataset = source(tmp_path, "nmnist", f"dataset/augmentation={name}")
    x = torch.ones(3, *dataset.shape)
    assert dataset.augmentation(x, torch.arange(3), "a").shape == x.shape
    if name == "crop_flip_cutout":
        cutout = dataset.augmentation.operations["cutout"]  # type: ignore[attr-defined]
        assert list(cutout.fill) == [0]  # no events


@pytest.mark.parametrize(
    ("augmentation", "message"),
    [
        (Composed({"cut": Cutout(4, (0.1, 0.2, 0.3))}), r"operations\.cut\.fill: got 3 values; allowed: one for all"),
        (OneOf({"a": Flip(), "b": Crop(35)}), r"operations\.b\.padding: got 35; allowed: up to 34"),
    ],
)
def test_an_augmentation_that_does_not_fit_is_named_before_any_file_is_read(augmentation, message):
    with pytest.raises(ValueError, match=rf"^augmentation\.{message}"):
        EventFrames(NMnist(), augmentation=augmentation)


def test_a_class_without_recordings_is_named(tmp_path):
    dataset = source(tmp_path, "nmnist")
    for file in (tmp_path / "root/NMNIST/Train/4").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"NMNIST/Train/4 holds no recording \(.bin\): expected 60000"):
        dataset.load()
    (tmp_path / "root/NMNIST/Train/4").rmdir()
    with pytest.raises(DataError, match=r"cannot read .*NMNIST/Train/4: No such file or directory; expected 60000"):
        dataset.load()


@pytest.mark.parametrize(
    ("name", "file", "damage", "message"),
    [
        ("nmnist", "NMNIST/Train/3/00007.bin", lambda c: c[:-2], "multiple of 5"),
        ("nmnist", "NMNIST/Test/3/00007.bin", lambda _: b"", "holds no event"),
        ("nmnist", "NMNIST/Train/3/00007.bin", lambda c: b"\x7f" + c[1:], "x = 127: expected 0 to 33"),
        ("nmnist", "NMNIST/Train/3/00007.bin", lambda c: c[-5:] + c, "goes back in time at event 1"),
        ("cifar10_dvs", "CIFAR10DVS/cat/cifar10_cat_3.aedat", lambda c: c[:-3], "multiple of 8"),
        ("dvs_gesture", "DvsGesture/user24_led.aedat", lambda c: c[:-3], "packet"),
        ("asl_dvs", "ASLDVS/k/k_0001.mat", lambda c: c[:-30], "is damaged or cut off"),
        ("recordings", "recordings/class1/1.dat", lambda c: c[:-3], "multiple of 8"),
    ],
)
def test_damaged_recordings_are_named(tmp_path, name, file, damage, message):
    dataset = source(tmp_path, name)
    path = tmp_path / "root" / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        dataset.load()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_with_numbers_are_sorted_by_them():
    names = ["a_10.bin", "a_9.bin", "a_1.bin", "b_2.bin", "10.bin", "a.bin"]
    assert sorted(names, key=natural) == ["10.bin", "a.bin", "a_1.bin", "a_9.bin", "a_10.bin", "b_2.bin"]


def test_the_last_by_number_are_for_the_test(tmp_path):
    found = source(tmp_path, "cifar10_dvs").recordings.find(tmp_path / "root")
    assert [take.path.name for take in found.test] == [f"cifar10_{name}_11.aedat" for name in cifar10_dvs.CLASSES]
    assert [take.path.name for take in found.train[:11]] == [f"cifar10_airplane_{i}.aedat" for i in range(11)]
    quarter = Cifar10Dvs(test=0.25, partial=True).find(tmp_path / "root")
    assert [len(quarter.train), len(quarter.test)] == [90, 30]


def test_limits_convert_no_more_than_they_say(tmp_path):
    dataset = source(tmp_path, "nmnist", "dataset.train_limit=20", "dataset.test_limit=10")
    splits = dataset.load()
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [20, 10, 10]
    assert splits.train.labels.bincount().tolist() == [2] * 10
    assert sum(len(np.load(file, mmap_mode="r")) for file in (tmp_path / "cache").rglob("frames.npy")) == 40


def test_the_places_and_the_workers_are_no_part_of_the_signature():
    def signature(*overrides: str) -> str:
        return training_signature(compose("config", ["dataset=nmnist", *overrides]).config)

    places = ("dataset.root=x", "dataset.cache=y", "dataset.workers=3", "dataset.eps=0.5")
    assert signature(*places) == signature()
    for other in ("dataset.slices=time", "dataset.size=[17,17]", "dataset.recordings.partial=true"):
        assert signature(other) != signature()


def test_settings_of_collections_are_checked():
    for override, message in (
        ("dataset.recordings.parts=true", "dataset.recordings.parts: unknown key"),
        ("dataset.recordings.test=2", "dataset.recordings.test: got 2"),
        ("dataset.size=[0,5]", "dataset.size"),
        ("dataset.slices=number", "dataset.slices: got 'number'"),
    ):
        with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
            compose("config", ["dataset=cifar10_dvs", f"+{override}" if "parts" in override else override])
    with pytest.raises(ConfigError, match=r"^dataset.size: got \[200, 5\]; allowed: null, or at most"):
        build(compose("config", ["dataset=cifar10_dvs", "dataset.size=[200,5]", "tracker=none"]).config)


@pytest.mark.parametrize("name", NAMES)
def test_the_yaml_lists_all_settings_of_its_collection(name):
    node = compose("config", [f"dataset={name}"]).config["dataset"]["recordings"]
    parameters = parameters_of(node["_target_"])
    assert parameters is not None
    assert set(node) - {"_target_"} == set(parameters)


# --- archives in the place of folders


def zipped(folder: Path, archive: Path) -> str:
    """Packs a folder and returns the MD5 of the archive."""
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder.parent))
    shutil.rmtree(folder)
    return hashlib.md5(archive.read_bytes()).hexdigest()


@pytest.fixture
def packed(tmp_path, monkeypatch) -> Path:
    """N-MNIST as its two archives, of which the checksums are those of small ones."""
    put_nmnist(tmp_path / "root")
    folder = tmp_path / "root" / "NMNIST"
    md5 = [zipped(folder / part, folder / f"{part}.zip") for part in ("Train", "Test")]
    parts = [(replace(a, md5=m), number) for (a, number), m in zip(nmnist.PARTS, md5, strict=True)]
    monkeypatch.setattr(nmnist, "PARTS", tuple(parts))
    return folder


def test_archives_are_unpacked(packed):
    found = NMnist(partial=True).find(packed.parent)
    assert [len(found.train), len(found.test)] == [50, 20]
    assert sorted(path.name for path in packed.iterdir()) == ["Test", "Test.zip", "Train", "Train.zip"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not the archive"])
def test_another_archive_is_refused(packed, content):
    (packed / "Train.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"Train.zip has the MD5 \w+: expected \w+; .*garrickorchard"):
        NMnist(partial=True).find(packed.parent)
    assert sorted(path.name for path in packed.iterdir()) == ["Test.zip", "Train.zip"]


def test_an_archive_of_archives_is_unpacked(tmp_path, monkeypatch):
    put_cifar10_dvs(tmp_path)
    folder = tmp_path / "CIFAR10DVS"
    for name in cifar10_dvs.CLASSES:
        zipped(folder / name, folder / f"{name}.zip")
    with zipfile.ZipFile(folder / "CIFAR10DVS.zip", "w") as file:
        for path in sorted(folder.glob("*.zip")):
            if path.name != "CIFAR10DVS.zip":
                file.write(path, path.name)
                path.unlink()
    md5 = hashlib.md5((folder / "CIFAR10DVS.zip").read_bytes()).hexdigest()
    monkeypatch.setattr(cifar10_dvs, "ALL", replace(cifar10_dvs.ALL, md5=md5))
    found = Cifar10Dvs(partial=True).find(tmp_path)
    assert [len(found.train), len(found.test)] == [110, 10]


def test_two_that_start_together_on_archives_find_the_same(packed):
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(NMnist(partial=True).find, packed.parent) for _ in range(4)]
    assert len({tuple(one.result().train) for one in found}) == 1
    assert sorted(path.name for path in packed.iterdir()) == ["Test", "Test.zip", "Train", "Train.zip"]


# --- DVS128 Gesture


def test_gestures_are_cut_by_the_times_of_their_labels(tmp_path):
    put_dvs_gesture(tmp_path)
    found = DvsGesture(partial=True).find(tmp_path)
    assert [take.label for take in found.test] == list(range(11))
    take = found.test[4]
    assert (take.start_us, take.stop_us) == (91_000, 109_000)
    events = read(take, DvsGesture.sensor)
    assert events["t"].min() >= 91_000
    assert events["t"].max() < 109_000
    assert {take.path.name[:6] for take in found.train} == {"user01", "user02"}
    assert {take.path.name[:6] for take in found.test} == {"user24"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("12,5,9", "has the row 12,5,9: expected a class from 1 to 11"),
        ("0,5,9", "has the row 0,5,9"),
        ("3,9,5", "has the row 3,9,5: .*a start before the end"),
        ("3,9", "is damaged: .*; expected rows of class"),
        ("a,b,c", "is damaged: .*; expected rows of class"),
    ],
)
def test_damaged_labels_are_named(tmp_path, row, message):
    put_dvs_gesture(tmp_path)
    with (tmp_path / "DvsGesture/user02_lab_labels.csv").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(DataError, match=f"user02_lab_labels.csv {message}"):
        DvsGesture(partial=True).find(tmp_path)


def test_absent_files_of_gestures_are_named(tmp_path):
    put_dvs_gesture(tmp_path)
    folder = tmp_path / "DvsGesture"
    (folder / "user02_lab.aedat").unlink()
    with pytest.raises(DataError, match=r"user02_lab.aedat is absent \(1 of 2 are\): expected trials_to_train.txt"):
        DvsGesture().find(tmp_path)
    assert len(DvsGesture(partial=True).find(tmp_path).train) == 11
    (folder / "user01_led_labels.csv").unlink()
    with pytest.raises(DataError, match=r"cannot read .*user01_led_labels.csv: No such file"):
        DvsGesture(partial=True).find(tmp_path)
    (folder / "trials_to_test.txt").write_text("")
    (folder / "user01_led_labels.csv").write_text("class,startTime_usec,endTime_usec\n1,0,5\n")
    with pytest.raises(DataError, match=r"trials_to_test.txt is empty"):
        DvsGesture(partial=True).find(tmp_path)


def test_gestures_of_tonic(tmp_path):
    for part, users in (("Train", (1, 2)), ("Test", (24,))):
        for user in users:
            folder = tmp_path / "DVSGesture" / f"ibmGesture{part}" / f"user{user:02}_led"
            folder.mkdir(parents=True)
            for label in range(11):
                recorded.tonic_gesture(folder / f"{label}.npy", random_events(label, 60, 128, 128))
    tonic = DvsGesture(files="npy", partial=True)
    found = tonic.find(tmp_path)
    assert [take.label for take in found.test] == list(range(11))
    assert [len(found.train), len(found.test)] == [22, 11]
    with pytest.raises(DataError, match="holds 22 of 1077 recordings"):
        DvsGesture(files="npy").find(tmp_path)
    recorded.tonic_gesture(folder / "11.npy", random_events(0, 60))
    with pytest.raises(DataError, match=r"11.npy is named after no gesture: expected 0.npy to 10.npy"):
        tonic.find(tmp_path)


def test_the_archive_of_gestures_is_unpacked(tmp_path, monkeypatch):
    put_dvs_gesture(tmp_path)
    with tarfile.open(tmp_path / "DvsGesture.tar.gz", "w:gz") as file:
        file.add(tmp_path / "DvsGesture", "DvsGesture")
    shutil.rmtree(tmp_path / "DvsGesture")
    with pytest.raises(DataError, match=r"DvsGesture.tar.gz has the MD5"):
        DvsGesture(partial=True).find(tmp_path)
    md5 = hashlib.md5((tmp_path / "DvsGesture.tar.gz").read_bytes()).hexdigest()
    monkeypatch.setattr(dvs_gesture, "WHOLE", replace(dvs_gesture.WHOLE, md5=md5))
    assert len(DvsGesture(partial=True).find(tmp_path).train) == 22


def test_numbers_of_gestures_are_those_of_the_publishers():
    assert dvs_gesture.NUMBERS == {"aedat": (1176, 288), "npy": (1077, 264)}


# --- other folders


def test_folders_may_bring_their_split(tmp_path):
    for part, number in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            for i in range(number):
                put(tmp_path / "mine" / part / name / f"{i}.bin", i)
    folder = Folder(name="mine", classes=2, sensor_size=(34, 34))
    found = folder.find(tmp_path)
    assert [len(found.train), len(found.test)] == [8, 4]
    assert found.test[-1].path == tmp_path / "mine/test/dog/1.bin"
    assert EventFrames(folder, root=str(tmp_path), steps=3).shape == (3, 2, 34, 34)
    (tmp_path / "mine/test/dog").rename(tmp_path / "mine/test/fox")
    with pytest.raises(DataError, match="test holds other classes than"):
        folder.find(tmp_path)


def test_other_folders_are_refused(tmp_path):
    put_recordings(tmp_path)
    with pytest.raises(DataError, match="recordings holds 10 folders of classes: expected 3 folders"):
        Folder(classes=3).find(tmp_path)
    (tmp_path / "recordings/class4/.hidden").write_text("")
    Folder().find(tmp_path)
    (tmp_path / "recordings/class4/notes.txt").write_text("")
    with pytest.raises(DataError, match=r"notes.txt is of no known format: expected .aedat"):
        Folder().find(tmp_path)


def test_a_class_of_a_single_recording_cannot_be_cut(tmp_path):
    put_recordings(tmp_path)
    for i in range(1, 5):
        (tmp_path / f"recordings/class4/{i}.dat").unlink()
    with pytest.raises(DataError, match="class4 holds 1 recordings of class 4: too few to cut"):
        Folder().find(tmp_path)


def test_folders_of_other_numbers_of_classes_are_refused(tmp_path):
    put_ncaltech101(tmp_path)
    shutil.rmtree(tmp_path / "NCALTECH101/Caltech101/class_007")
    with pytest.raises(DataError, match="Caltech101 holds 100 folders of classes: expected 8709"):
        NCaltech101(partial=True).find(tmp_path)


def test_asl_letters_leave_out_those_that_move():
    assert AslDvs.classes == 24
    assert not {"j", "z"} & set(asl_dvs.LETTERS)


def test_real_n_mnist_recordings_become_frames(tmp_path):
    if not (SHARED / "NMNIST").exists():
        pytest.skip("needs real recordings")
    dataset = EventFrames(
        NMnist(partial=True), root=str(SHARED), cache=str(tmp_path), train_limit=20, test_limit=10, workers=1, steps=5
    )
    splits = dataset.load()
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [20, 100, 10]
    take = dataset.parts().train[3]
    assert isinstance(dataset.framing, Framing)
    assert np.array_equal(splits.train.values[3].numpy(), dataset.framing(read(take, NMnist.sensor)))
