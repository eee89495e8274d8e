"""Names as people write them: identifiers, file names and tables, compared in one form and put in one order.

Every reader takes names from here, so that "P03" and "P03 ", or an umlaut written on a Mac and one written elsewhere,
are the same patient everywhere, and slice 10 comes after slice 9.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from sahlib.study import StudyError


def plain(text: str) -> str:
    """A name as it is compared: without blanks around it, in one Unicode form (NFC)."""
    return unicodedata.normalize("NFC", text).strip()


def natural(text: str) -> list:
    """A key that sorts numbers inside names by their value: "2" before "10"."""
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", text) if part]


def patient_by_pattern(name: str, pattern: str) -> str:
    """The first group of the regular expression `pattern` in a name; StudyError where there is none."""
    try:
        match = re.search(pattern, plain(name))
    except re.error as error:
        raise StudyError(f"patient_pattern {pattern!r} is not a regular expression: {error}.") from error
    if match is None or not match.groups() or not plain(match.group(1) or ""):
        raise StudyError(f"patient_pattern {pattern!r} finds no patient in {name!r}; its first group must match one.")
    return plain(match.group(1))


def without_ending(name: str, endings: tuple[str, ...]) -> str:
    """A file's name in plain form, without the one of `endings` that it has, if any."""
    name = plain(name)
    ending = next((ending for ending in endings if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)]


def read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV with at least these columns, every value as it is written: "NA" is a name like any other.

    Commas, semicolons and tabs separate; UTF-8 and what Excel calls Unicode text (UTF-16) are read; headings are
    compared without regard to case. StudyError for what is no such table.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} cannot be read as CSV ({error}); save it as UTF-8.") from error
    heading = text.partition("\n")[0]
    separator = max(",;\t", key=heading.count)
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    wanted = {column.lower(): column for column in columns}
    names = [wanted.get(plain(name).lower(), plain(name).lower()) for name in rows[0]] if rows else []
    if missing := [column for column in columns if column not in names]:
        raise StudyError(f"{path} lacks the column {' and '.join(missing)}; it has {', '.join(names) or 'nothing'}.")
    return [dict(zip(names, (*row, *[""] * len(names)), strict=False)) for row in rows[1:] if any(map(str.strip, row))]


def spellings(written: Iterable[str]) -> tuple[str, ...]:
    """A remark for each name that is written in several ways and taken for one."""
    ways: dict[str, set[str]] = {}
    for text in written:
        ways.setdefault(plain(text), set()).add(text)
    return tuple(
        f"Patient {name} is written in {len(own)} ways ({', '.join(map(ascii, sorted(own)))}), taken for one."
        for name, own in ways.items()
        if len(own) > 1
    )
