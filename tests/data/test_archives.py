"""Archives made here, honest and hostile, in the three formats."""

import io
import os
import shutil
import struct
import tarfile
import zipfile
import zlib

import pytest
import rarfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sahlib.data.archives import Limits, inner_path, unpack
from sahlib.study import StudyError

CONTENT = {"scans/Patient Ä 01.nii": bytes(range(256)) * 40, "scans/deep/2.nii": b"two", "empty.txt": b""}
MAKERS = {}


def maker(ending):
    return lambda function: MAKERS.setdefault(ending, function)


@maker("zip")
def make_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)


@maker("tar")
def make_tar(path, files):
    _make_tar(path, files, "w")


@maker("tar.gz")
def make_tar_gz(path, files):
    _make_tar(path, files, "w:gz")


def _make_tar(path, files, mode):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            add(archive, name, content)


def add(archive, name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(content))


@maker("rar")
def make_rar(path, files):
    """RAR 5.0 with stored members, which rarfile reads without an external program."""
    path.write_bytes(b"".join([RAR_START, *(rar_member(name, content) for name, content in files.items()), RAR_END]))


def number(value):
    """A variable-length integer of RAR 5.0: seven bits a byte, lowest first."""
    coded = b""
    while value > 127:
        coded += bytes([value & 127 | 128])
        value >>= 7
    return coded + bytes([value])


def rar_block(fields):
    block = number(len(fields)) + fields
    return struct.pack("<I", zlib.crc32(block)) + block


def rar_member(name, content, method=0, extra=b""):
    extra = number(len(extra)) + extra if extra else b""
    flags = 2 | (1 if extra else 0)
    fields = number(2) + number(flags) + (number(len(extra)) if extra else b"") + number(len(content))
    fields += number(4) + number(len(content)) + number(0o100644) + struct.pack("<I", zlib.crc32(content))
    fields += number(method << 7) + number(1) + number(len(name.encode())) + name.encode()
    return rar_block(fields + extra) + content


RAR_START = b"Rar!\x1a\x07\x01\x00" + rar_block(number(1) + number(0) + number(0))
RAR_END = rar_block(number(5) + number(0) + number(0))


def made(tmp_path, ending, files):
    path = tmp_path / f"set.{ending}"
    MAKERS[ending](path, files)
    return path


def refused(archive, match, limits=None):
    """Unpacking says so in one sentence and leaves no trace."""
    before = set(archive.parent.rglob("*"))
    with pytest.raises(StudyError, match=match) as caught:
        unpack(archive, archive.parent / "out", *([limits] if limits else []))
    assert str(archive) in str(caught.value) and "\n" not in str(caught.value)
    assert set(archive.parent.rglob("*")) == before


formats = pytest.mark.parametrize("ending", MAKERS)


@formats
def test_what_was_packed_comes_out(tmp_path, ending):
    folder = unpack(made(tmp_path, ending, CONTENT), tmp_path / "new" / "out")
    assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == CONTENT
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["out"]


@formats
@pytest.mark.parametrize(
    "name", ["/etc/evil", "../evil", "a/../../evil", "C:\\evil", "c:evil", "..\\evil", "a/..", "\\evil", "bell\a.nii"]
)
def test_a_name_that_leads_out_is_refused(tmp_path, ending, name):
    refused(made(tmp_path, ending, {"good.nii": b"1", name: b"2"}), "refused because its (path|name)")


@formats
def test_a_name_that_is_there_twice_is_refused(tmp_path, ending):
    refused(made(tmp_path, ending, {"a": b"1", "./a": b"2"}), "another member has the same name")
    refused(made(tmp_path, ending, {"a": b"1", "a/b": b"2"}), "another member has the same name")


@formats
def test_too_many_and_too_much_are_refused(tmp_path, ending):
    archive = made(tmp_path, ending, {f"{i}.nii": b"x" * 100 for i in range(20)})
    refused(archive, "more than 19 files", Limits(members=19))
    refused(archive, "unpacks to more than", Limits(total_bytes=1999))
    refused(archive, "unpacks to more than", Limits(expansion=0, unquestioned_bytes=1999))
    assert len(list(unpack(archive, tmp_path / "out", Limits(20, 2000)).iterdir())) == 20


