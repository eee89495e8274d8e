"""The report: everything in a study's output folder as one HTML file to read, print and mail, the verdict first.

    >>> write(results.folder, workspace.root / "paper_figures" / "report.html", reproduce.command_line(study))

It is made of that folder's files alone, needs none of them afterwards and loads nothing. What templates/contents.toml
does not name is shown at the end; what it names and the folder lacks is left out, and so are scores elsewhere that no
model card quotes: of other networks, or half made by a notebook that failed. templates/report.html.j2 is the page.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

from markupsafe import Markup, escape

from sahlib.browser.embedded import Embedded
from sahlib.chapters.verdict import WORDS
from sahlib.figures.drawing import save_text
from sahlib.figures.ledger_page import HEADINGS, SIGNS
from sahlib.figures.tables import WHOLE
from sahlib.paper import transcript
from sahlib.report import report_parts
from sahlib.report.rendering import ENVIRONMENT
from sahlib.report.report_parts import Picture, Table, anchor_of, attached, rows_of, text_of, with_minus
from sahlib.report.slices_part import PLACE, with_slices
from sahlib.scoring.baselines import BACKGROUND
from sahlib.scoring.metrics import CONVENTIONS
from sahlib.study import name_of
from sahlib.workspace import shortened

# Section -> stem of the files of a figure or table -> [title] or [title, alternative text].
CONTENTS = tomllib.loads((Path(__file__).parent / "templates" / "contents.toml").read_text(encoding="utf-8"))
OPENING, ELSEWHERE = "Verdict", "On scans from elsewhere"
HOME = [title for title in CONTENTS if title != ELSEWHERE]
MAIN_CLAIM = "attention_higher_dice"


def write(folder: Path, path: Path, command: str, embed: Callable[[int], Embedded] | None = None) -> Path:
    """Writes the report on a study's output `folder` to `path` and returns `path`; StudyError where the disk refuses.

    command  the line that runs the study again, from reproduce.command_line
    embed    the slices to look at, as slices_part.with_slices takes them
    """
    page = html(folder, command, embed is not None)
    return save_text(path, with_slices(page, embed) if embed else page)


def html(folder: Path, command: str, slices: bool = False) -> str:
    """The report as one HTML document, with a place for slices or not; equal files and command, equal text."""
    record = json.loads(text_of(folder / "run.json") or "{}")
    claims = rows_of(folder / "ledger.csv")
    sections = {title: items_of(folder, CONTENTS[title]) for title in HOME}
    further = further_items(folder, HOME)
    notes = report_parts.shared_notes([*chain(*sections.values()), *further])
    # Front matter is for machines.
    cards = [re.sub(r"(?s)\A---\n.*?\n---\n+", "", text_of(path)) for path in sorted(folder.glob("model_card_*.md"))]
    quoted = [
        path.parent
        for path in sorted(folder.glob("external-*/summary.md"))
        if (origin := text_of(path).partition("\n")[0]) and any(origin in card for card in cards)
    ]
    return ENVIRONMENT.get_template("report.html.j2").render(
        name=folder.name,
        printed=list(transcript.PAPER.printed["dice"].items()),
        record=record,
        recipes={"the study's own": record} | record.get("further_recipes", {}),
        verdict=text_of(folder / "verdict.md"),
        main_claim=next((row for row in claims if row["key"] == MAIN_CLAIM), None),
        # Rows that only hold a contradiction of the paper with itself are no claims.
        tally=Counter(row["verdict"] for row in claims if row["kind"] != "contradiction"),
        contradictions=sum(row["kind"] == "contradiction" for row in claims),
        numbers=decisive_numbers(folder),
        notes=notes,
        opening=sections.pop(OPENING),
        further=further,
        sections={title: items for title, items in sections.items() if items},
        ledgers=ledgers_of(folder),
        rule="".join(text_of(folder / "ledger.md").partition("**How a verdict")[1:]),
        elsewhere=[elsewhere_of(own, notes) for own in quoted],
        cards=cards,
        signs=SIGNS,
        words=WORDS,
        headings=HEADINGS,
        times=rows_of(folder / "times.csv"),
        command=command,
        slices=PLACE if slices else "",
    )


def items_of(folder: Path, contents: dict[str, list[str]]) -> list[Picture | Table]:
    """The figures and tables of `contents`, as a section of CONTENTS, that are in the folder."""
    items = []
    for stem, (title, *alt) in contents.items():
        if (folder / f"{stem}.png").exists():
            items.append(report_parts.picture(folder, stem, title, *alt))
        elif (folder / f"{stem}.md").exists():
            items.append(report_parts.table(folder, stem, title))
    return items


def further_items(folder: Path, sections: Sequence[str]) -> list[Picture | Table]:
    """The figures and tables in the folder that `sections` do not name; a ledger's figure is text here."""
    known = {stem for section in sections for stem in CONTENTS[section]}
    found = {path.stem for pattern in ("*.png", "table_*.md") for path in folder.glob(pattern)}
    unknown = [stem for stem in sorted(found - known) if not stem.startswith("ledger")]
    return items_of(folder, {stem: [stem.removeprefix("table_").replace("_", " ").capitalize()] for stem in unknown})


