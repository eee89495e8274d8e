"""The parts of a report, each read from the files that a study left: figures, tables, the ledger, prose.

What is read comes out as plain text and data URIs; the template lays it out and escapes it. Only `prose` returns HTML.
"""

from __future__ import annotations

import base64
import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from markupsafe import Markup
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from PIL import Image

from sahlib.figures.drawing import DPI, WIDTH, alternative_text
from sahlib.figures.tables import BLANK_NOTE

# Wider pictures are made smaller. Those of drawing.save stay as they are: resampled they would weigh more, not less.
WIDEST = round(WIDTH * DPI)
_NUMBER = re.compile(r"[+−-]?\d|–$")


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
class Column:
    """A column of a table. sample: the heading above its own, where it has one; printed: whether it is the paper's"""

    sample: str
    name: str
    numeric: bool
    printed: bool


@dataclass(frozen=True)
class Table:
    """A table as text. groups: of rows that share their first cell where `is_grouped`, else one group of all"""

    anchor: str
    title: str
    caption: str
    columns: list[Column]
    is_grouped: bool
    groups: list[list[list[str]]]
    notes: list[str]
    data: Attachment | None


def picture(folder: Path, stem: str, title: str, alt: str = "") -> Picture:
    """The figure STEM.png with its caption STEM.txt and its data STEM.csv; its beginning stands in for `alt`."""
    content = (folder / f"{stem}.png").read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        if image.width > WIDEST:
            image = image.convert("RGB")
            image.thumbnail((WIDEST, image.height))
            smaller = io.BytesIO()
            image.save(smaller, "PNG", optimize=True)
            content = smaller.getvalue()
        size = image.size
    caption = text_of(folder / f"{stem}.txt").strip()
    alt = alt or alternative_text(caption) or title
    anchor, uri = anchor_of(f"{folder.name}-{stem}"), data_uri("image/png", content)
    return Picture(anchor, title, alt, caption, uri, *size, attached(folder, f"{stem}.csv"))


def table(folder: Path, stem: str, title: str) -> Table:
    """The table STEM.md, as tables.markdown wrote it, with its full precision in STEM.csv.

    Its caption, its notes, and which of its columns are counts and which are scores, are in the Markdown alone.
    """
    lines = text_of(folder / f"{stem}.md").splitlines()
    names, _, *rows = (
        [cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines
        if line.startswith("|")
    )
    groups = [list(own) for _, own in groupby(rows, key=lambda row: row[0])]
    is_grouped = len(groups) < len(rows)  # then the second column names the row
    columns = []
    for k, name in enumerate(names):
        numeric = k > is_grouped and all(_NUMBER.match(row[k]) for row in rows if row[k])
        sample, own = re.fullmatch(r"(?:(Sample \d+), )?(.*)", name).groups("")
        columns.append(Column(sample, own, numeric, name.endswith(", paper")))
    return Table(
        anchor_of(f"{folder.name}-{stem}"),
        title,
        lines[0].removeprefix("**").removesuffix("**"),
        columns,
        is_grouped,
        groups if is_grouped else [rows],
        # No cell is blank on the page: where the paper prints nothing, it says so.
        [line[2:] for line in lines if line.startswith("- ") and line[2:] != BLANK_NOTE],
        attached(folder, f"{stem}.csv"),
    )


def shared_notes(items: Sequence[Picture | Table]) -> list[str]:
    """The notes that stand under most of the tables among `items`, so that they can be said once.

    Where tables are of several recipes, as their lines on the profile tell, those that stand under all of them.
    """
    tables = [item for item in items if isinstance(item, Table)]
    counts = Counter(note for one in tables for note in one.notes)
    several = sum(note.startswith("Profile ") and "recipe" in note for note in counts) > 1
    least = len(tables) if several else len(tables) / 2 + 0.5
    return [note for note, number in counts.items() if len(tables) > 1 and number >= least]


def without(caption: str, notes: Sequence[str]) -> str:
    """The caption without those of the notes at its end that the page says elsewhere."""
    while found := next((note for note in notes if caption.endswith(f" {note}")), ""):
        caption = caption.removesuffix(f" {found}")
    return caption


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


def anchor_of(text: str) -> str:
    """An id for the page, of letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())


def with_minus(text: str) -> str:
    """Numbers with a minus sign instead of a hyphen."""
    return re.sub(r"(?<![\w-])-(?=\d)", "−", text)


def prose(markdown: str) -> Markup:
    """Markdown as HTML for a place under a heading of level 3; HTML within it is shown, not obeyed."""
    return Markup(MarkdownWithMath(renderer=_Prose(escape=True, allow_harmful_protocols=False)).render(markdown))


class _Prose(IPythonRenderer):
    """Loads nothing, and fits headings and tables into the page around them."""

    def heading(self, text: str, level: int, **_: object) -> str:
        place = min(level + 2, 6)
        return f"<h{place}>{text}</h{place}>\n"

    def image(self, text: str, url: str, title: str | None = None) -> str:
        return f"<em>{text}</em>"

    def table(self, text: str) -> str:
        return f'<div class="wide" tabindex="0" role="group" aria-label="Table">\n<table>\n{text}</table>\n</div>\n'

    def table_cell(self, text: str, align: str | None = None, head: bool = False) -> str:
        number = ' class="number"' if align == "right" else ""
        return f'<th scope="col"{number}>{text}</th>\n' if head else f"<td{number}>{text}</td>\n"