def test_limits_grow_with_the_archive():
    assert Limits().allowed_bytes(10) == 10**9
    assert Limits().allowed_bytes(648_502_298) == 20 * 648_502_298
    assert Limits().allowed_bytes(10**12) == 50 * 10**9


@formats
def test_an_archive_cut_anywhere_is_refused(tmp_path, ending):
    archive = made(tmp_path, ending, {"a.nii": os.urandom(600), "b.nii": os.urandom(600)})
    whole = archive.read_bytes()
    useful = len(whole.rstrip(b"\0")) + 512 if ending == "tar" else len(whole)
    for length in range(0, useful, 97):
        archive.write_bytes(whole[:length])
        refused(archive, "cannot be unpacked|is no zip, tar, tar.gz or rar|refused")


@formats
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_give_the_content_or_a_sentence(tmp_path, ending, data):
    archive = made(tmp_path, ending, CONTENT)
    damaged = bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    archive.write_bytes(damaged)
    out = tmp_path / "out"
    try:
        unpack(archive, out, Limits(total_bytes=10**7))
    except StudyError as error:
        assert str(archive) in str(error)
        assert not out.exists()
    else:
        if ending != "tar":  # which has no checksum over contents
            assert all(p.read_bytes() in CONTENT.values() for p in out.rglob("*") if p.is_file())
        shutil.rmtree(out)
    assert {p.name for p in tmp_path.iterdir()} == {archive.name}


@given(st.text(max_size=40) | st.text(alphabet="./\\:aC ", max_size=12))
def test_no_name_leads_out(name):
    try:
        path = inner_path(name)
    except ValueError:
        return
    assert not path.is_absolute() and ".." not in path.parts
    assert os.path.normpath(os.path.join("/set", path)).startswith("/set/")


def test_very_long_names_are_refused(tmp_path):
    refused(made(tmp_path, "zip", {"x" * 300: b""}), "empty or too long")
    refused(made(tmp_path, "tar", {"/".join("x" * 200 for _ in range(6)): b""}), "empty or too long")


def test_folders_are_made_and_the_folder_itself_is_no_member(tmp_path):
    archive = tmp_path / "set.tar"
    with tarfile.open(archive, "w") as opened:
        add(opened, "./", type=tarfile.DIRTYPE)
        add(opened, "./scans", type=tarfile.DIRTYPE)
        add(opened, "./scans/1.nii", b"1")
    assert (unpack(archive, tmp_path / "out") / "scans" / "1.nii").read_bytes() == b"1"


@pytest.mark.parametrize("target", ["/etc/passwd", "../../x", "1.nii"])
def test_symbolic_links_are_refused(tmp_path, target):
    archive = tmp_path / "set.tar"
    with tarfile.open(archive, "w") as opened:
        add(opened, "1.nii", b"1")
        add(opened, "link.nii", type=tarfile.SYMTYPE, linkname=target)
    refused(archive, "it is a link")
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        info = zipfile.ZipInfo("link.nii")
        info.external_attr = 0o120777 << 16
        opened.writestr(info, target)
    refused(archive, "it is a link")
    archive = tmp_path / "set.rar"
    record = number(5) + number(1) + number(0) + number(len(target)) + target.encode()
    archive.write_bytes(RAR_START + rar_member("link.nii", b"", extra=record) + RAR_END)
    refused(archive, "it is a link")


