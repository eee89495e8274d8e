"""Results: all that the figures and tables of one Study are made from, found on disk or made on the way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from sahlib import progress
from sahlib.data import slices, splits
from sahlib.data.slices import SliceStore
from sahlib.data.splits import Split
from sahlib.scoring import baselines, metrics, prediction
from sahlib.study import CHOOSING, Study
from sahlib.training import loop, rate_search
from sahlib.training.runs import Run
from sahlib.workspace import Workspace


@dataclass(frozen=True)
class Results:
    """Runs and counts of every network of a Study under one recipe, one of each per seed, and the data they come from.

    trivial   the counts of the two predictors that know nothing, by name
    band      the grey levels that the threshold predictor takes for blood, fitted on the training side
    searches  per network, the learning rates tried; empty for a recipe that does not choose one
    origin    a sentence on slices from elsewhere than the Study's dataset (external_validation.py); empty otherwise
    """

    study: Study
    recipe: str
    store: SliceStore
    split: Split
    runs: dict[str, list[Run]]
    counts: dict[str, list[pd.DataFrame]]
    trivial: dict[str, pd.DataFrame]
    band: baselines.Band
    searches: dict[str, pd.DataFrame]
    folder: Path
    origin: str = ""

    @property
    def test_rows(self) -> np.ndarray:
        """Positions in the store of the test slices, in the order of counts and probabilities, int [k]."""
        return self.split.rows(self.store, "test")

    @property
    def every_series(self) -> dict[str, list[pd.DataFrame]]:
        """The counts of the networks and of the trivial predictors."""
        return {**self.counts, **{name: [counts] for name, counts in self.trivial.items()}}

    def slice_ids(self, rows: np.ndarray) -> list[str]:
        """The names of the slices at `rows` of the store."""
        return self.store.slices["slice_id"].iloc[rows].tolist()

    @property
    def lesions(self) -> tuple[str, ...]:
        """What the networks find, each by an output of its own; the first is what figures and tables are about."""
        return next(iter(self.runs.values()))[0].lesions

    def predicted(self, model: str, rows: np.ndarray, lesion: str) -> np.ndarray:
        """Masks bool [k,H,W] of a lesion by the first seed's run, on the test slices at `rows` of the store."""
        positions = np.searchsorted(self.test_rows, rows)
        return self.runs[model][0].probabilities_of(lesion)[positions] > prediction.THRESHOLD


def load_data(study: Study, workspace: Workspace) -> tuple[SliceStore, Split]:
    """The slices of a Study and their split; built where they are not on disk yet."""
    store = slices.prepare(study, workspace.processed, progress.over("scans"))
    if study.travels:  # made, or refused, before anything is trained
        slices.wide(store, study, progress.over("scans"))
    return store, splits.prepare(store, study)


def train_models(
    study: Study, store: SliceStore, split: Split, models: Iterable[str], workspace: Workspace
) -> dict[str, list[Run]]:
    """The runs of those of `models` that the Study has, one per seed; a finished run is found, not repeated."""
    return {
        model: [loop.train(store, split, study, model, seed, workspace.runs) for seed in study.seeds]
        for model in models
        if model in study.models
    }


def load(study: Study, workspace: Workspace) -> Results:
    """The Results of a Study under its own recipe; whatever is missing on disk is made, whatever is there is taken."""
    store, split = load_data(study, workspace)
    folder = workspace.figures(study, store.meta["recipe"]["source"])
    runs = train_models(study, store, split, study.models, workspace)
    counts = {model: [prediction.test(run, store, split, study) for run in own] for model, own in runs.items()}
    train, test = split.rows(store, "train"), split.rows(store, "test")
    band = baselines.fit_band(store.images[train], store.masks(train))
    trivial = trivial_counts(counts, store, test, band)
    return Results(study, study.recipe, store, split, runs, counts, trivial, band, {}, folder)


def load_recipes(study: Study, workspace: Workspace) -> dict[str, Results]:
    """The Results under the Study's own recipe, first, and under each of its further recipes."""
    own = load(study, workspace)
    found, data = {own.recipe: own}, (own.store, own.split)
    for recipe in study.further_recipes:
        searches, runs = {}, {}
        for model in study.models:
            if recipe in CHOOSING:
                searches[model] = rate_search.search_learning_rate(*data, study, model, workspace.runs)
            rate = rate_search.chosen_rate(searches[model]) if searches else None
            runs |= train_models(study.under(recipe, rate), *data, [model], workspace)
        # Where each network has its own rate, `searches` tells them.
        shared = study.under(recipe, Study.learning_rate)
        counts = {model: [prediction.test(run, *data, study) for run in own] for model, own in runs.items()}
        found[recipe] = replace(own, study=shared, recipe=recipe, runs=runs, counts=counts, searches=searches)
    return found


def trivial_counts(
    counts: dict[str, list[pd.DataFrame]], store: SliceStore, rows: np.ndarray, band: baselines.Band
) -> dict[str, pd.DataFrame]:
    """The counts of the two predictors that know nothing, on the slices of `counts` at `rows` of the store."""
    threshold = prediction.counts_of(baselines.band_masks(store.images[rows], band), store, rows)
    first = next(iter(counts.values()))[0]
    return {baselines.BACKGROUND: metrics.background_everywhere(first), baselines.THRESHOLD: threshold}
