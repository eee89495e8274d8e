"""Downloads from a server on this machine, whole, interrupted and wrong."""

import hashlib
import os
import re
import threading
import zipfile
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
    ranges = True  # whether it answers Range
    stop_after = None  # bytes after which it closes the connection
    says_length = True
    status = 200
    shifted = 0  # by how much it misses the place it was asked for

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []  # the Range header of each request, None where there was none

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/set.bin"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append(self.headers["Range"])
        start, status = 0, server.status
        if self.headers["Range"] and server.ranges:
            start, status = int(re.match(r"bytes=(\d+)-$", self.headers["Range"])[1]) + server.shifted, 206
        body = server.content[start:]
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
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
    return replace(Archive("set.bin", server.url, checksum, len(content)), **changes)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_and_is_not_fetched_twice(server, tmp_path):
    path = fetch.download(archive_of(server), tmp_path / "new")
    assert path.read_bytes() == CONTENT and names(path.parent) == ["set.bin"]
    fetch.download(archive_of(server), tmp_path / "new")
    assert server.asked == [None]


def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    server.stop_after = 200_000
    with pytest.raises(StudyError, match="stopped after 0.2 of 0.5 MB.*same command again"):
        fetch.download(archive_of(server), tmp_path)
    have = (tmp_path / ".set.bin.download" / "part").stat().st_size
    assert 200_000 - fetch.CHUNK <= have <= 200_000 and not (tmp_path / "set.bin").exists()
    with pytest.raises(StudyError, match="stopped"):
        fetch.download(archive_of(server), tmp_path)
    server.stop_after = None
    assert fetch.download(archive_of(server), tmp_path).read_bytes() == CONTENT
    assert server.asked[:2] == [None, f"bytes={have}-"] and names(tmp_path) == ["set.bin"]


def test_a_server_that_cannot_resume_sends_it_all_again(server, tmp_path, capsys):
    server.stop_after, server.ranges = 200_000, False
    with pytest.raises(StudyError, match="stopped"):
        fetch.download(archive_of(server), tmp_path)
    server.stop_after = None
    assert fetch.download(archive_of(server), tmp_path).read_bytes() == CONTENT
    assert "cannot go on in the middle" in capsys.readouterr().err


def test_a_server_that_does_not_say_the_length_is_counted(server, tmp_path):
    server.says_length, server.stop_after = False, 300_000
    with pytest.raises(StudyError, match="stopped after 0.3 of 0.5 MB .the server ended the connection"):
        fetch.download(archive_of(server), tmp_path)
    server.stop_after, server.content = None, CONTENT + b"more"
    with pytest.raises(StudyError, match="sends more than 500000 bytes"):
        fetch.download(archive_of(server), tmp_path)


