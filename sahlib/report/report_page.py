"""The report: everything in a study's output folder as one HTML file to read, print and mail, the verdict first.

    >>> write(results.folder, workspace.root / "paper_figures" / "report.html", reproduce.command_line(study))

It is made of that folder's files alone, needs none of them afterwards and loads nothing. What the lists here do not
name is shown at the end; what they name and the folder lacks is left out.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from sahlib.chapters.verdict import CONTRASTS, WORDS
from sahlib.figures.ledger_page import HEADINGS, SIGNS
from sahlib.figures.tables import TABLE_3_CONVENTIONS, WHOLE
from sahlib.paper import transcript
from sahlib.paper.rules import VERDICTS
from sahlib.report.report_parts import (
    Attachment,
    Picture,
    Table,
    anchor_of,
    attached,
    picture,
    prose,
    rows_of,
    shared_notes,
    table,
    text_of,
    with_minus,
    without,
)
from sahlib.scoring.baselines import BACKGROUND
from sahlib.scoring.metrics import CONVENTIONS
from sahlib.study import MODELS
from sahlib.workspace import writing

TEMPLATES = Path(__file__).parent / "templates"
MAIN_CLAIM = "attention_higher_dice"
# Section -> its figures and tables in order, each with its short title.
ORDER = {
    "Beside the paper": {
        "table_3": "Table 3: the whole test set",
        "table_1": "Table 1: U-Net on single samples",
        "table_2": "Table 2: Attention U-Net on single samples",
    },
    "The paper's figures": {
        "figure_1_workflow": "Figure 1: workflow",
        "figure_2_slice_and_mask": "Figure 2: a slice and its mask",
        "figure_3_unet": "Figure 3: U-Net",
        "figure_4_attention_unet": "Figure 4: Attention U-Net",
        "figure_5_training_unet": "Figure 5: training of U-Net",
        "figure_6_training_attention_unet": "Figure 6: training of Attention U-Net",
        "figure_7_comparison": "Figure 7: three samples",
        "figure_8_test_slices": "Figure 8: the test set",
        "figure_9_scores": "Figure 9: scores",
    },
    "Beyond the paper": {
        "table_intervals": "Scores with intervals",
        "table_differences": "Differences between networks",
        "table_decision": "Gates or optimisation",
        "lesion_size": "Small and large lesions",
        "table_classes": "Scores by class",
        "classes": "The classes",
        "table_conventions": "Every score, every convention",
        "printed_numbers": "What the printed numbers imply",
        "table_clinical": "Distances, lesions, detection",
        "gate_maps": "What the gates let through",
        "table_gates": "Gates inside the lesion",
        "reliability": "Calibration",
        "bland_altman": "Volume",
        "table_networks": "Size and speed",
    },
}
OPENING = {"conventions": "Scores by convention"}
ELSEWHERE = {
    "table_external": "At home and elsewhere",
    "table_3": "Table 3 elsewhere",
    "table_clinical": "Distances, lesions, detection elsewhere",
    "figure_7_comparison": "Samples elsewhere",
}
# What a figure is, for those who do not see it; what it shows stands in its caption and its data.
ALTERNATIVES = {
    "conventions": "Dot plots of every predictor's scores under each way of averaging, lines at the paper's values",
    "figure_1_workflow": "Flow chart of the study, from scans by way of training to scores",
    "figure_2_slice_and_mask": "A CT slice, its mask of hemorrhage, and the slice with the mask outlined",
    "figure_3_unet": "Diagram of the U-Net's blocks with channels and resolution",
    "figure_4_attention_unet": "Diagram of the Attention U-Net's blocks with channels, resolution and gates",
    "figure_5_training_unet": "Line charts over the epochs of U-Net: loss on the left, validation Dice on the right",
    "figure_6_training_attention_unet": "Line charts over the epochs of Attention U-Net: loss, and validation Dice",
    "figure_7_comparison": "A row per sample: CT with the true contour, each network's mask, the true mask",
    "figure_8_test_slices": "Test slices of CT with the true contour of the hemorrhage",
    "figure_9_scores": "Bar chart of the scores of Table 3, the paper's beside those of this study",
    "lesion_size": "Dice with intervals for small, middle and large lesions, a marker per predictor",
    "classes": "Test slices with the masks of every class",
    "printed_numbers": "Two charts of what the paper's Dice and IoU leave possible",
    "gate_maps": "Test slices with the attention gates' coefficients at each level as maps",
    "reliability": "Reliability diagrams: share of lesion pixels against predicted probability, one per network",
    "bland_altman": "Bland-Altman plots: error of the predicted volume against its size, one per network",
}


@dataclass(frozen=True)
class Number:
    """A number of the verdict's card, with what it is and what belongs beside it."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True)
class Tally:
    """How many claims got one verdict. kind: its name as a class of the style sheet"""

    verdict: str
    kind: str
    sign: str
    words: str
    count: int


