"""Judged: what figures and tables of scores are made from, whoever made the masks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sahlib.paper.claims import Paper
from sahlib.scoring.measured import Measured


class Judged:
    """Predictors, and what their masks on the same test slices come to.

    counts      per predictor, the columns of counts.csv for each of its trainings; masks from elsewhere are of one
    trivial     the counts of the predictors that know nothing, by name
    measured    of each predictor's first training, those that know nothing among them
    soft        calibration.soft_counts of each training of the predictors that give probabilities
    sides       measured.SIDES of the test slices, a row each
    pairs       (lower, higher) of each difference that is asked for
    paper       whose printed numbers and claims they are held against, or None
    batch_size  slices in a batch of the evaluation, for scores by batch
    notes       what a reader of any figure or table must know
    folder      where figures and tables go

    ONCE        what is to be said where each has one training
    """

    counts: dict[str, list[pd.DataFrame]]
    trivial: dict[str, pd.DataFrame]
    measured: dict[str, Measured]
    soft: dict[str, list[pd.DataFrame]]
    sides: pd.DataFrame
    pairs: list[tuple[str, str]]
    paper: Paper | None
    batch_size: int
    notes: list[str]
    folder: Path

    ONCE = "One training of each: intervals hold the chance of other patients, not that of another training."

    @property
    def every_series(self) -> dict[str, list[pd.DataFrame]]:
        """The counts of the predictors and of those that know nothing."""
        return {**self.counts, **{name: [counts] for name, counts in self.trivial.items()}}

    @property
    def trainings(self) -> int:
        """Of a predictor."""
        return max(map(len, self.counts.values()))