def test_what_arrived_whole_before_a_crash_is_not_asked_for_again(server, tmp_path):
    unfinished = tmp_path / ".set.bin.download"
    unfinished.mkdir()
    (unfinished / "part").write_bytes(CONTENT)
    assert fetch.download(archive_of(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == []


def test_a_part_longer_than_the_file_is_thrown_away(server, tmp_path):
    unfinished = tmp_path / ".set.bin.download"
    unfinished.mkdir()
    (unfinished / "part").write_bytes(CONTENT + b"more")
    assert fetch.download(archive_of(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None]


def test_a_wrong_checksum_removes_the_file_and_says_so(server, tmp_path):
    server.content = b"x" + CONTENT[1:]
    with pytest.raises(StudyError, match="another checksum than md5:.*was removed"):
        fetch.download(archive_of(server), tmp_path)
    assert names(tmp_path) == []
    server.content = CONTENT
    assert fetch.download(archive_of(server), tmp_path).read_bytes() == CONTENT


def test_a_part_of_another_file_does_not_pass(server, tmp_path):
    unfinished = tmp_path / ".set.bin.download"
    unfinished.mkdir()
    (unfinished / "part").write_bytes(b"other" * 1000)
    with pytest.raises(StudyError, match="another checksum"):
        fetch.download(archive_of(server), tmp_path)
    assert fetch.download(archive_of(server), tmp_path).read_bytes() == CONTENT


def test_a_file_of_another_length_is_not_downloaded(server, tmp_path):
    with pytest.raises(StudyError, match="offers another file than the one of 7 bytes"):
        fetch.download(archive_of(server, size=7), tmp_path)
    server.stop_after = 200_000
    with pytest.raises(StudyError, match="stopped"):
        fetch.download(archive_of(server), tmp_path)
    server.stop_after, server.shifted = None, 5
    with pytest.raises(StudyError, match="offers another file"):
        fetch.download(archive_of(server), tmp_path)


def test_a_file_of_the_user_under_that_name_is_left_alone(server, tmp_path):
    mine = tmp_path / "set.bin"
    mine.write_text("mine")
    with pytest.raises(StudyError, match="set.bin is not the file.*move it away"):
        fetch.download(archive_of(server), tmp_path)
    assert mine.read_text() == "mine" and names(tmp_path) == ["set.bin"] and server.asked == []


def test_errors_of_the_network_are_one_sentence(server, tmp_path):
    server.status = 404
    with pytest.raises(StudyError, match=r"stopped after 0.0 of 0.5 MB \(HTTP 404\)"):
        fetch.download(archive_of(server), tmp_path)
    nobody = archive_of(server, url="http://127.0.0.1:1/set.bin")
    with pytest.raises(StudyError, match=r"\(ConnectionError\)"):
        fetch.download(nobody, tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_said_in_one_sentence(server, tmp_path, monkeypatch):
    real_open = open
    monkeypatch.setattr(
        "builtins.open",
        lambda file, mode="r", *rest, **named: (
            _Full(real_open(file, mode, *rest, **named))
            if str(file).endswith("part")
            else real_open(file, mode, *rest, **named)
        ),
    )
    with pytest.raises(StudyError, match="disk is full"):
        fetch.download(archive_of(server), tmp_path)


class _Full:
    """A file on a full disk."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def truncate(self, size):
        self.file.truncate(size)

    def write(self, _):
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")


@pytest.fixture
def open_set(server, tmp_path, monkeypatch):
    """A set of the catalogue that the local server offers as a zip with everything in one folder."""
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w") as opened:
        for name in ("top/images/1 ä.nii", "top/masks/1 ä.nii", "__MACOSX/top/._1.nii"):
            opened.writestr(name, name)
    server.content = path.read_bytes()
    archive = archive_of(server, server.content, file="set.zip")
    chosen = replace(catalogue.find("rhuh_sah"), archive=archive)
    monkeypatch.setattr(catalogue, "CATALOGUE", (chosen,))
    return chosen


def test_an_open_set_is_fetched_unpacked_and_named(open_set, server, tmp_path):
    folder = tmp_path / "my data" / "sah"
    said = fetch.data("rhuh_sah", folder)
    assert names(folder / "top") == ["images", "masks"]
    assert f"rhuh_sah is in {folder / 'top'}" in said and "CC BY 4.0" in said
    assert f"./run_all.sh --dataset rhuh_sah --data-dir '{folder / 'top'}'" in said
    assert names(folder.parent) == ["sah", "set.zip"]
    with pytest.raises(StudyError, match="is not empty"):
        fetch.data("rhuh_sah", folder)
    fetch.data("rhuh_sah", folder.with_name("again"))
    assert server.asked == [None]


def test_a_folder_that_holds_something_is_refused_before_anything_is_downloaded(open_set, server, tmp_path):
    with pytest.raises(StudyError, match="is not empty"):
        fetch.data("rhuh_sah", tmp_path)
    assert server.asked == []


def test_rar_without_a_program_is_refused_before_anything_is_downloaded(server, tmp_path, monkeypatch):
    def none_found(*_, **__):
        raise rarfile.RarCannotExec("Cannot find working tool")

    monkeypatch.setattr(rarfile, "tool_setup", none_found)
    with pytest.raises(StudyError, match="install unrar"):
        fetch.fetch_and_unpack(archive_of(server, file="set.rar"), tmp_path / "out")
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