@dataclass(frozen=True)
class Ledger:
    """The claims under one recipe. groups: (heading, rows of ledger.csv as text) by kind of claim; rule: HTML"""

    anchor: str
    title: str
    caption: str
    groups: list[tuple[str, list[dict[str, str]]]]
    rule: str
    data: Attachment | None


@dataclass(frozen=True)
class Elsewhere:
    """Scans from elsewhere. summary: HTML; notes: what holds for all of its items; further: those behind a fold"""

    anchor: str
    title: str
    summary: str
    notes: list[str]
    shown: list[Picture | Table]
    further: list[Picture | Table]


@dataclass(frozen=True)
class Section:
    """A section of figures and tables."""

    title: str
    items: list[Picture | Table] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        return anchor_of(Path("section"), self.title)


def write(folder: Path, path: Path, command: str) -> Path:
    """Writes the report on a study's output `folder` to `path`, whole or not at all, and returns `path`.

    command  the line that runs the study again, from reproduce.command_line
    raises   StudyError where the disk refuses
    """
    page = html(Path(folder), command)
    with writing(Path(path)) as part:
        part.write_text(page, encoding="utf-8", newline="\n")
    return Path(path)


def html(folder: Path, command: str) -> str:
    """The report as one HTML document; equal files and command, equal text."""
    record = json.loads(text_of(folder / "run.json") or "{}")
    opening, *sections, further = sections_of(folder)
    items = [item for section in (opening, *sections, further) for item in section.items]
    notes = shared_notes([item for item in items if isinstance(item, Table)])
    opening, *sections, further = [
        Section(section.title, [without(item, notes) for item in section.items])
        for section in (opening, *sections, further)
    ]
    ledgers = ledgers_of(folder)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["unbroken"] = _unbroken
    return environment.get_template("report.html.j2").render(
        name=folder.name,
        printed=[(MODELS[model], transcript.TABLE_3.value("dice", model)) for model in ("unet", "attention_unet")],
        record=record,
        recipes=trainings(record),
        warnings=warnings(record),
        verdict=prose(text_of(folder / "verdict.md")),
        opening=opening,
        main_claim=next((row for row in rows_of(folder / "ledger.csv") if row["key"] == MAIN_CLAIM), None),
        tallies=tallies(rows_of(folder / "ledger.csv")),
        contradictions=sum(row["kind"] == "contradiction" for row in rows_of(folder / "ledger.csv")),
        numbers=decisive_numbers(folder),
        notes=notes,
        sections=sections,
        ledgers=ledgers,
        elsewhere=[elsewhere_of(own, notes) for own in sorted(folder.glob("external-*")) if own.is_dir()],
        further=further,
        cards=model_cards(folder),
        labels=MODELS,
        kinds={verdict: _kind(verdict) for verdict in VERDICTS},
        signs=SIGNS,
        times=[(row["notebook"], float(row["seconds"])) for row in rows_of(folder / "times.csv")],
        command=command,
    )


def sections_of(folder: Path) -> list[Section]:
    """The opening figure, the sections of ORDER, and last what neither names; only what is in the folder."""
    sections = [Section("Verdict", _items(folder, OPENING))]
    sections += [Section(title, _items(folder, stems)) for title, stems in ORDER.items()]
    known = set().union(OPENING, *ORDER.values())
    return [*sections, Section("Further figures and tables", _items(folder, _unknown(folder, known)))]


def ledgers_of(folder: Path) -> list[Ledger]:
    """The ledger of the fairest recipe first, then those of the others."""
    found = []
    for path in sorted(folder.glob("ledger*.csv"), key=lambda path: (len(path.stem), path.stem)):
        rows = rows_of(path)
        recipe = path.stem.removeprefix("ledger").strip("_")
        text = text_of(path.with_suffix(".md"))
        groups = [(heading, [row for row in rows if row["kind"] == kind]) for kind, heading in HEADINGS.items()]
        found.append(
            Ledger(
                anchor_of(folder, path.stem),
                f"Under the recipe: {recipe}" if recipe else "The claims",
                text_of(path.with_suffix(".txt")).strip(),
                [(heading, own) for heading, own in groups if own],
                prose(text[text.index("**How a verdict") :]) if "**How a verdict" in text and not recipe else "",
                attached(folder, path.name),
            )
        )
    return found


def elsewhere_of(folder: Path, said: list[str]) -> Elsewhere:
    """The results on scans from elsewhere; said: the notes that the page holds already."""
    summary = text_of(folder / "summary.md")
    scans = re.match(r"Tested on (.+?) from elsewhere \((\w+)", summary)
    known = _items(folder, ELSEWHERE)
    items = known + _items(folder, _unknown(folder, set(ELSEWHERE)))
    notes = shared_notes([item for item in items if isinstance(item, Table)])
    own = [note for note in notes if note not in said and note not in summary]
    items = [without(item, [*said, *notes]) for item in items]
    return Elsewhere(
        anchor_of(folder, "scans"),
        f"{scans[1].capitalize()}, {scans[2].replace('_', ' ')}" if scans else folder.name,
        prose(summary, under=3),
        own,
        items[:1],
        items[1:],
    )


