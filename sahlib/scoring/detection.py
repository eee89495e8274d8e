"""Does a slice bleed at all? Detection of slices, read off the segmentation.

A slice's score is the highest lesion probability of its pixels. A slice is called positive if any pixel is predicted,
that is if this score exceeds the threshold of the masks, so AUROC, sensitivity and specificity look at one and the
same number. The predicted area, the usual alternative, is 0 on every slice without a predicted pixel and cannot rank
those. The price: one bright pixel is enough for an alarm, and nothing here says whether it lies on the lesion.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import mannwhitneyu

from sahlib.scoring.prediction import THRESHOLD


def slice_scores(probabilities: np.ndarray) -> np.ndarray:
    """Highest probability of each slice, float64 [k], of probabilities [k,H,W] in [0, 1], or of masks bool."""
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 3:
        raise ValueError(f"probabilities must be [k,H,W]; their shape is {probabilities.shape}")
    return probabilities.max(axis=(1, 2), initial=0).astype(np.float64)


def detection(scores: np.ndarray, lesion: np.ndarray) -> dict[str, float]:
    """Slice-level detection.

    scores: [k] from `slice_scores`; lesion: [k] bool, True where the slice shows a lesion
    returns: auroc, sensitivity, specificity, each NaN where its class of slices is absent
    raises: ValueError where the two do not fit, lesion is not bool, or a score is NaN
    """
    scores, lesion = np.asarray(scores, dtype=float), np.asarray(lesion)
    if scores.ndim != 1 or scores.shape != lesion.shape:
        raise ValueError(f"scores {scores.shape} and lesion {lesion.shape} must be the same [k]")
    if lesion.dtype != bool:
        raise ValueError(f"lesion must be bool; it is {lesion.dtype}")
    if np.isnan(scores).any():
        raise ValueError(f"{np.isnan(scores).sum()} of {len(scores)} scores are NaN")
    called = scores > THRESHOLD
    sensitivity = np.sum(called & lesion) / (np.sum(lesion) or np.nan)
    specificity = np.sum(~called & ~lesion) / (np.sum(~lesion) or np.nan)
    return {"auroc": auroc(scores, lesion), "sensitivity": float(sensitivity), "specificity": float(specificity)}


def auroc(scores: np.ndarray, lesion: np.ndarray) -> float:
    """Chance that a slice with a lesion scores above one without, a tie counting half; NaN where either is absent.

    The Mann-Whitney form of the area under the ROC curve (Hanley and McNeil 1982, Radiology 143:29). A predictor that
    says the same of every slice gets 0.5.
    """
    pairs = int(lesion.sum()) * int((~lesion).sum())
    if not pairs:
        return float("nan")
    return float(mannwhitneyu(scores[lesion], scores[~lesion], method="asymptotic").statistic / pairs)
