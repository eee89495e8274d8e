"""The learning rate that each network chooses on validation patients, from the same small budget."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sahlib.data.slices import SliceStore
from sahlib.data.splits import Split
from sahlib.study import Study
from sahlib.training import loop


def search_learning_rate(store: SliceStore, split: Split, study: Study, model: str, runs: Path) -> pd.DataFrame:
    """One training of `model` per rate of the budget, with the Study's first seed.

    returns: one row per rate: learning_rate, best_epoch, validation_dice (of the best epoch), validation_loss, chosen.
    The highest validation Dice is chosen, as for the best epoch; where it is equal, the lowest validation loss
    """
    rows = []
    for rate in study.learning_rates:
        run = loop.train(store, split, study.under("fair", rate), model, study.seeds[0], runs)
        best = run.history.set_index("epoch").loc[run.record["best_epoch"]]
        rows.append((rate, run.record["best_epoch"], best["validation_dice"], best["validation_loss"]))
    table = pd.DataFrame(rows, columns=["learning_rate", "best_epoch", "validation_dice", "validation_loss"])
    order = table.sort_values(["validation_dice", "validation_loss"], ascending=[False, True], kind="stable")
    return table.assign(chosen=table.index == order.index[0])


def chosen_rate(search: pd.DataFrame) -> float:
    """The rate that a table of `search_learning_rate` marks."""
    return float(search.loc[search["chosen"], "learning_rate"].iloc[0])
