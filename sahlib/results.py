"""Results: all that the figures and tables of one Study are made from, found on disk or made on the way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from . import prediction, slices, splits, training
from .paths import Workspace
from .runs import Run
from .slices import SliceStore
from .splits import Split
from .study import Study


@dataclass(frozen=True)
class Results:
    """Runs and counts of every network of a Study, one of each per seed, and the data they come from."""

    study: Study
    store: SliceStore
    split: Split
    runs: dict[str, list[Run]]
    counts: dict[str, list[pd.DataFrame]]
    folder: Path

    def predicted(self, model: str, rows: np.ndarray) -> np.ndarray:
        """Masks bool [k,H,W] of the first seed's run on the test slices at `rows` of the store."""
        positions = np.searchsorted(self.split.rows(self.store, "test"), rows)
        return prediction.masks(self.runs[model][0], positions)


def train_models(
    study: Study, store: SliceStore, split: Split, models: Iterable[str], workspace: Workspace
) -> dict[str, list[Run]]:
    """The runs of those of `models` that the Study has, one per seed; a finished run is found, not repeated."""
    return {
        model: [training.train(store, split, study, model, seed, workspace.runs) for seed in study.seeds]
        for model in models
        if model in study.models
    }


def load_data(study: Study, workspace: Workspace) -> tuple[SliceStore, Split]:
    """The slices of a Study and their split; built where they are not on disk yet."""
    store = slices.prepare(study, workspace.processed)
    return store, splits.prepare(store, study)


def load(study: Study, workspace: Workspace) -> Results:
    """The Results of a Study; whatever is missing on disk is made, whatever is there is taken."""
    store, split = load_data(study, workspace)
    runs = train_models(study, store, split, study.models, workspace)
    counts = {model: [prediction.test(run, store, split, study) for run in own] for model, own in runs.items()}
    return Results(study, store, split, runs, counts, workspace.figures(study))
