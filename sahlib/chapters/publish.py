"""The paper's figures and tables from Results, one function each: choose, draw, save with caption and data.

Everything goes to `results.folder`; every function returns what it saved, so that a notebook can show it.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from sahlib.chapters.results import Results
from sahlib.data import samples
from sahlib.data.splits import SIDES
from sahlib.figures import diagrams, drawing, tables
from sahlib.networks import architecture
from sahlib.paper import transcript
from sahlib.scoring import baselines, metrics
from sahlib.scoring.prediction import THRESHOLD
from sahlib.study import MODELS
from sahlib.training import loop
from sahlib.training.runs import Run
from sahlib.workspace import provenance, writing

UNETS = ("unet", "unet_resnet34")


def figure_1(results: Results) -> Figure:
    """The workflow, with the numbers of this study."""
    study, store = results.study, results.store
    steps = diagrams.workflow_steps(
        study,
        slices=len(store),
        patients=store.slices["patient_id"].nunique(),
        labels=MODELS,
        split={side: len(results.split.rows(store, side)) for side in SIDES},
        unit="grey" if study.dataset == "paired_folder" else "HU",
        threshold=THRESHOLD,
    )
    caption = f"Figure 1. Workflow of the study. {run_in_words(results)}"
    return _save(results, diagrams.workflow(steps), "figure_1_workflow", diagrams.workflow_data(steps), caption)


def figure_2(results: Results) -> Figure:
    """A slice and its mask."""
    row = samples.typical_training_slice(results.store, results.split)
    image, mask = results.store.images[row], results.store.masks([row])[0]
    slice_id = results.store.slices["slice_id"].iloc[row]
    caption = (
        f"Figure 2. CT slice {slice_id} and its binary mask of subarachnoid hemorrhage: {samples.TYPICAL_RULE}. "
        f"{run_in_words(results)}"
    )
    figure = drawing.slice_and_mask(image, mask)
    return _save(
        results, figure, "figure_2_slice_and_mask", drawing.slice_and_mask_data(image, mask, slice_id), caption
    )


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
    ids = results.store.slices["slice_id"].iloc[rows].tolist()
    images, truth = results.store.images[rows], results.store.masks(rows)
    predictions, dice, iou = {}, {}, {}
    for model in results.runs:
        series = tables.label(model, results.counts[model][:1])
        predictions[series] = results.predicted(model, rows)
        counts = results.counts[model][0].set_index("slice_id").loc[ids]
        dice[series], iou[series] = metrics.dice(counts), metrics.iou(counts)
    names = [f"Sample {number}: {slice_id}" for number, slice_id in enumerate(ids, 1)]
    caption = (
        "Figure 7. Segmentation of "
        f"{len(ids)} test slices, Dice and IoU under each prediction; the true contour is red. The samples follow a "
        f"rule and no result: {samples.THREE_RULE}. Runs of seed {results.study.seeds[0]}. {run_in_words(results)}"
    )
    figure = drawing.comparison(images, truth, predictions, dice, iou, names)
    data = drawing.comparison_data(truth, predictions, dice, iou, ids)
    return _save(results, figure, "figure_7_comparison", data, caption)


def figure_8(results: Results) -> Figure:
    """Representative test slices."""
    rows = samples.spread_of_test_slices(results.store, results.split)
    ids = results.store.slices["slice_id"].iloc[rows].tolist()
    images, truth = results.store.images[rows], results.store.masks(rows)
    caption = f"Figure 8. The test set: {samples.SPREAD_RULE}; the true contour is red. {run_in_words(results)}"
    figure = drawing.representative_slices(images, truth, ids)
    data = drawing.representative_slices_data(images, truth, ids)
    return _save(results, figure, "figure_8_test_slices", data, caption)


def figure_9(results: Results) -> Figure:
    """Bars of Table 3."""
    bars = tables.bars_data(tables.aggregate_table(_with_threshold(results), results.study.batch_size))
    caption = (
        "Figure 9. Scores on the whole test set as in Table 3: Dice and IoU are means over slices in which empty "
        "against empty counts as 1; precision, recall and F1 are means over batches. Calling every pixel background "
        f"earns the grey bars. {run_in_words(results)}"
    )
    return _save(results, drawing.metric_bars(bars), "figure_9_scores", drawing.metric_bars_data(bars), caption)


def table_1(results: Results) -> pd.DataFrame:
    """The U-Net on the three samples."""
    return _sample_table(results, [model for model in UNETS if model in results.counts], transcript.TABLE_1)


def table_2(results: Results) -> pd.DataFrame:
    """The Attention U-Net on the three samples."""
    return _sample_table(results, ["attention_unet"], transcript.TABLE_2)


def table_3(results: Results) -> pd.DataFrame:
    """Every network on the test set."""
    table = tables.aggregate_table(_with_threshold(results), results.study.batch_size)
    caption = "Table 3. Scores on the test set, the paper's printed value beside each of ours."
    tables.write(table, results.folder, "table_3", caption, [*notes(results), *tables.AGGREGATE_NOTES])
    return tables.displayed(table)


def training_curves(runs: dict[str, list[Run]]) -> list[Figure]:
    """For a notebook: one figure of curves per network of `runs`; Figures 5 and 6 are saved by their own functions."""
    return [
        drawing.described(
            drawing.training_curves({run.seed: run.history for run in own}, MODELS[model], model),
            f"Loss and validation Dice of {MODELS[model]} against the epoch; a ring marks the epoch that was kept.",
        )
        for model, own in runs.items()
    ]


def training_table(runs: dict[str, list[Run]]) -> pd.DataFrame:
    """One row per run: its network and seed, what training it took, and the digest in its folder's name."""
    rows = [
        {
            "Network": MODELS[run.model],
            "Seed": run.seed,
            "Weights": f"{run.record['parameters']:,}",
            "Epochs": len(run.history),
            "Minutes": round(run.record["seconds"] / 60, 1),
            "Device": run.record["provenance"]["device"],
            "Run": run.record["digest"],
        }
        for own in runs.values()
        for run in own
    ]
    return pd.DataFrame(rows)


