"""Notebook 06: the paper's figures from Results, one function each: choose, draw, save with caption and data."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from sahlib.chapters import published
from sahlib.chapters.evaluation import aggregate
from sahlib.chapters.results import Results
from sahlib.data import samples
from sahlib.data.splits import SIDES
from sahlib.figures import diagrams, paper_plots, scan_plots, tables
from sahlib.networks import architecture
from sahlib.scoring import metrics, prediction
from sahlib.study import name_of


def figure_1(results: Results) -> Figure:
    """The workflow, with the numbers of this study."""
    study, store = results.study, results.store
    counted = {side: len(results.split.rows(store, side)) for side in SIDES}
    steps = diagrams.workflow_steps(study, len(store), store.slices["patient_id"].nunique(), counted, store.unit)
    data = pd.DataFrame(steps, columns=["step", "detail"])
    drawn = diagrams.workflow(steps)
    return published.figure(results, drawn, "figure_1_workflow", data, "Figure 1. Workflow of the study.")


def figure_2(results: Results) -> Figure:
    """A slice and its mask."""
    row = samples.typical_training_slice(results.store, results.split)
    image, mask = results.store.images[row], results.store.masks([row])[0]
    ids = results.slice_ids([row])
    caption = f"Figure 2. CT slice {ids[0]} and its binary mask of subarachnoid hemorrhage: {samples.TYPICAL_RULE}."
    data = paper_plots.areas(mask[None], ids)
    return published.figure(results, paper_plots.slice_and_mask(image, mask), "figure_2_slice_and_mask", data, caption)


def figure_3(results: Results) -> Figure:
    """The U-Net of this study, drawn from the module."""
    return _architecture(results, "unet", 3)


def figure_4(results: Results) -> Figure:
    """The Attention U-Net of this study, drawn from the module."""
    return _architecture(results, "attention_unet", 4)


def figure_5(results: Results) -> Figure:
    """Training of the U-Net."""
    return _training_curves(results, "unet", 5)


def figure_6(results: Results) -> Figure:
    """Training of the Attention U-Net."""
    return _training_curves(results, "attention_unet", 6)


def figure_7(results: Results) -> Figure:
    """Three samples: CT with the true contour, each network's mask, the true mask."""
    rows = samples.three_test_slices(results.store, results.split)
    images, truth, ids = results.store.images[rows], results.store.masks(rows), results.slice_ids(rows)
    predictions, dice, iou = {}, {}, {}
    for model in results.runs:
        series = tables.label(model, results.counts[model][:1])
        predictions[series] = results.predicted(model, rows, results.lesions[0])
        counts = results.counts[model][0].set_index("slice_id").loc[ids]
        dice[series], iou[series] = metrics.dice(counts), metrics.iou(counts)
    names = [f"Sample {number}: {slice_id}" for number, slice_id in enumerate(ids, 1)]
    caption = (
        f"Figure 7. Segmentation of {tables.counted(len(ids), 'test slice')}, Dice and IoU under each prediction; the "
        f"true contour is red. The samples follow a rule and no result: {samples.THREE_RULE}. Runs of seed "
        f"{results.study.seeds[0]}."
    )
    drawn = paper_plots.comparison(images, truth, predictions, dice, iou, names)
    data = paper_plots.comparison_data(truth, predictions, dice, iou, ids)
    return published.figure(results, drawn, "figure_7_comparison", data, caption)


def figure_8(results: Results) -> Figure:
    """Representative test slices."""
    rows = samples.spread_of_test_slices(results.store, results.split)
    images, truth, ids = results.store.images[rows], results.store.masks(rows), results.slice_ids(rows)
    caption = f"Figure 8. The test set: {samples.SPREAD_RULE}; the true contour is red."
    drawn = paper_plots.representative_slices(images, truth, ids)
    return published.figure(results, drawn, "figure_8_test_slices", paper_plots.areas(truth, ids), caption)


def figure_9(results: Results) -> Figure:
    """Bars of Table 3."""
    bars = tables.bars_data(aggregate(results))
    caption = (
        "Figure 9. Scores on the whole test set as in Table 3: Dice and IoU are means over slices in which empty "
        "against empty counts as 1; precision, recall and F1 are means over batches. Calling every pixel background "
        "earns the grey bars."
    )
    return published.figure(results, paper_plots.metric_bars(bars), "figure_9_scores", bars, caption)


def classes(results: Results) -> Figure | None:
    """The sample slices of Figure 7 with the outlines of every class, true and as each network sees them.

    None where there is one class alone: Figure 7 shows it.
    """
    if len(results.lesions) == 1:
        return None
    rows = samples.three_test_slices(results.store, results.split)
    ids = results.slice_ids(rows)
    columns = {"Truth": {lesion: results.store.of(lesion).masks(rows) for lesion in results.lesions}}
    for model, own in results.counts.items():
        masks = {lesion: results.predicted(model, rows, lesion) for lesion in results.lesions}
        columns[tables.label(model, own[:1])] = masks
    areas = [
        {"slice_id": slice_id, "series": name, "class": lesion, "pixels": int(masks[lesion][k].sum())}
        for name, masks in columns.items()
        for lesion in results.lesions
        for k, slice_id in enumerate(ids)
    ]
    caption = (
        f"Every class on {tables.counted(len(ids), 'test slice')}, outlines in the colour of the class. The slices "
        f"follow a rule and no result: {samples.THREE_RULE}."
    )
    drawn = scan_plots.classes(results.store.images[rows], columns, ids)
    return published.figure(results, drawn, "classes", pd.DataFrame(areas), caption)


def _architecture(results: Results, model: str, number: int) -> Figure:
    data = architecture.blocks(prediction.load_network(results.runs[model][0]), results.study.size)
    caption = (
        f"Figure {number}. {name_of(model)} as it was trained, read off the module: channels and resolution of every "
        f"block for an image of {results.study.size}x{results.study.size}."
    )
    drawn = diagrams.architecture(data, name_of(model))
    return published.figure(results, drawn, f"figure_{number}_{model}", data, caption)


def _training_curves(results: Results, model: str, number: int) -> Figure:
    histories = {run.seed: run.history for run in results.runs[model]}
    name = tables.label(model, results.counts[model])
    caption = (
        f"Figure {number}. Training of the {name}: loss on the training and validation side (left) and Dice over all "
        "validation pixels (right); the ring marks the epoch whose weights were kept."
    )
    drawn = paper_plots.training_curves(histories, name, model)
    data = paper_plots.training_curves_data(histories)
    return published.figure(results, drawn, f"figure_{number}_training_{model}", data, caption)
