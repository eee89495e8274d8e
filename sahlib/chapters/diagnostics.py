"""Behind the scores of notebooks 07 and 08: cost, gates, distances, lesions found, calibration, volume.

As everywhere in this room, a function draws or tabulates, saves to the results' folder, and returns for a notebook.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sahlib.chapters import published
from sahlib.chapters.judged import Judged
from sahlib.chapters.results import Results
from sahlib.data import samples
from sahlib.figures import evidence_plots, probability_plots, tables
from sahlib.networks import architecture, gates, models
from sahlib.scoring import baselines, calibration, detection, distances, intervals, lesions, prediction, volumes
from sahlib.study import name_of
from sahlib.training.numerics import numerics


def networks(results: Results) -> pd.DataFrame:
    """Parameters, GFLOP of one image forward, layers, and training slices a second, validation included."""
    slices = len(results.split.rows(results.store, "train"))
    rows = []
    for model, own in results.runs.items():
        network = models.build(model, results.study.channels, len(results.study.windows), len(own[0].lesions))
        seconds = np.median(np.concatenate([run.history["seconds"].to_numpy() for run in own]))
        row = {
            "Network": name_of(model),
            "Parameters": f"{own[0].record['parameters']:,}",
            "GFLOP per image, forward": models.gflop(network, results.study.size),
            **architecture.layers(network, results.study.size),
            "Training slices per second": f"{slices / seconds:.0f}",
            "Device": own[0].record["provenance"]["device"],
        }
        rows.append(row)
    table = pd.DataFrame(rows)
    caption = "The networks: size, arithmetic, layers and speed."
    tables.write(table, results.folder, "table_networks", caption, results.notes[:1])
    return tables.displayed(table)


def gate_maps(results: Results) -> Figure:
    """What the gates of the first seed let through on the sample slices of Figure 7."""
    rows = samples.three_test_slices(results.store, results.split)
    maps = _maps(results, 0, rows)
    titles = [f"gate at {level.shape[1]}x{level.shape[2]}" for level in maps]
    shown = (results.store.masks(rows), maps, titles, results.slice_ids(rows))
    caption = (
        f"Attention gates on {tables.counted(len(rows), 'test slice')}, one column per level; a coefficient of 0 "
        f"blocks the skip connection and 1 lets it pass. The slices follow a rule: {samples.THREE_RULE}. First seed."
    )
    drawn = probability_plots.gate_maps(results.store.images[rows], *shown)
    return published.figure(results, drawn, "gate_maps", probability_plots.gate_maps_data(*shown), caption)


def gate_weights(results: Results) -> pd.DataFrame:
    """Whether gates weigh lesions more than the rest of the head: mean coefficients, interval over patients."""
    rows = results.test_rows[results.store.masks(results.test_rows).any((1, 2))]
    truth, head = results.store.masks(rows), baselines.head(results.store.images[rows])
    patients = results.store.slices["patient_id"].to_numpy()[rows]
    lines = []
    for seed, run in enumerate(results.runs["attention_unet"]):
        for level in _maps(results, seed, rows):
            both = gates.inside_and_outside(level, truth, head)
            found = intervals.mean_interval(both[:, 0] - both[:, 1], patients)
            told = "higher" if found.low > 0 else "lower" if found.high < 0 else "not told apart"
            line = {
                "Seed": str(run.seed),
                "Level": f"{level.shape[1]}x{level.shape[2]}",
                "Inside the lesion": float(np.nanmean(both[:, 0])),
                "Rest of the head": float(np.nanmean(both[:, 1])),
                "Difference (95 % interval)": intervals.in_words(found, signed=True),
                "Lesion against rest": told,
            }
            lines.append(line)
    caption = "Mean gate coefficient inside the lesion and in the rest of the head, over test slices with SAH."
    return published.table(results, pd.DataFrame(lines), "table_gates", caption)


def clinical_scores(judged: Judged) -> pd.DataFrame:
    """Distances in mm, lesions found, slices detected, calibration; of each predictor the first training."""
    with_lesion = (next(iter(judged.counts.values()))[0]["lesion_pixels"] > 0).to_numpy()
    columns: dict[str, dict] = {}
    for series, own in judged.measured.items():
        surface, lesion = distances.mean_with_lesion(own.surface), lesions.lesion_scores(own.lesions)
        slicewise = detection.detection(own.scores, with_lesion)
        region = own.bins["region"].iloc[-1]  # the head, where it is known
        columns[tables.label(series, judged.every_series[series][:1])] = {
            "NSD at 1 mm, SAH slices": surface["nsd_1mm"],
            "NSD at 2 mm, SAH slices": surface["nsd_2mm"],
            "HD95 in mm, SAH slices": surface["hd95_mm"],
            "Lesions found": lesion["sensitivity"],
            "Lesion-wise F1": lesion["f1"],
            "False alarms per slice": lesion["false_positives_per_slice"],
            "Slice AUROC": slicewise["auroc"],
            "Slice sensitivity": slicewise["sensitivity"],
            "Slice specificity": slicewise["specificity"],
            f"Brier skill, {region}": calibration.brier_skill(own.bins[own.bins["region"] == region]),
        }
    return published.table(
        judged,
        pd.DataFrame(columns).rename_axis("Score").reset_index(),
        "table_clinical",
        f"What a reader would ask next: distances, lesions found, slices detected, calibration.{_of_first(judged)}",
        "A missed lesion counts: NSD 0, and HD95 the diagonal of the slice. Both are NaN where the pixel spacing is "
        "not known.",
        "A lesion is an 8-connected component; any overlap finds it. A slice is called positive if one pixel is.",
        f"Brier skill is measured against saying the lesion share ({region}) everywhere; 0 is no better than that.",
    )


def reliability(judged: Judged) -> Figure:
    """Whether a predicted probability means what it says."""
    curves = [
        judged.measured[series].bins.assign(series=series, label=tables.label(series, judged.counts[series][:1]))
        for series in judged.soft
    ]
    data = evidence_plots.series_first(pd.concat(curves, ignore_index=True))
    caption = (
        "Share of lesion pixels against predicted probability; on the diagonal a probability means what it says. "
        f"Below, how many pixels each bin holds.{_of_first(judged)}"
    )
    return published.figure(judged, probability_plots.reliability(data), "reliability", data, caption)


def bland_altman(judged: Judged) -> Figure:
    """Predicted against true volume per patient."""
    frames = []
    for series, own in judged.counts.items():
        table = volumes.patient_volumes(own[0], *judged.sides.to_numpy().T)
        frames.append(table.assign(series=series, label=tables.label(series, own[:1])))
    data = evidence_plots.bland_altman_data(pd.concat(frames, ignore_index=True))
    caption = (
        "Predicted minus true volume of SAH against their mean, one marker per test patient; bias and 95 % "
        f"limits of agreement (Bland and Altman 1986).{_of_first(judged)}"
    )
    return published.figure(judged, evidence_plots.bland_altman(data), "bland_altman", data, caption)


def _maps(results: Results, seed: int, rows: np.ndarray) -> list[np.ndarray]:
    """What the gates of one seed's Attention U-Net let through at `rows`, one float [k,h,w] per level."""
    with numerics(results.study):
        network = prediction.load_network(results.runs["attention_unet"][seed])
        return gates.gate_maps(network, results.store.inputs(rows), results.study.precision)


def _of_first(judged: Judged) -> str:
    """What a caption adds where there are several trainings and one is shown."""
    return " First seed." if judged.trainings > 1 else ""
