"""What needs the masks themselves, as tables of one row per slice: after these no pixel is looked at again.

A test set may come whole or scan by scan, each on its own grid: the tables of its parts are `joined`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sahlib.data.slices import SIDES as SIDES
from sahlib.scoring import calibration, detection, distances, lesions
from sahlib.scoring.prediction import THRESHOLD


@dataclass(frozen=True)
class Measured:
    """One predictor on some slices.

    surface  of distances.surface_scores; lesions: of lesions.lesion_counts
    scores   of detection.slice_scores, [k]
    soft     of calibration.soft_counts
    bins     of calibration.reliability_bins, probabilities rounded to float16
    """

    surface: pd.DataFrame
    lesions: pd.DataFrame
    scores: np.ndarray
    soft: pd.DataFrame
    bins: pd.DataFrame


def measure(
    predicted: np.ndarray, truth: np.ndarray, sides: pd.DataFrame, images: np.ndarray | None = None
) -> Measured:
    """The tables of some slices of one size.

    predicted  [k,H,W] probabilities in [0, 1], or masks bool; truth: [k,H,W] bool
    sides      columns row_mm and column_mm, a row per slice, NaN where unknown
    images     [k,H,W] uint8 grey levels, for what is said of the head alone
    raises     ValueError where they do not fit, or a probability is NaN or outside [0, 1]
    """
    masks = predicted if predicted.dtype == bool else predicted > THRESHOLD
    return Measured(
        distances.surface_scores(masks, truth, sides["row_mm"].to_numpy(), sides["column_mm"].to_numpy()),
        lesions.lesion_counts(masks, truth),
        detection.slice_scores(predicted),
        calibration.soft_counts(predicted, truth),
        # Probabilities are counted by their bits, which float16 has few of.
        calibration.reliability_bins(predicted if masks is predicted else predicted.astype(np.float16), truth, images),
    )


def joined(parts: Sequence[Measured]) -> Measured:
    """The tables of all parts, in their order."""
    return Measured(
        pd.concat([part.surface for part in parts], ignore_index=True),
        pd.concat([part.lesions for part in parts], ignore_index=True),
        np.concatenate([part.scores for part in parts]),
        pd.concat([part.soft for part in parts], ignore_index=True),
        calibration.added([part.bins for part in parts]),
    )
