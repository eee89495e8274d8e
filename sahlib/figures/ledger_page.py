"""The page of the claims ledger: its figure, its text, and the files they are written to.

`ledger` decides; nothing here changes a verdict:

    >>> table = ledger.ledger(evidence)
    >>> write(table, "paper_figures/phantom-quick", evidence)
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sahlib.figures import drawing, tables
from sahlib.paper.ledger import COLLAPSED, Evidence
from sahlib.paper.rules import CONTRADICTS, FAILS, HOLDS, UNKNOWN, VERDICTS, rule

# Okabe & Ito; the sign says the same without colour.
SIGNS = {HOLDS: ("✓", "#00734F"), FAILS: ("✗", "#B34700"), UNKNOWN: ("?", "#666666"), CONTRADICTS: ("≠", "#8F3F71")}
HEADINGS = {"training": "Training", "samples": "Single samples", "test set": "The test set",
            "control": "Controls: networks that differ in one thing alone, and what the printed numbers can tell",
            "contradiction": "Where the paper contradicts itself"}  # fmt: skip
_OURS = "Ours (95 % interval)"
# Left end, as a share of the width, and heading of each column.
_COLUMNS = {
    "claim": (0.0, "Claim (section)"),
    "printed": (0.29, "Printed"),
    "ours": (0.395, _OURS),
    "verdict": (0.665, "Verdict, and why"),
}
_WHISKER = (0.605, 0.045)  # middle and half-width
PAGE = 8.0  # inches: an A4 page but for narrow margins
_LINE, _PAD = 0.108, 0.042  # inches


def published(table: pd.DataFrame) -> pd.DataFrame:
    """The ledger as text for people: Claim, Section, Printed, Measured, Ours, Verdict, Why, Would take, Shown in."""
    names = {"claim": "Claim", "sections": "Section", "printed": "Printed", "measure": "Measured",
             "ours": _OURS, "verdict": "Verdict", "reason": "Why", "would_take": "Would take",
             "where": "Shown in"}  # fmt: skip
    return table[[name for name in names if name != "where" or "where" in table]].rename(columns=names)


def caption(table: pd.DataFrame, evidence: Evidence) -> str:
    """What the ledger is of, and its verdicts counted."""
    claims = table[table["kind"] != "contradiction"]
    counted = ", ".join(f"{verdict} {(claims['verdict'] == verdict).sum()}" for verdict in VERDICTS)
    of = f", recipe {evidence.recipe}, profile {evidence.profile}, {evidence.dataset}" if evidence.recipe else ""
    text = f"The claims ledger{of}: {counted}."
    if table["reason"].str.contains(COLLAPSED, regex=False).any():
        text += " Collapsed: a network that calls every pixel background; it says nothing of its architecture."
    if {len(own) for own in evidence.counts.values()} == {1}:
        these = "trained networks, not on the architectures" if evidence.recipe else "masks, not on what made them"
        text += f" One {'seed' if evidence.recipe else 'mask each'}: a verdict on scores is on these {these}."
    if evidence.dataset == "phantom":
        text += " The phantom's scans are synthetic: no verdict here is clinical evidence."
    return text


def write(table: pd.DataFrame, folder: str | Path, evidence: Evidence, stem: str = "ledger") -> dict[str, Path]:
    """Write stem.csv (every column, full precision), stem.md (with the rule), the figure as stem.png and stem.svg, and
    its caption as stem.txt; return the paths by suffix."""
    words = caption(table, evidence)
    text = tables.markdown(published(table), words) + "\n" + rule(evidence.paper)
    paths = drawing.save(ledger_figure(table, words), folder, stem, table, words)
    return paths | {"md": drawing.save_text(Path(folder) / f"{stem}.md", text)}


@drawing.styled
def ledger_figure(table: pd.DataFrame, title: str = "The claims ledger") -> Figure:
    """One page: a row per claim with the printed value, ours with its interval, and the verdict in word and sign.

    The paper's contradictions, beside which nothing is printed or measured, are only counted.
    """
    lines = []  # cells or a heading, the row or None, the height in inches
    for kind, heading in HEADINGS.items():
        rows = [(_cells(row), row) for _, row in table[(table["kind"] == kind) & (kind != "contradiction")].iterrows()]
        lines += [(heading, None, 0.21)] if rows else []
        lines += [(own, row, _LINE * max(c.count("\n") + 1 for c in own.values()) + _PAD) for own, row in rows]
    title = textwrap.fill(title, 112)
    top = 0.34 + 0.15 * (title.count("\n") + 1)
    height = sum(tall for *_, tall in lines) + top + 0.25
    figure = Figure(figsize=(PAGE, height))
    ax = figure.add_axes((0.01, 0, 0.98, 1), xlim=(0, 1), ylim=(height, 0))
    ax.set_axis_off()
    ax.text(0, 0.06, title, va="top", fontsize=9.5)
    for left, words in _COLUMNS.values():
        ax.text(left, top - 0.04, words, va="bottom", fontsize=7.8, color="0.35")
    y = top
    ends = np.abs(table[["low", "high"]].to_numpy(float))
    reach = ends[np.isfinite(ends)].max(initial=0.0) or 1.0
    for cells, row, tall in lines:
        if row is None:
            ax.text(0, y + tall - 0.05, cells, va="bottom", fontsize=8.4, fontweight="bold")
            ax.plot([0, 1], [y + tall - 0.02] * 2, color="0.3", linewidth=0.7)
        else:
            sign, colour = SIGNS[row["verdict"]]
            for column, text in cells.items():
                right, ink = (0.021, colour) if column == "verdict" else (0, "black")  # the sign stands on its left
                x = _COLUMNS[column][0] + right
                ax.text(x, y + _PAD / 2 + 0.012, text, va="top", fontsize=6.6, linespacing=1.12, color=ink)
            x = _COLUMNS["verdict"][0] + 0.006
            ax.text(x, y + _PAD / 2, sign, va="top", ha="center", fontsize=8, color=colour, fontweight="bold")
            if np.isfinite(row[["estimate", "low", "high"]].to_numpy(float)).all():
                _whisker(ax, row, y + _PAD / 2 + 0.01, colour, reach)
            ax.plot([0, 1], [y + tall] * 2, color="0.88", linewidth=0.5)
        y += tall
    places = int((table["kind"] == "contradiction").sum())
    if places:
        words = f"The paper's own numbers and sentences contradict each other in {tables.counted(places, 'place')}."
        ax.text(0, y + 0.06, f"{SIGNS[CONTRADICTS][0]}  {words}", va="top", fontsize=7.8)
    return figure


def _cells(row: pd.Series) -> dict[str, str]:
    told = row["sections"] and row["kind"] != "control"
    claim = f"{row['claim']} ({row['sections']})" if told else row["claim"]
    # What the caption says once need not stand in every row.
    reason = row["reason"].replace("; one seed", "").replace(COLLAPSED, "collapsed")
    if row["would_take"]:
        reason = f"{reason}; would take {row['would_take']}"
    measured = np.isfinite(row["estimate"])
    return {
        "claim": textwrap.fill(claim, 45),
        "printed": "\n".join(textwrap.fill(line, 19) for line in row["printed"].replace(" (", "\n(").split("\n")),
        "ours": f"{row['score']}\n{row['ours']}" if measured else textwrap.fill(row["ours"], 42),
        "verdict": textwrap.fill(f"{row['verdict']}: {reason}", 50),
    }


def _whisker(ax: Axes, row: pd.Series, y: float, colour: str, reach: float) -> None:
    """The difference and its interval on one scale for all rows, 0 as a thin upright line; y in inches."""
    middle, half = _WHISKER
    ax.plot([middle] * 2, [y - 0.02, y + 0.2], color="0.6", linewidth=0.6)
    ends = [middle + half * row[end] / reach for end in ("low", "high")]
    ax.plot(ends, [y + 0.09] * 2, color=colour, linewidth=1.2)
    ax.plot(middle + half * row["estimate"] / reach, y + 0.09, "o", color=colour, markersize=3)
