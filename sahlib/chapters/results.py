"""Results: all that the figures and tables of one Study are made from, found on disk or made on the way."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sahlib import progress
from sahlib.chapters import forecast
from sahlib.chapters.judged import Judged
from sahlib.data import slices, splits
from sahlib.data.slices import SliceStore
from sahlib.data.sources import open_source
from sahlib.data.splits import Split
from sahlib.figures import tables
from sahlib.networks import models
from sahlib.paper import transcript
from sahlib.paper.claims import Paper
from sahlib.paper.rules import ATTENTION, FREE, OPEN, UNET
from sahlib.paper.rules import stands_for_unet as unet_of
from sahlib.scoring import baselines, calibration, measured, metrics, prediction
from sahlib.scoring.measured import Measured
from sahlib.study import CHOOSING, FOREIGN, Study, name_of
from sahlib.training import loop, rate_search
from sahlib.training.runs import Run
from sahlib.workspace import Workspace


@dataclass(frozen=True)
class Trained:
    """The runs of a Study's networks under one recipe, one per seed.

    study     with the fields of the recipe; where each network has a rate of its own, `searches` tells them
    searches  per network, the learning rates tried; empty for a recipe that does not choose one
    """

    study: Study
    recipe: str
    runs: dict[str, list[Run]]
    searches: dict[str, pd.DataFrame]


@dataclass(frozen=True, kw_only=True)
class Results(Judged):
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
    paper: Paper = transcript.PAPER

    @property
    def test_rows(self) -> np.ndarray:
        """Positions in the store of the test slices, in the order of counts and probabilities, int [k]."""
        return self.split.rows(self.store, "test")

    @property
    def batch_size(self) -> int:
        return self.study.batch_size

    @property
    def notes(self) -> list[str]:
        known = tables.study_notes(self.study, next(iter(self.counts.values()))[0])
        known[0] = f"{known[0].rstrip('.')}; recipe {self.recipe}."
        if self.searches:
            known[0] = known[0].replace(f"learning rate {self.study.learning_rate:g}", "a learning rate per network")
        return [*known[:1], *filter(None, [self.origin]), *rates_in_words(self.searches), *known[1:]]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return compared(self.counts)

    @property
    def sides(self) -> pd.DataFrame:
        return self.store.slices[list(measured.SIDES)].iloc[self.test_rows].reset_index(drop=True)

    @functools.cached_property
    def measured(self) -> dict[str, Measured]:
        truth, images = self.store.masks(self.test_rows), self.store.images[self.test_rows]
        predicted = {model: np.asarray(own[0].probabilities) for model, own in self.runs.items()}
        predicted[baselines.BACKGROUND] = np.zeros(truth.shape, bool)
        predicted[baselines.THRESHOLD] = baselines.band_masks(images, self.band)
        return {name: measured.measure(own, truth, self.sides, images) for name, own in predicted.items()}

    @property
    def soft(self) -> dict[str, list[pd.DataFrame]]:
        truth, every = self.store.masks(self.test_rows), self.runs.items()
        return {model: [calibration.soft_counts(run.probabilities, truth) for run in own] for model, own in every}

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
    # Made, or refused, before anything is trained.
    if study.travels:
        slices.wide(store, study, progress.over("scans"))
    split = splits.prepare(store, study)
    for model in filter(FOREIGN.fullmatch, study.models):
        outputs = len(loop.lesion_shares(store, split, study))
        models.require_usable(model, study.channels, len(study.windows), outputs, study.size)
    return store, split


def train(
    study: Study, store: SliceStore, split: Split, models: Iterable[str], workspace: Workspace
) -> dict[str, Trained]:
    """Those of `models` that the Study has, trained under its own recipe, first, and under each of its further ones.

    A finished training is found, not repeated; before others begin, all that the Study still needs are told.
    """
    if ahead := forecast.in_words(study, store, split, workspace.runs):
        print(ahead, flush=True)
    models, found = [model for model in models if model in study.models], {}
    for recipe in dict.fromkeys((study.recipe, *study.further_recipes)):
        own = study if recipe == study.recipe else study.under(recipe)
        searches, runs = {}, {}
        for model in models:
            taught = own
            if recipe in CHOOSING:
                searches[model] = rate_search.search_learning_rate(store, split, study, model, workspace.runs)
                taught = study.under(recipe, rate_search.chosen_rate(searches[model]))
            runs[model] = [loop.train(store, split, taught, model, seed, workspace.runs) for seed in study.seeds]
        found[recipe] = Trained(own, recipe, runs, searches)
    return found


def is_complete(study: Study, workspace: Workspace) -> bool:
    """Whether every training that the Study asks for is finished and tested."""
    if not slices.store_path(study, open_source(study), workspace.processed).exists():
        return False
    store = slices.prepare(study, workspace.processed)
    split = splits.prepare(store, study)
    if any(forecast.untrained(study, store, split, model, workspace.runs) for model in study.models):
        return False
    trained = train(study, store, split, study.models, workspace).values()
    return all(prediction.is_tested(run) for own in trained for runs in own.runs.values() for run in runs)


def load_recipes(study: Study, workspace: Workspace) -> dict[str, Results]:
    """The Results under each recipe of a Study, its own first; what is missing on disk is made, the rest is found."""
    store, split = load_data(study, workspace)
    folder = workspace.figures(study, store.meta["recipe"]["source"])
    training, test = split.rows(store, "train"), split.rows(store, "test")
    band = baselines.fit_band(store.images[training], store.masks(training))
    trivial, found = {}, {}
    for recipe, own in train(study, store, split, study.models, workspace).items():
        counts = {
            model: [prediction.test(run, store, split, study) for run in runs] for model, runs in own.runs.items()
        }
        trivial = trivial or trivial_counts(counts, store, test, band)
        found[recipe] = Results(
            study=own.study,
            recipe=recipe,
            store=store,
            split=split,
            runs=own.runs,
            counts=counts,
            trivial=trivial,
            band=band,
            searches=own.searches,
            folder=folder,
        )
    return found


def load(study: Study, workspace: Workspace) -> Results:
    """The Results by which a Study's networks are judged: of the `fairest` of its recipes."""
    return fairest(load_recipes(study, workspace))