def ledgers_of(folder: Path) -> list[dict]:
    """The ledger of the fairest recipe first, then those of the others; what the template shows of each."""
    found = []
    for path in sorted(folder.glob("ledger*.csv"), key=lambda path: (len(path.stem), path.stem)):
        recipe = path.stem.removeprefix("ledger").strip("_")
        ledger = {
            "anchor": anchor_of(f"{folder.name}-{path.stem}"),
            "title": f"Under the recipe: {recipe}" if recipe else "The claims",
            "caption": text_of(path.with_suffix(".txt")).strip(),
            "rows": rows_of(path),
            "data": attached(folder, path.name),
        }
        found.append(ledger)
    return found


def elsewhere_of(folder: Path, said: Sequence[str]) -> dict:
    """What the template shows of results on scans from elsewhere; said: the notes that the page holds already."""
    summary = text_of(folder / "summary.md")
    scans = re.match(r"Tested on (.+?) from elsewhere \((\w+)", summary)
    title = f"{scans[1].capitalize()}, {scans[2].replace('_', ' ')}" if scans else folder.name
    items = items_of(folder, CONTENTS[ELSEWHERE]) + further_items(folder, [ELSEWHERE])
    shared = report_parts.shared_notes(items)
    return {
        "anchor": anchor_of(f"{folder.name}-scans"),
        "title": title,
        "summary": summary,
        "notes": [note for note in shared if note not in said and note not in summary],
        "said": [*said, *shared],
        "shown": items,
    }


def decisive_numbers(folder: Path) -> list[tuple[str, str, str]]:
    """What the verdict rests on: what attention adds, what its gates alone add, and what finding nothing earns; each as
    what it is, the number, and what belongs beside it."""
    record = json.loads(text_of(folder / "run.json") or "{}")
    of_recipe = [f"recipe {record['recipe']}"] if record.get("further_recipes") else []
    found = []
    for row in rows_of(folder / "table_differences.csv"):
        asked = (row["Score"], row["Convention"]) == ("Dice", CONVENTIONS["sah_slices"].label)
        if asked and re.match(rf"{name_of('attention_unet')}( \(collapsed.*?\))? minus ", row["Difference"]):
            value, *interval = with_minus(row["Estimate (95 % interval)"]).split(" ", 1)
            known = [f"95 % interval {own}" for own in interval] + [f"p = {row['p, permutation']}"]
            found.append((row["Difference"], value, ", ".join(["Dice over SAH slices", *of_recipe, *known])))
    for row in rows_of(folder / "table_3.csv"):
        if (row["Slices"], row["Metric"]) == (WHOLE, "Dice"):
            printed = " and ".join(f"{float(v):.3f}" for name, v in row.items() if name.endswith(", paper"))
            detail = f"Dice for finding nothing, when empty against empty counts as 1; the paper prints {printed}"
            found.append((BACKGROUND, f"{float(row[BACKGROUND]):.3f}", detail))
    return found


def unbroken(text: str) -> Markup:
    """Text, escaped, in which no line ends within "U-Net"."""
    return Markup(re.sub(r"\bU-Net\b", '<span class="whole">U-Net</span>', str(escape(text))))


ENVIRONMENT.filters |= {
    "named": name_of,
    "anchor": anchor_of,
    "minus": with_minus,
    "prose": report_parts.prose,
    "shortened": shortened,
    "unbroken": unbroken,
    "without": report_parts.without,
}
