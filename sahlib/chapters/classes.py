"""Every hemorrhage class of a study whose networks find several: scores and pictures beside those of SAH.

With target "all" a network has one output per class that the training side shows, each a yes or no of its own. The
paper names this as future work (section 5); what it measures for SAH is measured here for each.
"""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sahlib.chapters.exploration import CLASS_COLOURS
from sahlib.chapters.publish import notes, run_in_words
from sahlib.chapters.results import Results
from sahlib.data import samples
from sahlib.figures import drawing, tables
from sahlib.scoring import metrics, prediction, statistics
from sahlib.training.runs import Run

HEADING_WIDTH = 24  # characters
SCORES = {"Dice": "dice", "IoU": "iou", "Precision": "precision", "Recall": "recall"}


def scores(results: Results) -> pd.DataFrame:
    """One row per class and network: test slices and patients with the class, Dice over those slices with its interval
    over patients, and Dice, IoU, precision and recall of all test pixels pooled, means over seeds.
    """
    rows = []
    for model, own in results.runs.items():
        for lesion in own[0].lesions:
            counts = [run.counts_of(lesion) for run in own]
            bleeding = counts[0][counts[0]["lesion_pixels"] > 0]
            # A class that no test slice shows has no score, and nobody who fails to find it has collapsed.
            pooled = {
                f"{name}, pooled": float(np.mean([metrics.score(c, score, "pooled") for c in counts]))
                if len(bleeding)
                else np.nan
                for name, score in SCORES.items()
            }
            rows.append(
                {
                    "Class": lesion,
                    "Network": tables.label(model, counts),
                    "Slices": len(bleeding),
                    "Patients": bleeding["patient_id"].nunique(),
                    "Dice, slices with it (95 % interval)": _interval(counts) if len(bleeding) else "–",
                    **pooled,
                }
            )
    order = {lesion: place for place, lesion in enumerate(dict.fromkeys(row["Class"] for row in rows))}
    return pd.DataFrame(rows).sort_values("Class", key=lambda c: c.map(order), kind="stable", ignore_index=True)


def table(results: Results) -> pd.DataFrame:
    """The scores, saved as table_classes."""
    found = scores(results).astype({"Slices": str, "Patients": str})
    caption = "Scores of every class that the networks were trained to find."
    tables.write(found, results.folder, "table_classes", caption, notes(results))
    return tables.displayed(found)


def overlay(results: Results) -> Figure | None:
    """The three sample slices with the outlines of every class, true and as each network sees them, saved as `classes`.

    None where there is one class alone: Figure 7 shows it.
    """
    lesions = next(iter(results.runs.values()))[0].lesions
    if len(lesions) == 1:
        return None
    rows = samples.three_test_slices(results.store, results.split)
    positions = np.searchsorted(results.test_rows, rows)
    truth = {lesion: results.store.of(lesion).masks(rows) for lesion in lesions}
    columns = {"Truth": truth}
    for model, own in results.runs.items():
        columns[tables.label(model, results.counts[model][:1])] = _masks(own[0], lesions, positions)
    ids = results.store.slices["slice_id"].iloc[rows].tolist()
    figure = draw(results.store.images[rows], columns, ids)
    areas = [
        {"slice_id": slice_id, "series": name, "class": lesion, "pixels": int(masks[lesion][k].sum())}
        for name, masks in columns.items()
        for lesion in lesions
        for k, slice_id in enumerate(ids)
    ]
    caption = (
        f"Every class on three test slices, outlines in the colour of the class. The slices follow a rule and no "
        f"result: {samples.THREE_RULE}. {run_in_words(results)}"
    )
    drawing.save(figure, results.folder, "classes", pd.DataFrame(areas), caption)
    return figure


@drawing.styled
def draw(images: np.ndarray, columns: dict[str, dict[str, np.ndarray]], names: list[str]) -> Figure:
    """Slices uint8 [k,H,W] in rows; per column a heading and, per class, masks bool [k,H,W]."""
    side = drawing.WIDTH / len(columns)
    figure = drawing.Figure(figsize=(drawing.WIDTH, len(images) * (side + 0.1) + 0.6), layout="constrained")
    axes = figure.subplots(len(images), len(columns), squeeze=False)
    for row, (image, name) in enumerate(zip(images, names, strict=True)):
        for ax, (heading, masks) in zip(axes[row], columns.items(), strict=True):
            drawing.show(ax, image)
            for lesion, mask in masks.items():
                drawing.outline(ax, mask[row], halo=None, colour=CLASS_COLOURS[lesion])
            if row == 0:
                ax.set_title(textwrap.fill(heading, HEADING_WIDTH), fontsize=8)
        axes[row][0].set_ylabel(name, fontsize=7)
    lesions = next(iter(columns.values()))
    handles = [Line2D([], [], color=CLASS_COLOURS[lesion], label=lesion) for lesion in lesions]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _masks(run: Run, lesions: tuple[str, ...], positions: np.ndarray) -> dict[str, np.ndarray]:
    return {lesion: run.probabilities_of(lesion)[positions] > prediction.THRESHOLD for lesion in lesions}


def _interval(counts: list[pd.DataFrame]) -> str:
    return statistics.in_words(statistics.interval(counts, "dice", "sah_slices"))
