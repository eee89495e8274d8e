"""Downloads from a server on this machine, whole, interrupted and wrong, and archives made here."""

import hashlib
import os
import struct
import threading
import zlib
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import rarfile

from sahlib.data import catalogue, fetch
from sahlib.data.catalogue import Archive
from sahlib.study import StudyError

CONTENT = os.urandom(500_000)


class Server(ThreadingHTTPServer):
    """Serves one content; the tests change how while it runs."""

    content = CONTENT
    stop_after = None  # bytes after which it closes the connection
    status = 200

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/set.bin"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked += 1
        self.send_response(server.status)
        self.send_header("Content-Length", str(len(server.content)))
        self.end_headers()
        self.wfile.write(server.content[: server.stop_after])

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


def archive_of(server, content=CONTENT, **changes):
    checksum = f"md5:{hashlib.md5(content).hexdigest()}"
    return replace(Archive("set.bin", server.url, checksum, len(content)), **changes)


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_a_file_arrives_whole_and_is_not_fetched_twice(server, tmp_path):
    path = fetch.download(archive_of(server), tmp_path / "new")
    assert path.read_bytes() == CONTENT and names(path.parent) == ["set.bin"]
    fetch.download(archive_of(server), tmp_path / "new")
    assert server.asked == 1


def test_an_interrupted_download_leaves_nothing_and_is_tried_again(server, tmp_path):
    server.stop_after = 200_000
    with pytest.raises(StudyError, match="stopped .*same command again|another checksum"):
        fetch.download(archive_of(server), tmp_path)
    assert names(tmp_path) == []
    server.stop_after = None
    assert fetch.download(archive_of(server), tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_removes_the_file_and_says_so(server, tmp_path):
    server.content = b"x" + CONTENT[1:]
    with pytest.raises(StudyError, match="another checksum than md5:.*was removed"):
        fetch.download(archive_of(server), tmp_path)
    assert names(tmp_path) == []


def test_a_file_of_the_user_under_that_name_is_left_alone(server, tmp_path):
    mine = tmp_path / "set.bin"
    mine.write_text("mine")
    with pytest.raises(StudyError, match="set.bin is not the file.*move it away"):
        fetch.download(archive_of(server), tmp_path)
    assert mine.read_text() == "mine" and names(tmp_path) == ["set.bin"] and server.asked == 0


def test_errors_of_the_network_are_one_sentence(server, tmp_path):
    server.status = 404
    with pytest.raises(StudyError, match=r"stopped \(HTTP 404\)"):
        fetch.download(archive_of(server), tmp_path)
    nobody = archive_of(server, url="http://127.0.0.1:1/set.bin")
    with pytest.raises(StudyError, match=r"\(ConnectionError\)"):
        fetch.download(nobody, tmp_path)


@pytest.fixture
def open_set(server, tmp_path, monkeypatch):
    """A set of the catalogue that the local server offers as a rar with everything in one folder."""
    monkeypatch.setattr(rarfile, "tool_setup", lambda: None)
    path = tmp_path / "made.rar"
    make_rar(path, {n: n.encode() for n in ("top/images/1 ä.nii", "top/masks/1 ä.nii", "__MACOSX/top/._1.nii")})
    server.content = path.read_bytes()
    archive = archive_of(server, server.content, file="set.rar")
    chosen = replace(catalogue.find("rhuh_sah"), archive=archive)
    monkeypatch.setattr(catalogue, "CATALOGUE", {"rhuh_sah": chosen})
    return chosen


def test_an_open_set_is_fetched_unpacked_and_named(open_set, server, tmp_path):
    folder = tmp_path / "my data" / "sah"
    said = fetch.data("rhuh_sah", folder)
    assert names(folder / "top") == ["images", "masks"]
    assert (folder / "top" / "images" / "1 ä.nii").read_text() == "top/images/1 ä.nii"
    assert f"rhuh_sah is in {folder / 'top'}" in said and "CC BY 4.0" in said
    assert f"./run_all.sh --dataset rhuh_sah --data-dir '{folder / 'top'}'" in said
    assert names(folder.parent) == ["sah", "set.rar"]
    with pytest.raises(StudyError, match="is not empty"):
        fetch.data("rhuh_sah", folder)
    fetch.data("rhuh_sah", folder.with_name("again"))
    assert server.asked == 1


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt"])
def test_no_member_lands_outside_the_folder(tmp_path, name):
    make_rar(tmp_path / "set.rar", {name: b"x", "in.txt": b"y"})
    fetch.unpack(tmp_path / "set.rar", tmp_path / "a" / "b")
    assert names(tmp_path) == ["a", "set.rar"] and names(tmp_path / "a") == ["b"]


@pytest.mark.parametrize("cut", [3, 60, 200])
def test_a_damaged_archive_leaves_no_folder(tmp_path, cut):
    make_rar(tmp_path / "set.rar", {"a.nii": b"x" * 150, "b.nii": b"y" * 150})
    (tmp_path / "set.rar").write_bytes((tmp_path / "set.rar").read_bytes()[:cut])
    with pytest.raises(StudyError, match="set.rar cannot be unpacked"):
        fetch.unpack(tmp_path / "set.rar", tmp_path / "out")
    assert names(tmp_path) == ["set.rar"]


def test_a_folder_that_holds_something_is_refused_before_anything_is_downloaded(open_set, server, tmp_path):
    with pytest.raises(StudyError, match="is not empty"):
        fetch.data("rhuh_sah", tmp_path)
    assert server.asked == 0


def test_rar_without_a_program_is_refused_before_anything_is_downloaded(server, tmp_path, monkeypatch):
    def none_found(*_, **__):
        raise rarfile.RarCannotExec("Cannot find working tool")

    monkeypatch.setattr(rarfile, "tool_setup", none_found)
    with pytest.raises(StudyError, match="install unrar"):
        fetch.fetch_and_unpack(archive_of(server, file="set.rar"), tmp_path / "out")
    assert server.asked == 0 and names(tmp_path) == []


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