def tallies(claims: list[dict[str, str]]) -> list[Tally]:
    """Claims and controls by verdict; rows that only hold a contradiction of the paper with itself do not count."""
    counts = Counter(row["verdict"] for row in claims if row["kind"] != "contradiction")
    return [Tally(v, _kind(v), SIGNS[v][0], WORDS[v], counts[v]) for v in VERDICTS if claims]


def decisive_numbers(folder: Path) -> list[Number]:
    """What the verdict rests on: what attention adds, what its gates alone add, and what finding nothing earns."""
    found = []
    stratum = CONVENTIONS["sah_slices"].label
    for lower, higher in CONTRASTS[:2]:
        what = f"{MODELS[higher]} minus {MODELS[lower]}"
        for row in rows_of(folder / "table_differences.csv"):
            if (row["Difference"], row["Score"], row["Convention"]) == (what, "Dice", stratum):
                value, *interval = with_minus(row["Estimate (95 % interval)"]).split(" ", 1)
                known = [f"95 % interval {own}" for own in interval] + [f"p = {row['p, permutation']}"]
                found.append(Number(what, value, ", ".join(["Dice over SAH slices", *known])))
    convention = CONVENTIONS[TABLE_3_CONVENTIONS["dice"]].label
    for row in rows_of(folder / "table_3.csv"):
        if (row["Slices"], row["Metric"], row["Convention"]) == (WHOLE, "Dice", convention):
            printed = " and ".join(f"{float(v):.3f}" for name, v in row.items() if name.endswith(", paper"))
            detail = f"Dice for finding nothing, when empty against empty counts as 1; the paper prints {printed}"
            found.append(Number(BACKGROUND, f"{float(row[BACKGROUND]):.3f}", detail))
    return found


def warnings(record: dict) -> list[tuple[str, str]]:
    """(what, why) of all that a reader must know before the first number."""
    study, found = record.get("study", {}), []
    if study.get("dataset") == "phantom":
        found.append(
            (
                "Synthetic scans, no clinical evidence.",
                "Every scan in this study was generated: an anatomical phantom with drawn bleeds. It lets networks be "
                "compared under known truth; its scores say nothing about patients.",
            )
        )
    if study.get("profile") == "smoke":
        found.append(("A trial of the code.", "The smoke profile only shows that everything runs."))
    if study.get("slices_are_patients"):
        found.append(
            ("Patients are not known.", "Slices of one patient may be on both sides of the split: scores too good.")
        )
    further = record.get("further_recipes", {})
    for recipe, own in ({"": record} | further).items():
        for model, seeds in own.get("collapsed", {}).items():
            if not any(seeds):
                continue
            where = f" under the recipe {recipe}" * bool(recipe)
            found.append(
                (
                    f"{MODELS[model]} collapsed in {sum(seeds)} of {len(seeds)} trainings{where}.",
                    "It calls every pixel background; that says nothing of its architecture.",
                )
            )
    return found


def trainings(record: dict) -> dict[str, dict]:
    """recipe -> network -> the records of its trainings, the study's own recipe first."""
    further = record.get("further_recipes", {})
    return {"the study's own": record.get("runs", {})} | {recipe: own["runs"] for recipe, own in further.items()}


def model_cards(folder: Path) -> list[tuple[str, str]]:
    """(title, HTML) of each network's model card."""
    cards = []
    for path in sorted(folder.glob("model_card_*.md")):
        # Front matter is for machines.
        text = re.sub(r"\A---\n.*?\n---\n", "", text_of(path), flags=re.DOTALL).lstrip()
        title = re.match(r"# (.+)\n", text)
        body = text[title.end() :] if title else text
        cards.append((title[1] if title else path.stem, prose(body, under=3)))
    return cards


def _items(folder: Path, titles: dict[str, str]) -> list[Picture | Table]:
    items = []
    for stem, title in titles.items():
        if (folder / f"{stem}.png").exists():
            items.append(picture(folder, stem, title, ALTERNATIVES.get(stem, "")))
        elif stem.startswith("table_") and (folder / f"{stem}.md").exists():
            items.append(table(folder, stem, title))
    return items


def _unknown(folder: Path, known: set[str]) -> dict[str, str]:
    """{stem: title} of figures and tables in the folder that are not `known` and no ledger's, which is text here."""
    stems = [path.stem for pattern in ("*.png", "table_*.md") for path in folder.glob(pattern)]
    unknown = [stem for stem in sorted(stems) if stem not in known and not (folder / f"{stem}.csv").match("ledger*")]
    return {stem: stem.removeprefix("table_").replace("_", " ").capitalize() for stem in unknown}


def _unbroken(text: str) -> Markup:
    """Text, escaped, in which no line ends within "U-Net"."""
    return Markup(re.sub(r"\bU-Net\b", '<span class="whole">U-Net</span>', str(escape(text))))


def _kind(verdict: str) -> str:
    return verdict.replace(" ", "-")