def test_a_hard_link_becomes_a_copy_and_leads_nowhere_else(tmp_path):
    archive = tmp_path / "set.tar"
    with tarfile.open(archive, "w") as opened:
        add(opened, "1.nii", b"one")
        add(opened, "2.nii", type=tarfile.LNKTYPE, linkname="1.nii")
    folder = unpack(archive, tmp_path / "out")
    assert (folder / "2.nii").read_bytes() == b"one" and (folder / "2.nii").stat().st_nlink == 1
    with tarfile.open(archive, "w") as opened:
        add(opened, "2.nii", type=tarfile.LNKTYPE, linkname="/etc/passwd")
    with pytest.raises(StudyError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "other")
    with tarfile.open(archive, "w") as opened:
        add(opened, "2.nii", type=tarfile.LNKTYPE, linkname="2.nii")
    with pytest.raises(StudyError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "other")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_are_refused(tmp_path, kind):
    archive = tmp_path / "set.tar"
    with tarfile.open(archive, "w") as opened:
        add(opened, "null", type=kind)
    refused(archive, "it is a device")


def test_encrypted_archives_are_refused(tmp_path):
    archive = made(tmp_path, "zip", {"a.nii": b"secret"})
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flags in both headers
        content[content.index(signature) + offset] |= 1
    archive.write_bytes(content)
    refused(archive, "is encrypted")
    archive = tmp_path / "set.rar"
    record = number(1) + number(0) + number(0) + bytes([15]) + bytes(16) + bytes(16)
    archive.write_bytes(RAR_START + rar_member("a.nii", b"secret", extra=record) + RAR_END)
    refused(archive, "is encrypted")


def test_a_zip_that_lies_about_its_size_is_stopped_while_it_unpacks(tmp_path):
    archive = made(tmp_path, "zip", {"bomb.nii": bytes(10**6)})
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = content.index(signature) + offset
        content[start : start + 4] = struct.pack("<I", 10)
    archive.write_bytes(content)
    refused(archive, "cannot be unpacked|unpacks to more than", Limits(total_bytes=1000))


def test_the_format_is_told_by_content_and_not_by_name(tmp_path):
    misnamed = made(tmp_path, "zip", CONTENT).rename(tmp_path / "set.rar")
    assert (unpack(misnamed, tmp_path / "honest") / "empty.txt").exists()
    text = tmp_path / "page.zip"
    text.write_text("<html>please sign in</html>")
    refused(text, "is no zip, tar, tar.gz or rar archive")
    with pytest.raises(StudyError, match="is not there"):
        unpack(tmp_path / "missing.zip", tmp_path / "other")


def test_compressed_rar_without_a_program_says_what_to_install(tmp_path, monkeypatch):
    def none_found(*_, **__):
        raise rarfile.RarCannotExec("Cannot find working tool")

    monkeypatch.setattr(rarfile, "tool_setup", none_found)
    archive = tmp_path / "set.rar"
    archive.write_bytes(RAR_START + rar_member("a.nii", b"packed", method=3) + RAR_END)
    with pytest.raises(StudyError, match="install unrar, unar, 7z or bsdtar"):
        unpack(archive, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["set.rar"]


def test_nothing_of_the_user_is_touched(tmp_path):
    archive = made(tmp_path, "zip", CONTENT)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(StudyError, match="mine is not empty"):
        unpack(archive, folder)
    with pytest.raises(StudyError, match="notes.txt is a file; choose"):
        unpack(archive, folder / "notes.txt")
    with pytest.raises(StudyError, match="notes.txt is a file, so"):
        unpack(archive, folder / "notes.txt" / "below")
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    assert len(list(unpack(archive, folder).iterdir())) == 2  # an empty folder is used


def test_progress_sees_every_member(tmp_path):
    seen = []

    def progress(members):
        for member in members:
            seen.append(member.name)
            yield member

    unpack(made(tmp_path, "zip", CONTENT), tmp_path / "out", progress=progress)
    assert seen == list(CONTENT)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_said_in_one_sentence(tmp_path, monkeypatch):
    archive = made(tmp_path, "zip", CONTENT)
    real_open = open
    monkeypatch.setattr(
        "builtins.open",
        lambda file, mode="r", *rest, **named: (
            real_open("/dev/full", "wb") if mode == "xb" else real_open(file, mode, *rest, **named)
        ),
    )
    with pytest.raises(StudyError, match="disk is full"):
        unpack(archive, tmp_path / "out")
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["set.zip"]
