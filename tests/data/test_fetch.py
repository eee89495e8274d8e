"""Downloads from a server on this machine, whole, interrupted and wrong; rar archives made here, honest and hostile."""

import errno
import hashlib
import os
import re
import shutil
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import rarfile
from helpers.rar_writer import encrypted, member, packed, redirected
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sahlib.data import catalogue, fetch
from sahlib.data.catalogue import Archive
from sahlib.study import StudyError

CONTENT = os.urandom(500_000)


class Server(ThreadingHTTPServer):
    """Serves one content; the tests change how while it runs."""

    content = CONTENT
    ranges = True  # whether it answers Range
    stop_after = None  # bytes after which it closes the connection
    says_length = True
    status = 206
    shifted = 0  # by how much it misses the place it was asked for

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []  # the Range header of each request

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/set.rar"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append(self.headers["Range"])
        start = int(re.match(r"bytes=(\d+)-$", self.headers["Range"])[1]) + server.shifted if server.ranges else 0
        body = server.content[start:]
        self.send_response(server.status if server.ranges else 200)
        if server.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.stop_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def archive_of(server, content=CONTENT, **changes):
    checksum = f"md5:{hashlib.md5(content).hexdigest()}"
    return replace(Archive("set.rar", server.url, checksum, len(content)), **changes)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def begun(folder, content):
    """A download of which `content` has arrived."""
    unfinished = folder / ".set.rar.download"
    unfinished.mkdir()
    (unfinished / "part").write_bytes(content)
    return unfinished / "part"


def test_a_file_arrives_whole_and_is_not_fetched_twice(server, tmp_path):
    path = fetch.download(archive_of(server), tmp_path / "new")
    assert path.read_bytes() == CONTENT and names(path.parent) == ["set.rar"]
    fetch.download(archive_of(server), tmp_path / "new")
    assert server.asked == ["bytes=0-"]


def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    server.stop_after = 200_000
    with pytest.raises(StudyError, match="stopped after 0.2 of 0.5 MB.*same command again"):
        fetch.download(archive_of(server), tmp_path)
    have = (tmp_path / ".set.rar.download" / "part").stat().st_size
    assert 200_000 - fetch.CHUNK <= have <= 200_000 and not (tmp_path / "set.rar").exists()
    with pytest.raises(StudyError, match="stopped"):
        fetch.download(archive_of(server), tmp_path)
    server.stop_after = None
    assert fetch.download(archive_of(server), tmp_path).read_bytes() == CONTENT
    assert server.asked[:2] == ["bytes=0-", f"bytes={have}-"] and names(tmp_path) == ["set.rar"]


def test_a_server_that_cannot_resume_sends_it_all_again(server, tmp_path):
    server.stop_after, server.ranges = 200_000, False
    with pytest.raises(StudyError, match="stopped after 0.2"):
        fetch.download(archive_of(server), tmp_path)
    server.stop_after = None
    assert fetch.download(archive_of(server), tmp_path).read_bytes() == CONTENT


def test_a_server_that_does_not_say_the_length_is_counted(server, tmp_path):
    server.says_length, server.stop_after = False, 300_000
    with pytest.raises(StudyError, match="stopped after 0.3 of 0.5 MB .the server ended the connection"):
        fetch.download(archive_of(server), tmp_path)
    server.stop_after, server.content = None, CONTENT + b"more"
    with pytest.raises(StudyError, match="another checksum"):
        fetch.download(archive_of(server), tmp_path)