def fairest(recipes: dict[str, Results]) -> Results:
    """The recipe that lets every network learn, where the Study has it: only there do scores compare architectures."""
    return recipes.get("fair", next(iter(recipes.values())))


def trivial_counts(
    counts: dict[str, list[pd.DataFrame]], store: SliceStore, rows: np.ndarray, band: baselines.Band
) -> dict[str, pd.DataFrame]:
    """The counts of the two predictors that know nothing, on the slices of `counts` at `rows` of the store."""
    threshold = prediction.counts_of(baselines.band_masks(store.images[rows], band), store, rows)
    first = next(iter(counts.values()))[0]
    return {baselines.BACKGROUND: metrics.background_everywhere(first), baselines.THRESHOLD: threshold}


def compared(models: Collection[str]) -> list[tuple[str, str]]:
    """(lower, higher) of each difference that is asked for, as far as the networks were trained: the paper's; then from
    MONAI's UNet to Attention U-Net as a whole and in three steps, its output layer, the other layers, and the gates;
    then any further network against the paper's two."""
    unet = unet_of(models)
    asked = [(unet, ATTENTION), (UNET, ATTENTION), (UNET, FREE), (FREE, OPEN), (OPEN, ATTENTION)]
    own = {unet, *(model for pair in asked for model in pair)}
    asked += [(paper, model) for model in models if model not in own for paper in (unet, ATTENTION)]
    return [pair for pair in dict.fromkeys(asked) if set(pair) <= set(models)]


def rates_in_words(searches: dict[str, pd.DataFrame]) -> list[str]:
    """The learning rate that each network chose, for a recipe in which it does."""
    said = []
    for model, search in searches.items():
        rates, chosen = sorted(search["learning_rate"]), rate_search.chosen_rate(search)
        edge = ", which is the edge: a rate beyond it may be better" if chosen in (rates[0], rates[-1]) else ""
        tried = ", ".join(f"{rate:g}" for rate in rates)
        said.append(f"{name_of(model)} was trained at {chosen:g}, chosen on validation patients among {tried}{edge}.")
    return said
