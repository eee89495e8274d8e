"""Fetch: what `./run_all.sh data` says and does; a set under an open licence is downloaded, checked and unpacked.

An interrupted download goes on where it stopped (HTTP Range, RFC 9110 section 14), and nothing takes its real name
before its checksum is right. Python has no reader for compressed rar: `rarfile` asks an external program for the bytes
of one member at a time and never lets it write a file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import rarfile
import requests
from tqdm import tqdm

from sahlib.data import catalogue
from sahlib.study import StudyError
from sahlib.workspace import absolute, alone_in, disk_errors_named, partial_name

CHUNK = 1 << 16  # bytes, what an interruption loses at most
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
    folder = absolute(folder)
    # What would stop the unpacking is said before an hour of downloading, not after it.
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise StudyError(f"{path} is a file; choose another folder than {folder}.")
    if folder.exists() and any(folder.iterdir()):
        raise StudyError(f"{folder} is not empty and nothing in it is overwritten; choose a new folder.")
    try:
        rarfile.tool_setup()
    except rarfile.RarCannotExec as error:
        raise StudyError(
            "No program that unpacks rar is installed; install unrar, unar, 7z or bsdtar and run again, or unpack the "
            "archive by hand."
        ) from error
    unpack(download(archive, folder.parent), folder)
    return innermost(folder)


def download(archive: catalogue.Archive, folder: Path) -> Path:
    """The archive as a file in `folder`, downloaded unless it is there; goes on where an earlier call was interrupted.

    What has arrived is kept in a hidden folder beside it. Raises StudyError for a download that stops, a file that is
    not the one expected (which is removed), and a file of the user under that name (which is left alone).
    """
    path = Path(folder) / archive.file
    unfinished = path.with_name(f".{path.name}.download")
    part = unfinished / "part"
    try:
        with disk_errors_named(path), alone_in(unfinished):
            if path.exists():
                if not _is_right(path, archive):
                    raise StudyError(f"{path} is not the file that {archive.url} offers; move it away and run again.")
                return path
            _receive(archive, part)
            if not _is_right(part, archive):
                part.unlink()
                raise StudyError(
                    f"What {archive.url} sent has another checksum than {archive.checksum} and was removed; run again, "
                    "and if it happens twice the set was changed: fetch it by hand."
                )
            os.replace(part, path)
    finally:
        if not part.exists():
            shutil.rmtree(unfinished, ignore_errors=True)
    return path


def _is_right(path: Path, archive: catalogue.Archive) -> bool:
    algorithm, digest = archive.checksum.split(":")
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == digest


def _receive(archive: catalogue.Archive, part: Path) -> None:
    """Appends to `part` what it lacks of the archive; StudyError, with `part` kept, where not all of that arrives."""
    have = part.stat().st_size if part.exists() else 0
    if have >= archive.size:  # it arrived before something else went wrong
        return
    # "identity": bytes compressed on the way could not be counted.
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={have}-"}
    reason = "the server ended the connection"
    try:
        with requests.get(archive.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            response.raise_for_status()
            if response.status_code != 206:  # the server cannot go on in the middle and sends all of it
                have = 0
            length = response.headers.get("Content-Length")
            if length and have + int(length) != archive.size:
                raise StudyError(f"{archive.url} is not of {archive.size} bytes any more; fetch the set by hand.")
            with (
                open(part, "ab" if have else "wb") as file,
                tqdm(total=archive.size, initial=have, desc="downloading", unit="B", unit_scale=True) as bar,
            ):
                for chunk in response.iter_content(CHUNK):
                    bar.update(file.write(chunk))
    except requests.RequestException as error:
        reason = type(error).__name__ if error.response is None else f"HTTP {error.response.status_code}"
    have = part.stat().st_size if part.exists() else 0
    if have < archive.size:
        raise StudyError(
            f"The download of {archive.url} stopped after {have / 1e6:.1f} of {archive.size / 1e6:.1f} MB ({reason}); "
            "run the same command again to go on from there."
        )


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a rar archive into `folder`, a resolved path that is new or empty.

    All lands in a temporary folder that takes its real name once it is whole. Raises StudyError, and leaves nothing
    behind, for an archive that is damaged, cut short or encrypted, for a member that is a link or whose name leads out
    of the folder or is there twice, and for a full disk.
    """
    partial = partial_name(folder)
    way = f"{archive} cannot be unpacked: it is damaged or cut short, get it again"
    try:
        # "strict", or a damaged archive would read like a shorter whole one.
        with disk_errors_named(folder, way), rarfile.RarFile(archive, errors="strict") as opened:
            partial.mkdir(parents=True)
            for member in tqdm(opened.infolist(), desc="unpacking", unit=" files"):
                # resolve() takes care of "..", of absolute paths and, on Windows, of drives and backslashes.
                path = (partial / member.filename).resolve()
                if member.is_symlink() or not path.is_relative_to(partial):
                    raise StudyError(
                        f"{archive} holds {member.filename!r}, which is a link or leads out of the folder; nothing was "
                        "unpacked, get the archive from its publisher again."
                    )
                (path if member.is_dir() else path.parent).mkdir(parents=True, exist_ok=True)
                if not member.is_dir():
                    with opened.open(member) as source, open(path, "xb") as target:
                        shutil.copyfileobj(source, target)
            if folder.exists():
                folder.rmdir()  # empty, as was checked; where it has been filled meanwhile this fails
            os.replace(partial, folder)
    except rarfile.Error as why:
        raise StudyError(f"{way} ({why}).") from why
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def innermost(folder: Path) -> Path:
    """`folder`, or the folder in it that holds everything where an archive wraps its content in one.

    What Finder adds to archives (__MACOSX, .DS_Store) does not count.
    """
    inside = [path for path in folder.iterdir() if path.name != "__MACOSX" and not path.name.startswith(".")]
    return innermost(inside[0]) if len(inside) == 1 and inside[0].is_dir() else folder
