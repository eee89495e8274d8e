"""The parts of a report, each read from the files that a study left: figures, tables, the ledger, prose.

What is read comes out as plain text and data URIs; the template lays it out and escapes it. Only `prose` returns HTML.
"""

from __future__ import annotations

import base64
import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from PIL import Image

from sahlib.figures.drawing import DPI, WIDTH, alternative_text
from sahlib.figures.tables import BLANK_NOTE

# Wider pictures are made smaller. Those of figures.save stay as they are: resampled they would weigh more, not less.
WIDEST = round(WIDTH * DPI)
LONG = 20  # rows: a table with more may go over several printed pages
NOT_PRINTED = "not printed"
_NUMBER = re.compile(r"[+−-]?\d|–$")
_WITH_INTERVAL = re.compile(r"(\S+) (\(.+)")


@dataclass(frozen=True)
class Attachment:
    """A file inside the page: its name where it is saved, its size for people, and its content as a data URI."""

    name: str
    size: str
    uri: str


@dataclass(frozen=True)
class Picture:
    """A figure. width, height: of the embedded PNG in pixels"""

    anchor: str
    title: str
    alt: str
    caption: str
    uri: str
    width: int
    height: int
    data: Attachment | None


@dataclass(frozen=True)
class Cell:
    """A cell of a table. scope, rows, columns: attributes of a heading; quiet: what stands smaller behind the text."""

    text: str
    quiet: str = ""
    scope: str = ""
    rows: int = 1
    columns: int = 1
    number: bool = False
    printed: bool = False


@dataclass(frozen=True)
class Table:
    """A table. head: its heading rows; groups: of rows that share their first cell, else one group"""

    anchor: str
    title: str
    caption: str
    head: list[list[Cell]]
    groups: list[list[list[Cell]]]
    notes: list[str]
    data: Attachment | None

    @property
    def is_long(self) -> bool:
        return sum(map(len, self.groups)) > LONG


def picture(folder: Path, stem: str, title: str, alt: str = "") -> Picture:
    """The figure STEM.png with its caption STEM.txt and its data STEM.csv; its beginning stands in for `alt`."""
    content = (folder / f"{stem}.png").read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        width, height = image.size
        if width > WIDEST:
            width, height = WIDEST, round(height * WIDEST / width)
            smaller = io.BytesIO()
            image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS).save(smaller, "PNG", optimize=True)
            content = smaller.getvalue()
    caption = text_of(folder / f"{stem}.txt").strip()
    alt = alt or alternative_text(caption) or title
    uri = data_uri("image/png", content)
    return Picture(anchor_of(folder, stem), title, alt, caption, uri, width, height, attached(folder, f"{stem}.csv"))


def table(folder: Path, stem: str, title: str) -> Table:
    """The table STEM.md, as tables.write made it, with its full precision in STEM.csv."""
    caption, (names, *rows), notes = _read_markdown(text_of(folder / f"{stem}.md"))
    numeric = [k > 0 and all(_NUMBER.match(row[k]) for row in rows if row[k]) for k in range(len(names))]
    printed = [name.endswith(", paper") for name in names]

    def cell(row: list[str], k: int) -> Cell:
        if printed[k] and not row[k]:
            return Cell("", NOT_PRINTED, number=True, printed=True)
        if not numeric[k]:
            return Cell(row[k], printed=printed[k])
        text = with_minus(row[k])
        parts = _WITH_INTERVAL.fullmatch(text)
        return Cell(*(parts.groups() if parts else (text,)), number=True, printed=printed[k])

    groups = []
    runs = [list(own) for _, own in groupby(rows, key=lambda row: row[0])]
    shared = len(runs) < len(rows)  # then the second column names the row
    for own in runs if shared else [rows]:
        group = [[cell(row, k) for k in range(len(names))] for row in own]
        for number, row in enumerate(group):
            row[shared] = replace(row[shared], scope="row", number=False)
            if shared:
                row[0] = replace(row[0], scope="rowgroup", rows=len(own))
                group[number] = row if number == 0 else row[1:]
        groups.append(group)
    return Table(
        anchor_of(folder, stem),
        title,
        caption,
        _heading_rows(names, [n and k > shared for k, n in enumerate(numeric)], printed),
        groups,
        [note for note in notes if note != BLANK_NOTE],  # such cells are not blank here
        attached(folder, f"{stem}.csv"),
    )


