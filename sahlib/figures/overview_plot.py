"""The figure of a sweep's overview, and the words that it shares with the overview's table.

`rows` is what `overview.table` gives, and `row` one of its `itertuples`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sahlib.figures import drawing
from sahlib.figures.evidence_plots import MARKERS

LINE, TALLEST = 0.2, 150  # inches: one line of the figure, and all of them, beyond which lines move together


@drawing.styled
def forest(rows: pd.DataFrame) -> Figure:
    """One line per row: Dice over slices with lesion, its interval over patients, and each seed as a dot.

    Rows that are to be compared stand under one heading; where runs are still to come or have failed, text is grey.
    """
    headings = list(zip(rows["dataset"], rows["recipe"], strict=True))
    lines, y = 0, []
    heading_at = {}
    for heading in headings:
        if heading not in heading_at:
            heading_at[heading] = lines
            lines += 1
        y.append(lines)
        lines += 1
    figure = Figure(figsize=(drawing.WIDTH, min(LINE * lines, TALLEST) + 0.6), layout="constrained")
    ax = figure.subplots()
    beside = {"transform": ax.get_yaxis_transform(), "va": "center_baseline"}
    for (dataset, recipe), at in heading_at.items():
        ax.axhspan(at - 0.5, at + 0.5, color="0.94", linewidth=0, zorder=0)
        ax.text(0.005, at, f"{dataset}, {recipe}", fontweight="bold", fontsize=7.5, **beside)
    for model, own in rows.assign(at=y)[rows["dice"].notna()].groupby("model"):
        _lines(ax, model, own)
    ax.set_yticks(y, _labels(rows))
    for label, at, row in zip(ax.get_yticklabels(), y, rows.itertuples(), strict=True):
        colour = drawing.OTHER if row.states or not row.seeds_tested else "black"
        label.set_color(colour)
        ax.text(1.01, at, _beside(row), color=colour, fontsize=6.5, **beside)
    ax.set(xlim=_reach(rows), ylim=(max(lines, 1) - 0.5, -0.5), xlabel="Dice over slices with lesion (interval: 95 %)")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_axisbelow(True)
    ax.grid(axis="x", color="0.9", linewidth=0.6)
    if rows.empty:
        ax.text(0.5, 0.5, "no run that can be read", ha="center", transform=ax.transAxes)
    return figure


def _lines(ax: Axes, model: str, rows: pd.DataFrame) -> None:
    """Intervals and means of one network at the heights `at`; below them the seeds, where there are several."""
    colour = drawing.COLOURS.get(model, drawing.OTHER)
    ax.hlines(rows["at"], rows["low"], rows["high"], color=colour, linewidth=1.4, zorder=3)
    seeds = rows[rows["seed_scores"].map(len) > 1].explode("seed_scores")
    look = {"color": colour, "linestyle": "none", "markeredgewidth": 0, "clip_on": False}
    if len(seeds):  # an empty unclipped line counts as one at the figure's corner in the layout
        ax.plot(seeds["seed_scores"].astype(float), seeds["at"] + 0.32, ".", markersize=4, alpha=0.8, zorder=3, **look)
    ax.plot(rows["dice"], rows["at"], MARKERS.get(model, "o"), markersize=5.5, zorder=4, **look)


def _labels(rows: pd.DataFrame) -> list[str]:
    several = several_rates(rows)
    return [row.network + f", {row.learning_rate:g}" * several[k] for k, row in enumerate(rows.itertuples())]


def _beside(row) -> str:
    """What stands to the right of a line: the score, and what is not as it should be."""
    folds = f"{row.folds_tested} of {row.folds} folds" if row.folds_tested and not row.seeds_tested else ""
    collapsed = f"{row.collapsed} collapsed" if row.collapsed else ""
    return "; ".join(filter(None, (dice_in_words(row), folds, row.states, collapsed)))


def _reach(rows: pd.DataFrame) -> tuple[float, float]:
    """Ends of the axis: tenths around all that is drawn, at least three of them; 0 to 1 where nothing is."""
    values = [*rows[["dice", "low", "high"]].to_numpy(float).ravel(), *(s for own in rows["seed_scores"] for s in own)]
    values = [value for value in values if np.isfinite(value)]
    if not values:
        return 0.0, 1.0
    low, high = np.floor(10 * min(values)), np.ceil(10 * max(values))
    low = max(0.0, min(low, high - 3))
    return low / 10, min(1.0, max(high, low + 3) / 10)


# Words


def several_rates(rows: pd.DataFrame) -> list[bool]:
    """Whether the network of a row occurs with several learning rates under its recipe."""
    return (rows.groupby(["dataset", "recipe", "model"])["learning_rate"].transform("nunique") > 1).tolist()


def dice_in_words(row) -> str:
    """The Dice over slices with lesion, with its interval where there is one; empty where no seed is tested."""
    interval = "" if np.isnan(row.low) else f" ({row.low:.3f} to {row.high:.3f})"
    return decimals(row, row.dice) + interval


def decimals(row, value: float) -> str:
    """A score of the row; "undefined" where it is NaN, empty where no seed is tested."""
    if not row.seeds_tested:
        return ""
    return "undefined" if np.isnan(value) else f"{value:.3f}"
