"""Fetch: what `./run_all.sh data` says and does; a set under an open licence is downloaded, checked and unpacked.

pooch downloads and compares the checksum, so that nothing but what its publisher offered is ever unpacked; Python has
no reader for compressed rar, so `rarfile` asks an external program (unrar, unar, 7z or bsdtar) for the content.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import rarfile

from sahlib.data import catalogue
from sahlib.study import StudyError
from sahlib.workspace import alone_in, disk_errors_named, partial_name

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
    folder = Path(folder).expanduser().resolve()
    require_new(folder)
    try:
        rarfile.tool_setup()  # before an hour of downloading, not after it
    except rarfile.RarCannotExec as error:
        raise StudyError(
            "No program that unpacks rar is installed; install unrar, unar, 7z or bsdtar and run again."
        ) from error
    path = download(archive, folder.parent)
    unpack(path, folder)
    return innermost(folder)


def download(archive: catalogue.Archive, folder: Path) -> Path:
    """The archive as a file in `folder`, downloaded unless it is there.

    Raises StudyError for a download that stops, for content that is not the one expected (nothing of which is kept),
    and for a file of the user under that name (which is left alone).
    """
    import pooch
    import requests

    path = folder / archive.file
    with disk_errors_named(path), alone_in(folder):
        if path.exists() and not (path.is_file() and pooch.hashes.hash_matches(path, archive.checksum)):
            raise StudyError(f"{path} is not the file that {archive.url} offers; move it away and run again.")
        downloader = pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT)
        try:
            pooch.retrieve(archive.url, archive.checksum, archive.file, folder, downloader=downloader)
        except requests.RequestException as error:
            response = getattr(error, "response", None)
            reason = f"HTTP {response.status_code}" if response is not None else type(error).__name__
            raise StudyError(
                f"The download of {archive.url} stopped ({reason}); run the same command again."
            ) from error
        except ValueError as error:  # pooch's word for another checksum; it has removed the file
            raise StudyError(
                f"What {archive.url} sent has another checksum than {archive.checksum} and was removed; run again, and "
                "if it happens twice the set was changed: fetch it by hand."
            ) from error
    return path


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a rar into `folder`, which takes its name once it is whole; StudyError for what cannot be unpacked."""
    partial = partial_name(folder)
    try:
        with disk_errors_named(folder), rarfile.RarFile(archive, errors="strict") as opened:
            partial.mkdir(parents=True)
            opened.extractall(partial)  # rarfile refuses members that lead out of the folder
            if folder.exists():
                folder.rmdir()  # empty, as was checked; where it has been filled meanwhile this fails
            os.replace(partial, folder)
    except (rarfile.Error, EOFError, ValueError) as error:
        raise StudyError(f"{archive} cannot be unpacked ({error}); delete it and run again.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def require_new(folder: Path) -> None:
    """StudyError unless `folder` can be made or is an empty folder, so that no file of the user is ever touched."""
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise StudyError(f"{path} is a file, so {folder} cannot be made; choose another folder.")
    if folder.exists() and any(folder.iterdir()):
        raise StudyError(f"{folder} is not empty and nothing in it is overwritten; choose a new folder.")


def innermost(folder: Path) -> Path:
    """`folder`, or the folder in it that holds everything where an archive wraps its content in one.

    What Finder adds to archives (__MACOSX, .DS_Store) does not count.
    """
    while True:
        inside = [path for path in folder.iterdir() if path.name != "__MACOSX" and not path.name.startswith(".")]
        if len(inside) != 1 or not inside[0].is_dir():
            return folder
        folder = inside[0]