def training_in_words(runs: dict[str, list[Run]]) -> str:
    """What the curves show, one sentence per run."""
    return "\n".join(_run_summary(run) for own in runs.values() for run in own)


def scores_in_words(results: Results) -> str:
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
    trivial = metrics.background_everywhere(next(iter(results.counts.values()))[0])
    lines.append(f"- Background everywhere: {metrics.score(trivial, 'dice', 'mean_empty_1'):.3f} and 0.")
    return "\n".join([*lines, "", *(f"*{note}*  " for note in notes(results))])


def readable(table: pd.DataFrame) -> Styler:
    """The table for a notebook whose cells hold sentences: none of them cut short, all to the left, no row numbers."""
    left = [{"selector": "th, td", "props": "text-align: left"}]
    return table.style.hide(axis="index").set_table_styles(left)


def record(results: Results, *further: Results) -> dict:
    """run.json of the folder: the Study, the data and every run behind the figures and tables.

    further  the same Study's Results under further recipes
    """
    content = {
        "study": {name: value for name, value in results.study.as_dict().items() if name != "data_dir"},
        "store": {"digest": results.store.digest, "recipe": results.store.meta["recipe"]},
        "split": {
            "digest": results.split.digest,
            **results.split.summary(results.store).to_dict(orient="index"),
        },
        **_trainings(results),
        "further_recipes": {other.recipe: _trainings(other) for other in further},
        "provenance": provenance(),
    }
    with writing(results.folder / "run.json") as path:
        path.write_text(json.dumps(content, indent=1) + "\n")
    return content


def _trainings(results: Results) -> dict:
    """The runs of Results, and which of them have collapsed."""
    return {
        "runs": {model: [run.record for run in own] for model, own in results.runs.items()},
        "collapsed": {
            model: [bool(metrics.is_collapsed(counts)) for counts in own] for model, own in results.counts.items()
        },
    }


def record_in_words(record: dict) -> str:
    """The summary of notebook 06."""
    runs = [run for own in record["runs"].values() for run in own]
    devices = ", ".join(sorted({run["provenance"]["device"] for run in runs}))
    return (
        f"Profile {record['study']['profile']} on {record['study']['dataset']}: {len(runs)} runs, trained in "
        f"{sum(run['seconds'] for run in runs) / 60:.1f} minutes on {devices}; "
        f"slices {record['store']['digest']}, split {record['split']['digest']}."
    )


