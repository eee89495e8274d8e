"""Notebook 05: Tables 1 to 3 and the scores of every class; saved to the results' folder and returned."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from sahlib.chapters import published
from sahlib.chapters.judged import Judged
from sahlib.chapters.results import Results, fairest
from sahlib.chapters.train_unet import UNETS
from sahlib.data import samples
from sahlib.figures import tables
from sahlib.paper import transcript
from sahlib.scoring import baselines, intervals, metrics
from sahlib.study import name_of


def table_1(results: Results) -> pd.DataFrame:
    """The U-Net on the three samples."""
    return _sample_table(results, [model for model in UNETS if model in results.counts], transcript.TABLE_1)


def table_2(results: Results) -> pd.DataFrame:
    """The Attention U-Net on the three samples."""
    return _sample_table(results, ["attention_unet"], transcript.TABLE_2)


def table_3(judged: Judged, stem: str = "table_3") -> pd.DataFrame:
    """Every predictor on the test set."""
    beside = ", the paper's printed value beside each of ours" if judged.paper else ""
    caption = f"Table 3. Scores on the test set{beside}."
    notes = tables.AGGREGATE_NOTES[not judged.paper :]
    return published.table(judged, aggregate(judged), stem, caption, *notes)


def table_3_of_others(recipes: dict[str, Results]) -> list[pd.DataFrame]:
    """Table 3 under each recipe but the fairest, each headed by its recipe's name, saved as table_3_<recipe>.*."""
    others = [own for own in recipes.values() if own is not fairest(recipes)]
    return [table_3(own, f"table_3_{own.recipe}").rename_axis(columns=f"recipe {own.recipe}") for own in others]


def aggregate(judged: Judged) -> pd.DataFrame:
    """Table 3 in full precision; "background everywhere" stands in it of itself."""
    series = {name: own for name, own in judged.every_series.items() if name != baselines.BACKGROUND}
    return tables.aggregate_table(series, judged.batch_size, judged.paper)


def class_scores(results: Results) -> pd.DataFrame:
    """One row per class and network: test slices and patients with the class, Dice over those slices with its interval
    over patients, and Dice, IoU, precision and recall of all test pixels pooled, means over seeds.

    With target "all" a network has one output per class that the training side shows, each a yes or no of its own; the
    paper names this as future work (section 5).
    """
    rows = []
    for lesion, (model, own) in itertools.product(results.lesions, results.runs.items()):
        counts = [run.counts_of(lesion) for run in own]
        bleeding = counts[0][counts[0]["lesion_pixels"] > 0]
        # A class that no test slice shows has no score, and nobody who fails to find it has collapsed.
        shown = len(bleeding) > 0
        dice = intervals.in_words(intervals.interval(counts, "dice", "sah_slices")) if shown else "–"
        row = {
            "Class": lesion,
            "Network": tables.label(model, counts),
            "Slices": len(bleeding),
            "Patients": bleeding["patient_id"].nunique(),
            "Dice, slices with it (95 % interval)": dice,
        }
        for score in ("dice", "iou", "precision", "recall"):
            pooled = [metrics.score(c, score, "pooled") if shown else np.nan for c in counts]
            row[f"{metrics.LABELS[score]}, pooled"] = float(np.mean(pooled))
        rows.append(row)
    return pd.DataFrame(rows)


def classes(results: Results) -> pd.DataFrame:
    """The scores of every class that the networks were trained to find."""
    found = class_scores(results).astype({"Slices": str, "Patients": str})
    caption = "Scores of every class that the networks were trained to find."
    return published.table(results, found, "table_classes", caption)


def summary(results: Results) -> str:
    """What Table 3 shows, as Markdown; every number is taken from the counts."""
    lines = []
    for model, own in results.counts.items():
        flattering, sah = (
            np.mean([metrics.score(counts, "dice", convention) for counts in own])
            for convention in ("mean_empty_1", "sah_slices")
        )
        lines.append(
            f"- **{tables.label(model, own)}**: Dice {flattering:.3f} with empty-against-empty counted as 1, "
            f"{sah:.3f} over SAH slices only."
        )
    trivial = metrics.score(results.trivial[baselines.BACKGROUND], "dice", "mean_empty_1")
    lines.append(f"- Background everywhere: {trivial:.3f} and 0.")
    return "\n".join([*lines, "", *(f"*{note}*  " for note in results.notes)])


def _sample_table(results: Results, models: list[str], printed: transcript.PrintedTable) -> pd.DataFrame:
    rows = samples.three_test_slices(results.store, results.split)
    ids = results.slice_ids(rows)
    content = tables.sample_table({model: results.counts[model] for model in models} | results.trivial, ids, printed)
    named = "; ".join(f"sample {number} is {slice_id}" for number, slice_id in enumerate(ids, 1))
    shown = f"{name_of(models[0])} on {tables.counted(len(ids), 'test slice')}"
    caption = f"Table {printed.number}. {shown}, the paper's value beside ours."
    rule = f"Samples by rule, not by result: {samples.THREE_RULE}; {named}."
    return published.table(results, content, f"table_{printed.number}", caption, rule, *tables.SAMPLE_NOTES)
