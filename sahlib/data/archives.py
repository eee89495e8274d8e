"""Archives: zip, tar, tar.gz and rar unpacked into a new folder, so that nothing in them can do harm.

Names are checked before anything is written, no link is ever made on disk, bytes are counted while they come out, and
all of it lands in a temporary folder that takes its real name once it is whole. The formats' own extraction is not
used: one set of rules holds for all of them. Python has no reader for compressed rar; `rarfile` asks an external
program (unrar, unar, 7z or bsdtar) for the bytes of one member at a time and never lets it write a file.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import rarfile

from sahlib.study import StudyError
from sahlib.workspace import disk_errors_named, partial_name

CHUNK = 1 << 20
LONGEST_NAME, LONGEST_PATH = 255, 1000  # bytes; beyond these common file systems refuse
# What the three parsers raise over bytes that are not what they should be.
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    rarfile.Error,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    LookupError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class Limits:
    """How much an archive may hold before it is taken for one made to fill the disk."""

    members: int = 100_000
    total_bytes: int = 50 * 10**9
    expansion: int = 20  # unpacked bytes for each byte of the archive ...
    unquestioned_bytes: int = 10**9  # ... of which so many are fine at any rate: masks shrink a thousandfold

    def allowed_bytes(self, archive_bytes: int) -> int:
        """What an archive of this length may unpack to."""
        return min(self.total_bytes, max(self.expansion * archive_bytes, self.unquestioned_bytes))


LIMITS = Limits()


@dataclass(frozen=True)
class Member:
    """One entry of an archive, whatever the format.

    kind   "file", "folder", "link" (symbolic) or "device"; hard links and copies count as the file they repeat
    size   bytes as declared; None where the entry repeats another
    open   gives the content as a binary file
    """

    name: str
    kind: str
    size: int | None
    encrypted: bool
    open: Callable[[], IO[bytes]]


def unpack(
    archive: Path, folder: Path, limits: Limits = LIMITS, progress: Callable[[Iterable], Iterable] = iter
) -> Path:
    """Unpacks `archive` into `folder`, which must be new or empty; returns the folder, resolved.

    `progress` wraps the iteration over members, for example tqdm. Raises StudyError, and leaves nothing behind, for a
    folder that holds something, for an archive that is damaged, cut short, encrypted or larger than `limits`, for a
    member whose name leads out of the folder or that is a link or a device, and for a full disk.
    """
    archive, folder = Path(archive).expanduser(), Path(folder).expanduser().resolve()
    require_new(folder)
    if not archive.is_file():
        raise StudyError(f"{archive} is not there; give the path of the archive as it was downloaded.")
    partial = partial_name(folder)
    try:
        with disk_errors_named(folder):
            partial.mkdir(parents=True)
            _extract(archive, partial, limits, progress)
            if folder.exists():
                folder.rmdir()  # empty, as was checked; where it has been filled meanwhile this fails
            os.replace(partial, folder)
    except StudyError:
        raise
    except DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise StudyError(
            f"{archive} cannot be unpacked ({reason}); it is damaged or cut short: get it again."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def require_new(folder: Path) -> None:
    """StudyError unless `folder` can be made or is an empty folder, so that no file of the user is ever touched."""
    folder = Path(folder).expanduser().resolve()
    for above in folder.parents:
        if above.exists() and not above.is_dir():
            raise StudyError(f"{above} is a file, so {folder} cannot be made; choose another folder.")
    if folder.exists() and not folder.is_dir():
        raise StudyError(f"{folder} is a file; choose a new folder.")
    if folder.exists() and any(folder.iterdir()):
        raise StudyError(f"{folder} is not empty and nothing in it is overwritten; choose a new folder.")


def require_rar_program() -> None:
    """StudyError where no program that unpacks rar is installed."""
    try:
        rarfile.tool_setup()
    except rarfile.RarCannotExec as error:
        raise StudyError(
            "No program that unpacks rar is installed; install unrar, unar, 7z or bsdtar and run again, or unpack the "
            "archive by hand."
        ) from error


def inner_path(name: str) -> PurePosixPath:
    """Where a member named `name` goes, relative to the folder; ValueError for a name that leads elsewhere.

    A backslash separates folders as a slash does, because archives made on Windows are read on other systems too.
    """
    name = name.replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise ValueError("its path is absolute")
    if ".." in parts:
        raise ValueError("its path leads upwards")
    if any(ord(character) < 32 for character in name):
        raise ValueError("its name holds control characters")
    try:
        lengths = [len(os.fsencode(part)) for part in parts]
    except UnicodeEncodeError:
        raise ValueError("its name cannot be written on this system") from None
    if not parts or max(lengths) > LONGEST_NAME or sum(lengths) > LONGEST_PATH:
        raise ValueError("its name is empty or too long")
    return PurePosixPath(*parts)


def _extract(archive: Path, root: Path, limits: Limits, progress: Callable[[Iterable], Iterable]) -> None:
    allowed = limits.allowed_bytes(archive.stat().st_size)
    declared = written = count = 0
    for member in progress(_members(archive)):
        count += 1
        if count > limits.members:
            raise StudyError(f"{archive} holds more than {limits.members} files; unpack it by hand if you trust it.")
        if member.encrypted:
            raise StudyError(f"{archive} is encrypted ({member.name!r}); unpack it by hand with its password.")
        if member.kind not in ("file", "folder"):
            raise _refused(archive, member, f"it is a {member.kind}")
        declared += member.size or 0
        if declared > allowed:
            raise _too_large(archive, allowed)
        if member.kind == "folder" and member.name.strip("/") in ("", "."):
            continue  # the folder itself, as tar writes it
        try:
            path = root / inner_path(member.name)
        except ValueError as error:
            raise _refused(archive, member, str(error)) from error
        try:
            if member.kind == "folder":
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "xb") as target:
                written += _copy(archive, member, target, allowed - written)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise _refused(archive, member, "another member has the same name") from error


def _copy(archive: Path, member: Member, target: IO[bytes], allowed: int) -> int:
    """Bytes written; StudyError once they are more than `allowed`, whatever the archive declares."""
    written = 0
    with member.open() as source:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            if written > allowed:
                raise _too_large(archive, allowed)
            target.write(chunk)
    if member.size is not None and written != member.size:
        raise EOFError(f"{member.name!r} holds {written} bytes instead of {member.size}")
    return written


def _members(archive: Path) -> Iterator[Member]:
    """The members of an archive, told apart by its first bytes and not by its name."""
    with open(archive, "rb") as file:
        start = file.read(512)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_members(archive)
    if start.startswith(b"Rar!\x1a\x07"):
        return _rar_members(archive)
    if start.startswith(b"\x1f\x8b") or start[257:262] == b"ustar":
        return _tar_members(archive, compressed=start.startswith(b"\x1f\x8b"))
    raise StudyError(f"{archive} is no zip, tar, tar.gz or rar archive; unpack it by hand.")


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            file_type = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was not made on Unix
            if info.filename.endswith(("/", "\\")):
                kind = "folder"
            elif stat.S_ISLNK(file_type):
                kind = "link"
            else:
                kind = "file" if file_type in (0, stat.S_IFREG) else "device"
            yield Member(info.filename, kind, info.file_size, bool(info.flag_bits & 1), lambda i=info: opened.open(i))


def _tar_members(archive: Path, compressed: bool) -> Iterator[Member]:
    if not compressed:
        # A tar that is cut between two members reads like a shorter whole one but for the two empty blocks at its end.
        with open(archive, "rb") as file:
            file.seek(-min(1024, archive.stat().st_size), os.SEEK_END)
            if file.read().strip(b"\0"):
                raise EOFError("its end is missing")
    with tarfile.open(archive, "r:gz" if compressed else "r:") as opened:
        for info in opened:
            if info.isdir():
                kind = "folder"
            elif info.issym():
                kind = "link"
            else:
                kind = "file" if info.isreg() or info.islnk() else "device"
            size = None if info.islnk() else info.size
            yield Member(info.name, kind, size, False, lambda i=info: opened.extractfile(i))
        # gzip's checksum stands at its very end, which is read only by going there; a tar ends in a few KB of zeros.
        if compressed and len(opened.fileobj.read(CHUNK)) == CHUNK:
            raise EOFError("something follows its end")


def _rar_members(archive: Path) -> Iterator[Member]:
    def content(info: rarfile.RarInfo) -> IO[bytes]:
        try:
            return opened.open(info)
        except rarfile.RarCannotExec:
            require_rar_program()
            raise

    # "strict", or a damaged archive would read like a shorter whole one.
    with rarfile.RarFile(archive, errors="strict") as opened:
        if opened.needs_password():
            raise StudyError(f"{archive} is encrypted; unpack it by hand with its password.")
        for info in opened.infolist():
            kind = "link" if info.is_symlink() else "folder" if info.is_dir() else "file"
            size = None if info.file_redir else info.file_size
            yield Member(info.filename, kind, size, info.needs_password(), lambda i=info: content(i))


def _refused(archive: Path, member: Member, reason: str) -> StudyError:
    return StudyError(
        f"{archive} holds {member.name!r}, which is refused because {reason}; nothing was unpacked, get the archive "
        "from its publisher again."
    )


def _too_large(archive: Path, allowed: int) -> StudyError:
    return StudyError(
        f"{archive} unpacks to more than {allowed / 1e9:.3g} GB, far more than its size suggests; unpack it by hand if "
        "you trust it."
    )
