"""Archives: what is unpacked, what is refused, and that nothing is left behind."""

import hashlib
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

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
    unpack(good(tmp_path, kind), into)
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
        unpack(archive, into)
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
        unpack(archive, tmp_path / "data")


def linked(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


OUTSIDE = ["/tmp/evil", "../evil", "set/../../evil", "set\\..\\evil"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_members_outside_of_the_folder_are_refused(tmp_path, name):
    archives = [
        write_tar(tmp_path / "a.tar.gz", (tar_member("good"), b"1"), (tar_member(name), b"2")),
        write_zip(tmp_path / "a.zip", ("good", b"1"), (name, b"2")),
    ]
    for archive in archives:
        into = tmp_path / "data" / "set"
        with pytest.raises(DataError, match="would leave its folder"):
            unpack(archive, into)
        assert list(into.iterdir()) == []
        assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    archive = write_tar(tmp_path / "a.tar.gz", (tar_member("link", kind, "/etc/passwd"), b""))
    with pytest.raises(DataError, match="link is neither a file nor a folder"):
        unpack(archive, tmp_path / "data")


def test_links_in_zip_files_are_refused(tmp_path):
    archive = write_zip(tmp_path / "a.zip", (linked("link"), b"/etc/passwd"))
    with pytest.raises(DataError, match="link is neither a file nor a folder"):
        unpack(archive, tmp_path / "data")


def test_what_is_there_is_not_replaced(tmp_path):
    archive, into = good(tmp_path, "zip"), tmp_path / "data"
    (into / "set").mkdir(parents=True)
    with pytest.raises(DataError, match="set is there already"):
        unpack(archive, into)
    assert list((into / "set").iterdir()) == []
    assert [path.name for path in into.iterdir()] == ["set"]


def test_a_member_that_comes_twice_is_refused(tmp_path):
    archive = write_tar(tmp_path / "a.tar.gz", (tar_member("x"), b"1"), (tar_member("x"), b"2"))
    with pytest.raises(DataError, match=r"cannot unpack .*: File exists"):
        unpack(archive, tmp_path / "data")


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot unpack .*: Not a directory"):
        unpack(good(tmp_path, "zip"), tmp_path / "file" / "data")


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
