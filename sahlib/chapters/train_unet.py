"""Notebook 03, and 04 with it: how each training went, as a table and as curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sahlib.figures import drawing, paper_plots
from sahlib.study import name_of
from sahlib.training import curves
from sahlib.training.runs import Run

UNETS = ("unet", "unet_free_output", "unet_resnet34")
Runs = dict[str, list[Run]]


def table(runs: Runs) -> pd.DataFrame:
    """One row per run: its rate, what training it took, the epoch kept, and the digest in its folder's name.

    "Settled by epoch" is of curves.numbers; a network that never found a lesion pixel is called collapsed.
    """
    rows = []
    for run in (run for own in runs.values() for run in own):
        history = run.history
        best = history[history["best"]].iloc[0]
        row = {
            "Network": name_of(run.model),
            "Seed": run.seed,
            "Learning rate": f"{run.record['recipe']['learning_rate']:g}",
            "Weights": f"{run.record['parameters']:,}",
            "Epochs": len(history),
            "Epoch kept": int(best["epoch"]),
            "Validation Dice": "collapsed" if _collapsed(history) else f"{best['validation_dice']:.3f}",
            "Settled by epoch": f"{curves.numbers(history)['settled_epoch']:.0f}" if is_curve(history) else "–",
            "Seconds an epoch": round(float(np.median(history["seconds"])), 1),
            "Device": run.record["provenance"]["device"],
            "Run": run.record["digest"],
        }
        rows.append(row)
    return pd.DataFrame(rows)


def figures(runs: Runs) -> list[Figure]:
    """One figure of curves per network; Figures 5 and 6 are saved by notebook 06."""
    return [
        drawing.described(
            paper_plots.training_curves({run.seed: run.history for run in own}, name_of(model), model),
            f"Loss and validation Dice of {name_of(model)} against the epoch; a ring marks the epoch that was kept.",
        )
        for model, own in runs.items()
    ]


def in_words(runs: Runs) -> str:
    """Each training in a line of Markdown."""
    lines = []
    for run in (run for own in runs.values() for run in own):
        history = run.history
        best = history[history["best"]].iloc[0]
        lines.append(
            f"- {name_of(run.model)}, seed {run.seed}: {run.record['parameters']:,} parameters, {len(history)} epochs "
            f"in {history['seconds'].sum():.0f} s; best validation Dice {best['validation_dice']:.3f} in epoch "
            f"{best['epoch']:.0f}, loss there {best['train_loss']:.3f} in training and {best['validation_loss']:.3f} "
            f"in validation.{' COLLAPSED: it never found a lesion pixel there.' * _collapsed(history)}"
        )
    return "\n".join(lines)


def is_curve(history: pd.DataFrame) -> bool:
    """Whether there is more than one epoch, with a finite loss in each."""
    return len(history) > 1 and bool(np.isfinite(history[["train_loss", "validation_loss"]].to_numpy(float)).all())


def _collapsed(history: pd.DataFrame) -> bool:
    return not history["validation_dice"].any()
