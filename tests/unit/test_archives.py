"""Archives: what is unpacked, what is refused, and that nothing is left behind."""

import errno
import hashlib
import io
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from snnrobust.data import archives
from snnrobust.data.archives import unpack, verify
from snnrobust.data.dataset import DataError

CONTENT = bytes(range(256)) * 300


def write_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode="w:gz") -> Path:
    with tarfile.open(path, mode) as file:
        for info, content in members:
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def write_zip(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member, content in members:
            file.writestr(member, content)
    return path


def good(folder: Path, kind: str) -> Path:
    if kind == "zip":
        return write_zip(folder / "a.zip", ("set/", b""), ("set/0/x.bin", CONTENT), ("set/list.txt", b"x"))
    members = [(tar_member("set", tarfile.DIRTYPE), b""), (tar_member("./set/0/x.bin"), CONTENT)]
    return write_tar(folder / f"a.tar.{kind}", *members, (tar_member("set/list.txt"), b"x"), mode=f"w:{kind}")


@pytest.mark.parametrize("kind", ["zip", "gz", "bz2", "xz", ""])
def test_members_come_out_as_they_went_in(tmp_path, kind):
    into = tmp_path / "data" / "deep"
    unpack(good(tmp_path, kind), into, "set")
    assert (into / "set/0/x.bin").read_bytes() == CONTENT
    assert (into / "set/list.txt").read_bytes() == b"x"
    assert [path.name for path in into.iterdir()] == ["set"]


@pytest.mark.parametrize("kind", ["zip", "gz", "bz2", "xz", ""])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_archive_leaves_nothing(tmp_path, kind, share):
    archive = good(tmp_path, kind)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(share * len(whole) * (0.5 if kind == "" else 1))])
    into = tmp_path / "data"
    with pytest.raises(DataError, match=str(archive)) as caught:
        unpack(archive, into, "set")
    assert "\n" not in str(caught.value)
    assert list(into.iterdir()) == []


def test_an_altered_member_is_noticed(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        file.writestr("x.bin", CONTENT)
    raw = bytearray(archive.read_bytes())
    raw[500] ^= 1
    archive.write_bytes(raw)
    with pytest.raises(DataError, match="is damaged: Bad CRC-32"):
        unpack(archive, tmp_path / "data", "set")


def linked(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


OUTSIDE = ["/tmp/evil", "../evil", "set/../../evil", "set\\..\\evil"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_members_outside_of_the_folder_are_refused(tmp_path, name):
    both = [
        write_tar(tmp_path / "a.tar.gz", (tar_member("good"), b"1"), (tar_member(name), b"2")),
        write_zip(tmp_path / "a.zip", ("good", b"1"), (name, b"2")),
    ]
    for archive in both:
        into = tmp_path / "data" / "set"
        with pytest.raises(DataError, match="would leave its folder"):
            unpack(archive, into, "set")
        assert list(into.iterdir()) == []
        assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    archive = write_tar(tmp_path / "a.tar.gz", (tar_member("link", kind, "/etc/passwd"), b""))
    with pytest.raises(DataError, match="link is neither a file nor a folder"):
        unpack(archive, tmp_path / "data", "set")


def test_links_in_zip_files_are_refused(tmp_path):
    archive = write_zip(tmp_path / "a.zip", (linked("link"), b"/etc/passwd"))
    with pytest.raises(DataError, match="link is neither a file nor a folder"):
        unpack(archive, tmp_path / "data", "set")


def test_what_is_there_is_not_replaced(tmp_path):
    archive, into = write_zip(tmp_path / "a.zip", ("set/x", b"1"), ("other/x", b"1")), tmp_path / "data"
    (into / "other").mkdir(parents=True)
    with pytest.raises(DataError, match="other is there already"):
        unpack(archive, into, "set")
    assert list((into / "other").iterdir()) == []
    assert [path.name for path in into.iterdir()] == ["other"]
    (into / "set").mkdir()
    unpack(archive, into, "set")  # it was unpacked before
    assert list((into / "set").iterdir()) == []


def test_what_tells_that_all_is_there_comes_last(tmp_path, monkeypatch):
    archive, moved = write_zip(tmp_path / "a.zip", ("a/x", b"1"), ("b/x", b"1"), ("c/x", b"1")), []
    rename = Path.rename

    def noted(path: Path, target: Path) -> Path:
        moved.append(target.name)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", noted)
    unpack(archive, tmp_path / "data", "a")
    assert moved == ["b", "c", "a"]


def test_of_two_that_start_together_one_unpacks_and_both_go_on(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "snnrobust.data")
    archive, into, times = good(tmp_path, "zip"), tmp_path / "data", []

    def slow(path: Path):
        times.append(path)
        time.sleep(0.2)
        yield from members(path)

    members = archives._members
    monkeypatch.setattr(archives, "_members", slow)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(unpack, archive, into, "set") for _ in range(4)]:
            done.result()
    assert times == [archive]
    assert (into / "set/0/x.bin").read_bytes() == CONTENT
    assert [path.name for path in into.iterdir()] == ["set"]
    assert f"another process unpacks an archive into {into}: waiting for it" in caplog.text


def test_what_a_killed_process_has_left_is_removed(tmp_path):
    archive, into = good(tmp_path, "zip"), tmp_path / "data"
    into.mkdir()
    wait = "import sys, time; from pathlib import Path; from snnrobust.data import archives;"
    wait += "archives._move = lambda *_: (print('unpacked', flush=True), time.sleep(60));"
    wait += "archives.unpack(Path(sys.argv[1]), Path(sys.argv[2]), 'set')"
    command = [sys.executable, "-c", wait, str(archive), str(into)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    (left,) = into.iterdir()
    assert (left / "set/0/x.bin").exists()
    unpack(archive, into, "set")
    assert [path.name for path in into.iterdir()] == ["set"]


def test_without_locks_what_others_work_in_stays(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    archive, into = good(tmp_path, "zip"), tmp_path / "data"
    (into / ".unpacking.other").mkdir(parents=True)
    unpack(archive, into, "set")
    assert sorted(path.name for path in into.iterdir()) == [".unpacking.other", "set"]


def test_a_member_that_comes_twice_is_refused(tmp_path):
    archive = write_tar(tmp_path / "a.tar.gz", (tar_member("x"), b"1"), (tar_member("x"), b"2"))
    with pytest.raises(DataError, match=r"cannot unpack .*: File exists"):
        unpack(archive, tmp_path / "data", "set")


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot unpack .*: Not a directory"):
        unpack(good(tmp_path, "zip"), tmp_path / "file" / "data", "set")


def test_a_file_is_compared_with_what_was_published(tmp_path):
    file = tmp_path / "a.zip"
    file.write_bytes(CONTENT)
    md5 = hashlib.md5(CONTENT).hexdigest()
    verify(file, md5, len(CONTENT), "example.org")
    verify(file, None, None, "example.org")
    with pytest.raises(DataError, match=r"a.zip has 76800 bytes: expected 5; .*example.org"):
        verify(file, md5, 5, "example.org")
    with pytest.raises(DataError, match=rf"a.zip has the MD5 {md5}: expected {'0' * 32}; .*example.org"):
        verify(file, "0" * 32, None, "example.org")
    with pytest.raises(DataError, match=r"cannot read .*b.zip: No such file or directory; it comes from example.org"):
        verify(tmp_path / "b.zip", md5, None, "example.org")
