"""Recipes: how a network is trained, from the paper's to the letter to one that is fair to every network.

paper   the paper's: MONAI's initialisation, Adam at 1e-4
prior   the same, but the output bias starts at the log-odds of a lesion pixel
fair    prior, and a learning rate that each network chooses on validation patients from the same small budget

Everything else (loss, batch, epochs, augmentation, best epoch) is the same. Test data plays no part in the choice.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd

from sahlib.data.slices import SliceStore
from sahlib.data.splits import Split
from sahlib.study import RECIPES, Study
from sahlib.training import loop


def name_of(study: Study) -> str:
    """The recipe that a Study's own fields are: the paper's, or what they share with the others."""
    if study.prior_bias:
        return "prior" if study.learning_rate == Study.learning_rate else "fair"
    return "paper"


def under(study: Study, recipe: str, learning_rate: float | None = None) -> Study:
    """The Study with the fields of a recipe; `learning_rate` is the one that "fair" chose."""
    if recipe not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}; it is {recipe!r}")
    rate = learning_rate if recipe == "fair" else Study.learning_rate
    return dataclasses.replace(study, prior_bias=recipe != "paper", learning_rate=rate)


def search_learning_rate(store: SliceStore, split: Split, study: Study, model: str, runs: Path) -> pd.DataFrame:
    """One training of `model` per rate of the budget, with the Study's first seed.

    returns: one row per rate: learning_rate, best_epoch, validation_dice (of the best epoch), validation_loss, chosen.
    The highest validation Dice is chosen, as for the best epoch; where it is equal, the lowest validation loss
    """
    rows = []
    for rate in study.learning_rates:
        run = loop.train(store, split, under(study, "fair", rate), model, study.seeds[0], runs)
        best = run.history.set_index("epoch").loc[run.record["best_epoch"]]
        rows.append((rate, run.record["best_epoch"], best["validation_dice"], best["validation_loss"]))
    table = pd.DataFrame(rows, columns=["learning_rate", "best_epoch", "validation_dice", "validation_loss"])
    order = table.sort_values(["validation_dice", "validation_loss"], ascending=[False, True], kind="stable")
    return table.assign(chosen=table.index == order.index[0])
