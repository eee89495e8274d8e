"""What every folder of scans shares: its files by name, scans paired with masks, tables, and digests of contents."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from sahlib.data.scan import Scan, ToLookAt
from sahlib.data.sources.names import natural, patient_by_pattern, plain, without_ending
from sahlib.study import StudyError
from sahlib.workspace import absolute, cores

# Raise when the same files would give other pixels or millimetres, so that no old store is taken for a new one.
READER = 2
NIFTI_ENDINGS = (".nii.gz", ".nii")
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
ENDINGS = (*NIFTI_ENDINGS, *PICTURE_ENDINGS)
IMAGE_WORDS = ("0000", "ct", "ncct", "image", "img", "scan", "volume")
MASK_WORDS = ("mask", "masks", "seg", "segmentation", "label", "labels", "gt")
# What lies beside scans and is none.
SIDE_ENDINGS = (
    ".csv", ".tsv", ".xlsx", ".json", ".xml", ".yaml", ".yml", ".txt", ".md", ".pdf", ".html", ".py", ".log", ".db",
    ".ini", "readme", "license",
)  # fmt: skip
FIRST = 3  # files that a remark names


@dataclass(frozen=True)
class Case:
    """One scan on disk, or one slice: whose it is, its name, and its masks: one, or one per rater."""

    patient_id: str
    scan_id: str
    image: Path
    masks: tuple[Path, ...]


class FolderSource:
    """A checked folder, whose `cases` are one Scan each, patients in order."""

    cases: tuple

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Scan]:
        """All scans in order, at most one per processor core decoded before it is asked for.

        Decompression leaves Python's lock, so threads do; no scan is copied between processes.
        """
        return in_order(ThreadPoolExecutor(cores()), self.scan, ((k,) for k in range(len(self))), cores())


def in_order(pool: Executor, make: Callable[..., Scan], tasks: Iterable[tuple], ahead: int) -> Iterator[Scan]:
    """make(*task) of every task, in order; the pool, shut down in the end, is at most `ahead` of what is asked for."""
    waiting = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(make, *task))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        yield from (scan.result() for scan in waiting)
    finally:
        pool.shutdown(cancel_futures=True)


def require_folder(root: str | Path) -> Path:
    """`root` as a Path; StudyError where no folder is there."""
    root = absolute(root)
    if not root.is_dir():
        raise StudyError(f"{root} is not a folder; give the folder that holds the files.")
    return root


def nested(root: Path, name: str) -> Path:
    """The folder `name` in `root` where there is one, else `root`."""
    return root / name if (root / name).is_dir() else root


def hidden(name: str) -> bool:
    """Whether a file or folder is an operating system's own: of Unix, of a Synology store, of a Mac's archives."""
    return name.startswith((".", "@")) or name == "__MACOSX"


def walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """(folder, its files' names) at any depth, by name, none hidden; links are followed, each real folder once.

    Raises StudyError for a folder that may not be read, and a name that is not UTF-8.
    """

    def refuse(error: OSError):
        raise StudyError(f"{error.filename} cannot be read ({error.strerror}); make it readable or remove it.")

    visited: set[str] = set()
    for place, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        if (real := os.path.realpath(place)) in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not hidden(name))
        yield Path(place), [_utf8(Path(place, name)).name for name in sorted(names) if not hidden(name)]


def within(folder: Path, endings: tuple[str, ...] = NIFTI_ENDINGS) -> list[Path]:
    """The files of one folder that end so, by name; StudyError for a link to nowhere and a name that is not UTF-8."""
    try:
        names = sorted(folder.iterdir(), key=lambda path: natural(path.name))
        found = [_utf8(path) for path in names if has_ending(path.name, endings)]
    except OSError as error:
        raise StudyError(f"{folder} cannot be read ({error.strerror}); add it or make it readable.") from error
    if broken := [path for path in found if path.is_symlink() and not path.exists()]:
        raise StudyError(f"{broken[0]} is a link that leads to no file; replace it by the file or remove it.")
    return [path for path in found if path.is_file()]


def _utf8(path: Path) -> Path:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise StudyError(f"{ascii(str(path))} has a name that is not UTF-8; rename it.") from error
    return path


def unread(root: Path, read: Iterable[Path]) -> tuple[str, ...]:
    """A remark on the files below `root` that are not among those read, tables and texts aside: they may be scans."""
    known = set(map(os.path.abspath, read))
    try:
        others = [
            os.path.relpath(place / name, root)
            for place, names in walk(root)
            for name in names
            if not name.lower().endswith(SIDE_ENDINGS) and os.path.abspath(place / name) not in known
        ]
    except StudyError as error:
        return (ToLookAt(error),)
    more = f" and {len(others) - FIRST} more" if len(others) > FIRST else ""
    named = f"{', '.join(others[:FIRST])}{more}"
    return (ToLookAt(f"Left aside in {root}: {named}; what they show is missing."),) if others else ()


def has_ending(name: str, endings: tuple[str, ...] = NIFTI_ENDINGS) -> bool:
    """Whether a file's name ends so, in capitals or not; hidden files are not looked at."""
    return name.lower().endswith(endings) and not name.startswith(".")


def stem(path: Path) -> str:
    """The file name without its ending, in plain form."""
    return without_ending(path.name, ENDINGS)


def without_word(text: str, words: tuple[str, ...]) -> str:
    """`text` without a word at its end and what joins it; "" where it is nothing but that word."""
    return re.sub(rf"(^|[ _.-])({'|'.join(words)})$", "", text, flags=re.IGNORECASE)


def by_stem(paths: list[Path], *ends: tuple[str, ...]) -> dict[str, Path]:
    """Files by their stems, less a word of each of the `ends`; StudyError where two are called alike."""
    found: dict[str, Path] = {}
    for path in paths:
        key = functools.reduce(without_word, ends, stem(path))
        if (other := found.setdefault(key, path)) is not path:
            raise StudyError(f"{path} and {other.name} have the same stem; keep one of them.")
    return found


def matched(images: list[Path], masks: list[Path]) -> list[Case]:
    """Each image with its mask, by stem where these agree, else without the words that end them; patients come later.

    Raises StudyError for an image without a mask or the reverse, and for two files of one name.
    """
    if sorted(map(stem, images)) == sorted(map(stem, masks)):
        named, masked = by_stem(images), by_stem(masks)
    else:
        named, masked = by_stem(images, IMAGE_WORDS), by_stem(masks, MASK_WORDS, IMAGE_WORDS)
    for key in sorted(named.keys() ^ masked.keys(), key=natural):
        lonely, lack = (named[key], "mask") if key in named else (masked[key], "image")
        raise StudyError(f"{lonely} has no {lack} that is called like it; add it, or remove {lonely.name}.")
    return [Case("", key, named[key], (masked[key],)) for key in sorted(named, key=natural)]


def with_patients(cases: list[Case], pattern: str, own: Callable[[str], str]) -> tuple[Case, ...]:
    """The cases with their patients, in order: by the pattern's first group where there is one, else own(scan id).

    Without a pattern a case that has its patient keeps it.
    """
    named = [
        replace(
            case,
            patient_id=patient_by_pattern(case.scan_id, pattern)
            if pattern
            else plain(case.patient_id) or own(case.scan_id),
        )
        for case in cases
    ]
    return tuple(sorted(named, key=lambda case: (natural(case.patient_id), natural(case.scan_id))))


def digest(parts: Iterable[str | int | bytes | Path]) -> str:
    """SHA-256 in hex over texts and numbers, each ended by a zero byte, over bytes, and over the digests of files."""
    total = hashlib.sha256()
    # Hashing leaves Python's lock, so threads share the files.
    with ThreadPoolExecutor(cores()) as pool:
        for content in pool.map(lambda part: file_digest(part) if isinstance(part, Path) else part, parts):
            total.update(content if isinstance(content, bytes) else f"{content}\0".encode())
    return total.hexdigest()


def file_digest(path: Path) -> bytes:
    """SHA-256 of one file's content."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise StudyError(f"{path} cannot be read ({error.strerror}); make it readable or remove it.") from error
