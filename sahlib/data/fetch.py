"""Fetch: what `./run_all.sh data` says and does; sets under open licences are downloaded, checked and unpacked.

pooch checks the content and puts the file in its place only when it is right, but begins every download anew. Here it
is given a downloader that keeps what has arrived and asks the server for the rest (HTTP Range, RFC 9110 section 14).
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from sahlib.data import archives, catalogue
from sahlib.study import StudyError
from sahlib.workspace import alone_in, disk_errors_named

PART = "part"  # what has arrived of an unfinished download
CHUNK = 1 << 16  # what an interruption loses at most
TIMEOUT = (10, 60)  # seconds to connect, and to wait for the next bytes


def data(name: str = "", folder: Path | None = None) -> str:
    """What `./run_all.sh data [NAME] [--to DIR]` prints.

    Without a name all sets in one line each; with one where it comes from, its terms and layout; with a folder too it
    is fetched and unpacked there if its licence is open. Raises StudyError for an unknown name, for a set that must be
    fetched by hand, and where a download or an archive fails.
    """
    if not name:
        if folder is not None:
            raise StudyError("--to needs the name of a set before it: ./run_all.sh data NAME --to DIR.")
        return catalogue.listing()
    chosen = catalogue.find(name)
    if folder is None:
        return catalogue.describe(chosen)
    if chosen.archive is None:
        way = "it is data of your own." if chosen.access == catalogue.OWN else chosen.access.text
        raise StudyError(f"{name} cannot be fetched for you: {way} See ./run_all.sh data {name}.")
    found = fetch_and_unpack(chosen.archive, folder)
    return (
        f"{name} is in {found}\n"
        f"licence  {chosen.licence.text}\n"
        f"cite     {chosen.citation.text}\n"
        f"next     {catalogue.next_command(chosen, str(found))}"
    )


def fetch_and_unpack(archive: catalogue.Archive, folder: Path) -> Path:
    """The folder that holds the scans, in `folder`, which must be new or empty.

    The archive stays beside `folder`, and is not downloaded again where it is there already.
    """
    from tqdm import tqdm

    folder = Path(folder).expanduser().resolve()
    archives.require_new(folder)
    if archive.file.endswith(".rar"):
        archives.require_rar_program()  # before an hour of downloading, not after it
    path = download(archive, folder.parent)
    archives.unpack(path, folder, progress=lambda members: tqdm(members, desc="unpacking", unit=" files"))
    return innermost(folder)


def download(archive: catalogue.Archive, folder: Path) -> Path:
    """The archive as a file in `folder`, downloaded unless it is there; goes on where an earlier call was interrupted.

    What has arrived is kept in a hidden folder beside it. Raises StudyError for a download that stops, a file that is
    not the one expected (which is removed), and a file of the user under that name (which is left alone).
    """
    import pooch

    path = Path(folder) / archive.file
    unfinished = path.with_name(f".{path.name}.download")
    try:
        with disk_errors_named(path), alone_in(unfinished):
            if not path.exists():
                _retrieve(archive, unfinished)
                os.replace(unfinished / archive.file, path)
            elif not path.is_file() or not pooch.hashes.hash_matches(path, archive.checksum):
                raise StudyError(f"{path} is not the file that {archive.url} offers; move it away and run again.")
    finally:
        if not (unfinished / PART).exists():
            shutil.rmtree(unfinished, ignore_errors=True)
    return path


def _retrieve(archive: catalogue.Archive, folder: Path) -> None:
    """The archive in `folder`, with the content its checksum asks for."""
    import pooch

    downloader = ResumingDownloader(folder / PART, archive.size)
    try:
        pooch.retrieve(archive.url, archive.checksum, archive.file, folder, downloader=downloader)
    except StudyError:
        raise
    except ValueError as error:  # pooch's word for another checksum; it has removed the file
        raise StudyError(
            f"What {archive.url} sent has another checksum than {archive.checksum} and was removed; run again, and if "
            "it happens twice the set was changed: fetch it by hand."
        ) from error


@dataclass(frozen=True)
class ResumingDownloader:
    """A downloader for pooch that keeps what has arrived in `part` and goes on from there; `size` in bytes."""

    part: Path
    size: int

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Puts the content of `url` into `output_file`; StudyError, with `part` kept, where not all of it arrives."""
        import requests

        have = self.part.stat().st_size if self.part.exists() else 0
        if have > self.size:
            self.part.unlink()
            have = 0
        if have < self.size:
            try:
                self._receive(url, have)
            except requests.RequestException as error:
                raise self._stopped(url, _reason(error)) from error
        os.replace(self.part, output_file)

    def _receive(self, url: str, have: int) -> None:
        """Appends bytes `have` and on of `url` to `part`, or writes all of it where the server sends all of it."""
        import requests
        from tqdm import tqdm

        # "identity": bytes compressed on the way could not be counted.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            response.raise_for_status()
            first = _first_byte(response)
            length = response.headers.get("Content-Length", "")
            if first > have or length.isdecimal() and first + int(length) != self.size:
                raise StudyError(f"{url} offers another file than the one of {self.size} bytes; fetch the set by hand.")
            if first < have:
                print("The server cannot go on in the middle; starting from the beginning.", file=sys.stderr)
            with (
                open(self.part, "ab") as file,
                tqdm(total=self.size, initial=first, desc="downloading", unit="B", unit_scale=True) as bar,
            ):
                file.truncate(first)
                arrived = first
                for chunk in response.iter_content(CHUNK):
                    arrived += len(chunk)
                    if arrived > self.size:
                        raise StudyError(f"{url} sends more than {self.size} bytes; fetch the set by hand.")
                    file.write(chunk)
                    bar.update(len(chunk))
        if arrived < self.size:
            raise self._stopped(url, "the server ended the connection")

    def _stopped(self, url: str, reason: str) -> StudyError:
        have = self.part.stat().st_size if self.part.exists() else 0
        return StudyError(
            f"The download of {url} stopped after {have / 1e6:.1f} of {self.size / 1e6:.1f} MB ({reason}); run the "
            "same command again to go on from there."
        )


def innermost(folder: Path) -> Path:
    """`folder`, or the folder in it that holds everything where an archive wraps its content in one.

    What Finder adds to archives (__MACOSX, .DS_Store) does not count.
    """
    while True:
        inside = [path for path in folder.iterdir() if path.name != "__MACOSX" and not path.name.startswith(".")]
        if len(inside) != 1 or not inside[0].is_dir():
            return folder
        folder = inside[0]


def _first_byte(response) -> int:
    """Where in the file the answer begins: 0 for a whole file, what Content-Range says for a part."""
    if response.status_code != 206:
        return 0
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if match is None:
        raise StudyError(f"{response.url} answers with a part and does not say which; fetch the set by hand.")
    return int(match.group(1))


def _reason(error: Exception) -> str:
    """A few words for what requests raised, without the objects it prints."""
    response = getattr(error, "response", None)
    return f"HTTP {response.status_code}" if response is not None else type(error).__name__
