"""The figures of what a network says between 0 and 1, pixel by pixel: its probabilities, and what its gates let pass.

Colours, markers and legends are those of `evidence_plots`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sahlib.figures.drawing import OTHER, WIDTH, looks, outline, slice_rows, styled
from sahlib.figures.evidence_plots import handles_of, legend
from sahlib.networks import gates

FEW_PIXELS = 100  # a bin with fewer is drawn hollow: its share is one lesion's edge, not calibration


@styled
def reliability(data: pd.DataFrame) -> Figure:
    """Share of lesion pixels against predicted probability, and how many pixels each bin holds.

    data: rows of `calibration.reliability_bins` with the columns series and label; a column of panels for each region.
    A bin of fewer than FEW_PIXELS pixels is hollow.
    """
    regions = list(dict.fromkeys(data["region"]))
    figure = Figure(figsize=(WIDTH if len(regions) > 1 else 4.0, 4.7), layout="constrained")
    axes = figure.subplots(2, len(regions), squeeze=False, height_ratios=[2.4, 1], sharex=True, sharey="row")
    own = looks(data["series"])
    for (ax, histogram), region in zip(axes.T, regions, strict=True):
        ax.plot([0, 1], [0, 1], color="0.7", linewidth=0.9, linestyle=(0, (3, 2)), zorder=1)
        for name, bins in data[data["region"] == region].groupby("series", sort=False):
            colour, filled = own[name].colour, bins[bins["pixels"] > 0]
            look = {"color": colour, "markersize": 4.5, "clip_on": False, "zorder": 3}
            ax.plot(filled["mean_probability"], filled["lesion_share"], color=colour, linewidth=1.0, zorder=2)
            many = filled["pixels"] >= FEW_PIXELS
            for group, face in ((filled[many], colour), (filled[~many], "white")):
                if len(group):
                    x, y = group["mean_probability"], group["lesion_share"]
                    ax.plot(x, y, own[name].marker, markerfacecolor=face, **look)
            edges = np.append(bins["low"], bins["high"].iloc[-1])
            histogram.stairs(bins["pixels"], edges, color=colour, linewidth=1.0, baseline=None)
        ax.set(title=f"{region[:1].upper()}{region[1:]}", xlim=(0, 1), ylim=(0, 1), aspect="auto")
        ax.grid(color="0.92", linewidth=0.6)
        histogram.set_yscale("symlog", linthresh=1)
        histogram.set_xlabel("Predicted probability")
    top = max(data["pixels"].max(), 10)
    axes[1, 0].set_ylim(0, 3 * top)
    axes[1, 0].set_yticks([0, *10.0 ** np.arange(0, np.ceil(np.log10(top)) + 1, 2)])
    axes[0, 0].set_ylabel("Share of lesion pixels")
    axes[1, 0].set_ylabel("Pixels in the bin")
    handles = handles_of(data)
    handles.append(Line2D([], [], color="0.7", linestyle=(0, (3, 2)), label="probability = share"))
    if ((data["pixels"] > 0) & (data["pixels"] < FEW_PIXELS)).any():
        hollow = {"color": OTHER, "marker": "o", "markerfacecolor": "white", "linestyle": "none", "markersize": 4.5}
        handles.append(Line2D([], [], label=f"hollow: fewer than {FEW_PIXELS} pixels", **hollow))
    legend(figure, handles)
    return figure


@styled
def gate_maps(
    images: np.ndarray, truth: np.ndarray, maps: Sequence[np.ndarray], titles: Sequence[str], names: Sequence[str]
) -> Figure:
    """What the attention gates let through: a slice per row, its CT with the truth outlined, then one map per level.

    images [k,H,W] uint8; truth [k,H,W] bool; maps: one array [k,h,w] per level, gate coefficients in [0, 1], h and w
    the level's own; titles: one per level; names: k texts. Below each map stands its range, for a gate may use but a
    small part of 0 to 1.
    """
    side, (height, width) = min(WIDTH / (len(maps) + 1), 2.2), images.shape[1:]
    figure, axes = slice_rows(images, truth, titles, side, below=0.27, foot=0.48)
    for k, row in enumerate(axes):
        row[0].set_ylabel(names[k], fontsize=7.5)
        for ax, level in zip(row[1:], maps, strict=True):
            extent = (-0.5, width - 0.5, height - 0.5, -0.5)  # the level's pixels over those of the slice
            look = {"cmap": "viridis", "vmin": 0, "vmax": 1, "interpolation": "none"}
            drawn = ax.imshow(np.asarray(level[k], float), extent=extent, **look)
            ax.set(xticks=[], yticks=[])
            ax.set_xlabel(f"{np.min(level[k]):.2f} to {np.max(level[k]):.2f}", labelpad=2)
            ax.spines[:].set_visible(False)
            outline(ax, truth[k], width=0.8)
    bar = figure.colorbar(drawn, ax=axes, location="bottom", fraction=0.04, pad=0.01, aspect=40, shrink=0.6)
    bar.set_label("Gate coefficient: 0 blocks, 1 lets pass")
    bar.outline.set_visible(False)
    return figure


def gate_maps_data(
    truth: np.ndarray, maps: Sequence[np.ndarray], titles: Sequence[str], names: Sequence[str]
) -> pd.DataFrame:
    """One row per slice and level: range of the coefficients, and their means inside and outside the true lesion.

    The arrays are those of `gate_maps`. inside is NaN on a slice without a lesion.
    """
    both = [gates.inside_and_outside(level, truth, np.ones_like(truth)) for level in maps]
    rows = [
        (name, title, *level.shape[1:], float(level[k].min()), float(level[k].max()), *means[k])
        for k, name in enumerate(names)
        for title, level, means in zip(titles, maps, both, strict=True)
    ]
    return pd.DataFrame(rows, columns=["slice", "level", "height", "width", "least", "greatest", "inside", "outside"])