def test_what_arrived_whole_before_a_crash_is_not_asked_for_again(server, tmp_path):
    begun(tmp_path, CONTENT)
    assert fetch.download(archive_of(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [] and names(tmp_path) == ["set.rar"]


@pytest.mark.parametrize("arrived", [b"other" * 1000, CONTENT + b"more"])
def test_a_part_of_another_file_is_thrown_away(server, tmp_path, arrived):
    begun(tmp_path, arrived)
    with pytest.raises(StudyError, match="another checksum than md5:.*was removed"):
        fetch.download(archive_of(server), tmp_path)
    assert names(tmp_path) == []
    assert fetch.download(archive_of(server), tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_removes_the_file_and_says_so(server, tmp_path):
    server.content = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
    with pytest.raises(StudyError, match="another checksum than md5:.*was removed"):
        fetch.download(archive_of(server), tmp_path)
    assert names(tmp_path) == []


def test_a_file_of_another_length_is_not_downloaded(server, tmp_path):
    with pytest.raises(StudyError, match="is not of 7 bytes any more"):
        fetch.download(archive_of(server, size=7), tmp_path)
    assert names(tmp_path) == []
    begun(tmp_path, CONTENT[:1000])
    server.shifted = 5
    with pytest.raises(StudyError, match="is not of 500000 bytes"):
        fetch.download(archive_of(server), tmp_path)


def test_a_file_of_the_user_under_that_name_is_left_alone(server, tmp_path):
    mine = tmp_path / "set.rar"
    mine.write_text("mine")
    with pytest.raises(StudyError, match="set.rar is not the file.*move it away"):
        fetch.download(archive_of(server), tmp_path)
    assert mine.read_text() == "mine" and names(tmp_path) == ["set.rar"] and server.asked == []


def test_errors_of_the_network_are_one_sentence(server, tmp_path):
    server.status = 404
    with pytest.raises(StudyError, match=r"stopped after 0.0 of 0.5 MB \(HTTP 404\)"):
        fetch.download(archive_of(server), tmp_path)
    nobody = archive_of(server, url="http://127.0.0.1:1/set.rar")
    with pytest.raises(StudyError, match=r"\(ConnectionError\)"):
        fetch.download(nobody, tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_said_in_one_sentence(server, tmp_path):
    part = begun(tmp_path, b"")
    part.unlink()
    part.symlink_to("/dev/full")
    with pytest.raises(StudyError, match="disk is full"):
        fetch.download(archive_of(server), tmp_path)


PACKED = {"scans/Patient Ä 01.nii": bytes(range(256)) * 40, "scans/deep/2.nii": b"two", "empty.txt": b""}


def packed_files(folder, files=PACKED):
    return packed(folder / "set.rar", *(member(name, content) for name, content in files.items()))


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(archive, match):
    """Unpacking says so in one sentence and leaves no trace."""
    before = set(archive.parent.rglob("*"))
    with pytest.raises(StudyError, match=match) as caught:
        fetch.unpack(archive, archive.parent / "out")
    assert str(archive) in str(caught.value) and "\n" not in str(caught.value)
    assert set(archive.parent.rglob("*")) == before


def test_what_was_packed_comes_out(tmp_path):
    folder = tmp_path / "new" / "out"
    fetch.unpack(packed_files(tmp_path), folder)
    assert contents(folder) == PACKED
    assert names(folder.parent) == ["out"]
    again = tmp_path / "empty"
    again.mkdir()
    fetch.unpack(tmp_path / "set.rar", again)
    assert names(again) == ["empty.txt", "scans"]


@pytest.mark.parametrize("name", ["/etc/evil", "../evil", "a/../../evil", "../out-2/evil"])
def test_a_name_that_leads_out_is_refused(tmp_path, name):
    refused(packed_files(tmp_path, {"good.nii": b"1", name: b"2"}), "is a link or leads out of the folder")


@given(st.text(max_size=40) | st.text(alphabet="./\\:aC ", max_size=12))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_name_leads_out(tmp_path, name):
    archive = packed_files(tmp_path, {name: b"1"})
    try:
        fetch.unpack(archive, tmp_path / "out")
    except StudyError:
        assert names(tmp_path) == ["set.rar"]
    else:
        assert sum(path.is_file() for path in (tmp_path / "out").rglob("*")) == 1
        assert names(tmp_path) == ["out", "set.rar"]
        shutil.rmtree(tmp_path / "out")


def test_a_name_that_is_there_twice_or_cannot_be_is_refused(tmp_path):
    for files in ({"a": b"1", "./a": b"2"}, {"a": b"1", "a/b": b"2"}, {"a/..": b"1"}, {"x" * 300: b"1"}):
        refused(packed_files(tmp_path, files), "cannot be unpacked")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../x", "1.nii"])
def test_symbolic_links_are_refused(tmp_path, target):
    members = member("1.nii", b"one"), member("link.nii", b"", redirected(1, target))
    refused(packed(tmp_path / "set.rar", *members), "is a link")


@pytest.mark.parametrize("kind", [4, 5])
def test_a_hard_link_becomes_a_copy_and_leads_nowhere_else(tmp_path, kind):
    archive, folder = tmp_path / "set.rar", tmp_path / "whole"
    packed(archive, member("1.nii", b"one"), member("2.nii", b"", redirected(kind, "1.nii")))
    fetch.unpack(archive, folder)
    assert (folder / "2.nii").read_bytes() == b"one" and (folder / "2.nii").stat().st_nlink == 1
    refused(packed(archive, member("2.nii", b"", redirected(kind, "/etc/passwd"))), "cannot be unpacked")


def test_encrypted_archives_are_refused(tmp_path):
    archive = packed(tmp_path / "set.rar", member("a.nii", b"secret", encrypted()))
    refused(archive, "cannot be unpacked.*requires password")


def test_an_archive_cut_anywhere_is_refused(tmp_path):
    archive = packed_files(tmp_path, {"a.nii": os.urandom(60), "b.nii": os.urandom(60)})
    whole = archive.read_bytes()
    for length in range(len(whole)):
        archive.write_bytes(whole[:length])
        refused(archive, "cannot be unpacked")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_give_the_content_or_a_sentence(tmp_path, data):
    archive = packed_files(tmp_path)
    damaged = bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    archive.write_bytes(damaged)
    out = tmp_path / "out"
    try:
        fetch.unpack(archive, out)
    except StudyError as error:
        assert str(archive) in str(error) and not out.exists()
    else:
        assert contents(out) == PACKED
        shutil.rmtree(out)
    assert names(tmp_path) == ["set.rar"]


def test_a_disk_that_fills_while_unpacking_is_said_in_one_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    archive = packed_files(tmp_path)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(StudyError, match="disk is full"):
        fetch.unpack(archive, tmp_path / "out")
    assert names(tmp_path) == ["set.rar"]


# The whole way.


@pytest.fixture
def open_set(server, tmp_path, monkeypatch):
    """A set of the catalogue that the local server offers, with everything in one folder; as if unrar were there."""
    files = {name: name.encode() for name in ("top/images/1 ä.nii", "top/masks/1 ä.nii", "__MACOSX/top/._1.nii")}
    path = packed_files(tmp_path, files)
    server.content = path.read_bytes()
    path.unlink()
    chosen = replace(catalogue.find("rhuh_sah"), archive=archive_of(server, server.content))
    monkeypatch.setattr(catalogue, "CATALOGUE", {"rhuh_sah": chosen})
    monkeypatch.setattr(rarfile, "tool_setup", lambda: None)
    return chosen


def test_an_open_set_is_fetched_unpacked_and_named(open_set, server, tmp_path):
    folder = tmp_path / "my data" / "sah"
    said = fetch.data("rhuh_sah", folder)
    assert names(folder / "top") == ["images", "masks"]
    assert f"rhuh_sah is in {folder / 'top'}" in said and "CC BY 4.0" in said
    assert f"./run_all.sh --dataset rhuh_sah --data-dir '{folder / 'top'}'" in said
    assert names(folder.parent) == ["sah", "set.rar"]
    with pytest.raises(StudyError, match="is not empty"):
        fetch.data("rhuh_sah", folder)
    fetch.data("rhuh_sah", folder.with_name("again"))
    assert server.asked == ["bytes=0-"]


def test_a_folder_that_holds_something_is_refused_before_anything_is_downloaded(open_set, server, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    for folder, match in (
        (mine, "mine is not empty"),
        (mine / "notes.txt", "notes.txt is a file; choose"),
        (mine / "notes.txt" / "below", "notes.txt is a file; choose"),
    ):
        with pytest.raises(StudyError, match=match):
            fetch.data("rhuh_sah", folder)
    assert server.asked == [] and names(tmp_path) == ["mine"] and names(mine) == ["notes.txt"]


def test_rar_without_a_program_is_refused_before_anything_is_downloaded(open_set, server, tmp_path, monkeypatch):
    def none_found():
        raise rarfile.RarCannotExec("Cannot find working tool")

    monkeypatch.setattr(rarfile, "tool_setup", none_found)
    with pytest.raises(StudyError, match="install unrar, unar, 7z or bsdtar"):
        fetch.data("rhuh_sah", tmp_path / "out")
    assert server.asked == [] and names(tmp_path) == []


@pytest.mark.parametrize("name", ["ct_ich", "bhsd", "mbh_seg", "instance2022", "nifti"])
def test_what_is_not_open_says_what_to_do_instead(name, tmp_path):
    with pytest.raises(StudyError, match=f"{name} cannot be fetched for you"):
        fetch.data(name, tmp_path / "out")
    assert names(tmp_path) == []


def test_without_a_folder_everything_is_only_told():
    assert fetch.data() == catalogue.listing()
    assert fetch.data("ct_ich") == catalogue.describe(catalogue.find("ct_ich"))
    with pytest.raises(StudyError, match="--to needs the name"):
        fetch.data("", "somewhere")
    with pytest.raises(StudyError, match="'kaggle' is no set.*rhuh_sah"):
        fetch.data("kaggle")


def test_the_innermost_folder_is_where_the_content_is(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "a" / "b" / "1.nii").touch()
    assert fetch.innermost(tmp_path) == tmp_path / "a" / "b"
    (tmp_path / "c").mkdir()
    assert fetch.innermost(tmp_path) == tmp_path