def _run_summary(run: Run) -> str:
    history = run.history
    best = history[history["best"]].iloc[0]
    text = (
        f"{MODELS[run.model]}, seed {run.seed}: {run.record['parameters']:,} parameters, {len(history)} epochs in "
        f"{history['seconds'].sum():.0f} s; best validation Dice {best['validation_dice']:.3f} "
        f"in epoch {best['epoch']:.0f}, loss there {best['train_loss']:.3f} in training and "
        f"{best['validation_loss']:.3f} in validation."
    )
    if history["validation_dice"].max() == 0:
        text += " COLLAPSED: it never found a lesion pixel on the validation side."
    return text


def _architecture(results: Results, model: str, number: int) -> Figure:
    network = loop.initial_network(results.study, model, seed=0, shares=[0.5] * len(results.runs[model][0].lesions))
    data = architecture.blocks(network, results.study.size)
    caption = (
        f"Figure {number}. {MODELS[model]} as it was trained, read off the module: channels and resolution of every "
        f"block for an image of {results.study.size}x{results.study.size}. {run_in_words(results)}"
    )
    figure = diagrams.architecture(data, MODELS[model])
    return _save(results, figure, f"figure_{number}_{model}", data, caption)


def _training_curves(results: Results, model: str, number: int) -> Figure:
    histories = {run.seed: run.history for run in results.runs[model]}
    name = tables.label(model, results.counts[model])
    caption = (
        f"Figure {number}. Training of the {name}: loss on the training and validation side (left) and Dice over all "
        f"validation pixels (right); the ring marks the epoch whose weights were kept. {run_in_words(results)}"
    )
    figure = drawing.training_curves(histories, name, model)
    return _save(results, figure, f"figure_{number}_training_{model}", drawing.training_curves_data(histories), caption)


def _sample_table(results: Results, models: list[str], printed: transcript.PrintedTable) -> pd.DataFrame:
    rows = samples.three_test_slices(results.store, results.split)
    ids = results.store.slices["slice_id"].iloc[rows].tolist()
    series = {model: results.counts[model] for model in models} | results.trivial
    table = tables.sample_table(series, ids, printed)
    named = "; ".join(f"sample {number} is {slice_id}" for number, slice_id in enumerate(ids, 1))
    caption = f"Table {printed.number}. {MODELS[models[0]]} on {len(ids)} test slices, the paper's value beside ours."
    rule = f"Samples by rule, not by result: {samples.THREE_RULE}; {named}."
    stem = f"table_{printed.number}"
    tables.write(table, results.folder, stem, caption, [*notes(results), rule, *tables.SAMPLE_NOTES])
    return tables.displayed(table)


def _with_threshold(results: Results) -> dict[str, list[pd.DataFrame]]:
    """The networks' counts and the threshold predictor's; Table 3 adds "background everywhere" by itself."""
    return {**results.counts, baselines.THRESHOLD: [results.trivial[baselines.THRESHOLD]]}


def notes(results: Results) -> list[str]:
    """What a reader of any figure or table of these results must know."""
    known = tables.study_notes(results.study, next(iter(results.counts.values()))[0])
    known[0] = f"{known[0].rstrip('.')}; recipe {results.recipe}."
    if results.searches:
        known[0] = known[0].replace(f"learning rate {results.study.learning_rate:g}", "a learning rate per network")
    return [*known[:1], *([results.origin] if results.origin else []), *rates_in_words(results), *known[1:]]


def rates_in_words(results: Results) -> list[str]:
    """The learning rate that each network chose, for a recipe in which it does."""
    found = []
    for model, search in results.searches.items():
        chosen = search.loc[search["chosen"], "learning_rate"].iloc[0]
        budget = ", ".join(f"{rate:g}" for rate in search["learning_rate"])
        found.append(f"{MODELS[model]} was trained at {chosen:g}, chosen on validation patients among {budget}.")
    return found


def run_in_words(results: Results) -> str:
    return " ".join(notes(results)[:2])


def _save(results: Results, figure: Figure, stem: str, data: pd.DataFrame, caption: str) -> Figure:
    drawing.save(figure, results.folder, stem, data, caption)
    return figure
