"""Notebook 04: whether attention learns more slowly, as far as the seeds can tell."""

from __future__ import annotations

from sahlib.chapters.train_unet import Runs, is_curve
from sahlib.paper.rules import MIN_SEEDS, stands_for_unet
from sahlib.study import name_of
from sahlib.training import curves


def pace_in_words(runs: Runs) -> str:
    """Which of Attention U-Net and the network that stands for the paper's U-Net settles first."""
    unet = stands_for_unet(runs)
    ours, theirs = (
        [curves.numbers(run.history)["settled_epoch"] for run in runs.get(model, []) if is_curve(run.history)]
        for model in ("attention_unet", unet)
    )
    if min(len(ours), len(theirs)) < MIN_SEEDS:
        return f"With fewer than {MIN_SEEDS} seeds which one settles first is chance: no statement on attention."
    if min(ours) > max(theirs):
        return f"In every seed {name_of('attention_unet')} took more epochs than {name_of(unet)} in any."
    if max(ours) < min(theirs):
        return f"In every seed {name_of('attention_unet')} took fewer epochs than {name_of(unet)} in any."
    return "The seeds of the two overlap, so neither is the slower one."
