"""The figure of a sweep's overview, and the words that it shares with the overview's table.

`rows` is what `overview.table` gives, and `row` one of its `itertuples`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sahlib.figures import drawing

LINE, TALLEST = 0.2, 150  # inches: one line of the figure, and all of them, beyond which lines move together


@drawing.styled
def forest(rows: pd.DataFrame) -> Figure:
    """One line per row: Dice over slices with lesion, its interval over patients, and each seed as a dot.

    Rows that are to be compared stand under one heading; where runs are still to come or have failed, text is grey.
    """
    first = ~rows.duplicated(["dataset", "recipe"])
    # Each line stands below all rows before it and the headings so far, its own included.
    rows = rows.assign(at=np.arange(len(rows)) + first.cumsum())
    lines = len(rows) + first.sum()
    figure = Figure(figsize=(drawing.WIDTH, min(LINE * lines, TALLEST) + 0.6), layout="constrained")
    ax = figure.subplots()
    beside = {"transform": ax.get_yaxis_transform(), "va": "center_baseline"}
    for row in rows[first].itertuples():
        ax.axhspan(row.at - 1.5, row.at - 0.5, color="0.94", linewidth=0, zorder=0)
        ax.text(0.005, row.at - 1, f"{row.dataset}, {row.recipe}", fontweight="bold", fontsize=7.5, **beside)
    own = drawing.looks(rows["model"])
    for model, tested in rows[rows["dice"].notna()].groupby("model"):
        _lines(ax, own[model], tested)
    ax.set_yticks(rows["at"], [row.network + rate for row, rate in zip(rows.itertuples(), rates(rows), strict=True)])
    for label, row in zip(ax.get_yticklabels(), rows.itertuples(), strict=True):
        colour = drawing.OTHER if row.states or not row.seeds_tested else "black"
        label.set_color(colour)
        ax.text(1.01, row.at, _beside(row), color=colour, fontsize=6.5, **beside)
    ax.set(ylim=(max(lines, 1) - 0.5, -0.5), xlabel="Dice over slices with lesion (interval: 95 %)")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_axisbelow(True)
    ax.grid(axis="x", color="0.9", linewidth=0.6)
    if rows.empty:
        ax.text(0.5, 0.5, "no run that can be read", ha="center", transform=ax.transAxes)
    return figure


def _lines(ax: Axes, own: drawing.Look, rows: pd.DataFrame) -> None:
    """Intervals and means of one network at the heights `at`; below them the seeds, where there are several."""
    ax.hlines(rows["at"], rows["low"], rows["high"], color=own.colour, linewidth=1.4, zorder=3)
    seeds = rows[rows["seed_scores"].map(len) > 1].explode("seed_scores")
    look = {"color": own.colour, "linestyle": "none", "markeredgewidth": 0, "clip_on": False}
    if len(seeds):  # an empty unclipped line counts as one at the figure's corner in the layout
        ax.plot(seeds["seed_scores"].astype(float), seeds["at"] + 0.32, ".", markersize=4, alpha=0.8, zorder=3, **look)
    ax.plot(rows["dice"], rows["at"], own.marker, markersize=5.5, zorder=4, **look)


def _beside(row) -> str:
    """What stands to the right of a line: the score, and what is not as it should be."""
    folds = f"{row.folds_tested} of {row.folds} folds" if row.folds_tested and not row.seeds_tested else ""
    collapsed = f"{row.collapsed} collapsed" if row.collapsed else ""
    return "; ".join(filter(None, (dice_in_words(row), folds, row.states, collapsed)))


# Words


def rates(rows: pd.DataFrame) -> list[str]:
    """The learning rate of each row whose network occurs with several under its recipe, else empty."""
    several = rows.groupby(["dataset", "recipe", "model"])["learning_rate"].transform("nunique") > 1
    return [f", learning rate {rate:g}" * own for rate, own in zip(rows["learning_rate"], several, strict=True)]


def dice_in_words(row) -> str:
    """The Dice over slices with lesion, with its interval where there is one; empty where no seed is tested."""
    interval = "" if np.isnan(row.low) else f" ({row.low:.3f} to {row.high:.3f})"
    return decimals(row, row.dice) + interval


def decimals(row, value: float) -> str:
    """A score of the row; "undefined" where it is NaN, empty where no seed is tested."""
    if not row.seeds_tested:
        return ""
    return "undefined" if np.isnan(value) else f"{value:.3f}"