def shared_notes(tables: Sequence[Table]) -> list[str]:
    """The notes that stand under most of the tables, so that they can be said once.

    Where tables are of several recipes, as their lines on the profile tell, those that stand under all of them.
    """
    counts = Counter(note for one in tables for note in one.notes)
    several = sum(note.startswith("Profile ") and "recipe" in note for note in counts) > 1
    least = len(tables) if several else len(tables) / 2 + 0.5
    return [note for note, number in counts.items() if len(tables) > 1 and number >= least]


def without(item: Picture | Table, notes: Sequence[str]) -> Picture | Table:
    """The item without notes that the page says elsewhere: those under a table, those at the end of a caption."""
    if isinstance(item, Table):
        return replace(item, notes=[note for note in item.notes if note not in notes])
    caption = item.caption
    while found := next((note for note in notes if caption.endswith(note) and caption != note), None):
        caption = caption.removesuffix(found).rstrip()
    return replace(item, caption=caption)


def rows_of(path: Path) -> list[dict[str, str]]:
    """A CSV file as text; no rows where it is not there."""
    return list(csv.DictReader(io.StringIO(text_of(path))))


def text_of(path: Path) -> str:
    """A file's text; empty where it is not there."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def attached(folder: Path, name: str) -> Attachment | None:
    """A CSV file of a study's folder; from a folder within it, under a name that says so."""
    path = folder / name
    if not path.exists():
        return None
    content = path.read_bytes()
    prefix = f"{folder.name}-" if folder.name.startswith("external-") else ""
    return Attachment(f"{prefix}{name}", f"{len(content) / 1000:.1f} kB", data_uri("text/csv;charset=utf-8", content))


def data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def anchor_of(folder: Path, stem: str) -> str:
    """An id for the page, of letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", f"{folder.name}-{stem}".lower())


def with_minus(text: str) -> str:
    """Numbers with a minus sign instead of a hyphen."""
    return re.sub(r"(?<![\w-])-(?=\d)", "−", text)


def prose(markdown: str, under: int = 2) -> str:
    """Markdown as HTML for a place under a heading of level `under`; HTML within it is shown, not obeyed."""
    return MarkdownWithMath(renderer=_Prose(under)).render(markdown)


class _Prose(IPythonRenderer):
    """Escapes HTML, loads nothing, and fits headings and tables into the page around them."""

    def __init__(self, under: int):
        super().__init__(escape=True, allow_harmful_protocols=False, exclude_anchor_links=True)
        self.under, self.open = under, []

    def heading(self, text: str, level: int, **_: object) -> str:
        # Levels by nesting, so that none is skipped whatever the text begins with.
        self.open = [*(outer for outer in self.open if outer < level), level]
        place = min(self.under + len(self.open), 6)
        return f"<h{place}>{text}</h{place}>\n"

    def image(self, text: str, url: str, title: str | None = None) -> str:
        return f"<em>{text}</em>"

    def table(self, text: str) -> str:
        return f'<div class="wide" tabindex="0" role="group" aria-label="Table">\n<table>\n{text}</table>\n</div>\n'

    def table_cell(self, text: str, align: str | None = None, head: bool = False) -> str:
        number = ' class="number"' if align == "right" else ""
        return f'<th scope="col"{number}>{text}</th>\n' if head else f"<td{number}>{text}</td>\n"


def _read_markdown(text: str) -> tuple[str, list[list[str]], list[str]]:
    """Caption, rows with the heading first, and notes; the inverse of tables.markdown."""
    lines = text.splitlines()
    rows = [
        [cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
        for line in lines
        if line.startswith("|")
    ]
    caption = lines[0].removeprefix("**").removesuffix("**")
    return caption, [rows[0], *rows[2:]], [line[2:] for line in lines if line.startswith("- ")]


def _heading_rows(names: list[str], numeric: list[bool], printed: list[bool]) -> list[list[Cell]]:
    """One row of headings, or two where columns belong to samples: "Sample 1, paper" stands under "Sample 1"."""
    parts = [re.fullmatch(r"(Sample \d+), (.+)", name) for name in names]
    if not any(parts):
        flags = zip(names, numeric, printed, strict=True)
        return [[Cell(name, scope="col", number=n, printed=p) for name, n, p in flags]]
    upper, lower = [], []
    for sample, own in _runs(range(len(names)), lambda k: parts[k] and parts[k][1]):
        if sample is None:
            upper += [Cell(names[k], scope="col", rows=2) for k in own]
            continue
        upper.append(Cell(sample, scope="colgroup", columns=len(own)))
        lower += [Cell(parts[k][2], scope="col", number=True, printed=printed[k]) for k in own]
    return [upper, lower]


def _runs(values: Sequence[int], key: Callable[[int], object]) -> list[tuple[object, list[int]]]:
    return [(name, list(own)) for name, own in groupby(values, key)]
