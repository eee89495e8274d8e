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

PATIENT_HEADING = re.compile(r"(patient|subject)[ _-]?(id)?")  # other ways to write patient_id


def plain(text: str) -> str:
    """A name as it is compared: without what cannot be seen, in one Unicode form (NFKC), blanks single and inside."""
    seen = "".join(sign for sign in text if sign.isspace() or unicodedata.category(sign) not in ("Cc", "Cf"))
    return " ".join(unicodedata.normalize("NFKC", seen).split())


def natural(text: str) -> list:
    """A key that sorts numbers inside names by their value: "2" before "10"."""
    parts = [(part, part.lstrip("0")) for part in re.split(r"(\d+)", text) if part]
    return [(1, len(number), number, part) if part.isdecimal() else (0, 0, part) for part, number in parts]


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
    compared without regard to case, and "patient", "PatientID" or "subject" mean patient_id. StudyError for what is no
    such table, a column that is there twice or hides the patient under another name, and a row longer than the heading.
    """
    wanted = {column.lower(): column for column in columns}

    def known(heading: str) -> str:
        name = plain(heading).lower()
        return wanted.get(name) or ("patient_id" if PATIENT_HEADING.fullmatch(name) else name)

    try:
        content = path.read_bytes()
        text = content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
        if text.startswith("sep="):  # a line for Excel alone
            text = text.partition("\n")[2]
        first = text.splitlines()[:1]
        headings = {mark: set(map(known, *csv.reader(first, delimiter=mark))) for mark in ",;\t" if first}
        separator = max(headings, key=lambda mark: len(headings[mark] & {*columns}), default=",")
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StudyError(f"{path} cannot be read as CSV ({error}); save it as UTF-8, every quote closed.") from error
    names = list(map(known, rows[0])) if rows else []
    if missing := [column for column in columns if column not in names]:
        raise StudyError(f"{path} lacks the column {' and '.join(missing)}; it has {', '.join(names) or 'nothing'}.")
    if twice := [name for name in (*columns, "patient_id") if names.count(name) > 1]:
        raise StudyError(f"{path} has {names.count(twice[0])} columns that mean {twice[0]}; keep one.")
    hidden = [name for name in names if name not in columns and re.search("patient|subject", name)]
    if hidden and "patient_id" not in names:
        raise StudyError(f"{path} has the column {hidden[0]!r}; call it patient_id, or remove it if it is none.")
    if longer := [row for row in rows[1:] if any(map(plain, row[len(names) :]))]:
        raise StudyError(f"{path} has a row longer than its heading ({longer[0]}); put names with commas in quotes.")
    return [dict(zip(names, (*row, *[""] * len(names)), strict=False)) for row in rows[1:] if any(map(str.strip, row))]


def spellings(written: Iterable[str]) -> tuple[str, ...]:
    """A remark for each name that is written in several ways and taken for one, and for names that look like one."""
    ways: dict[str, set[str]] = {}
    alike: dict[str, set[str]] = {}
    for text in written:
        ways.setdefault(name := plain(text), set()).add(text)
        loosely = re.sub(r"0*(\d+)", r"\1", name.casefold().rstrip("."))
        alike.setdefault(loosely, set()).add(name)
    return (
        *(
            f"Patient {name} is written in {len(own)} ways ({', '.join(map(ascii, sorted(own)))}), taken for one."
            for name, own in ways.items()
            if len(own) > 1
        ),
        *(
            f"Patients {' and '.join(sorted(own))} are taken for {len(own)}, though their names differ in capitals, "
            "leading zeros or a dot at the end alone; write them alike if they are one."
            for own in alike.values()
            if len(own) > 1
        ),
    )
