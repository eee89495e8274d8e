"""Lesions found, missed and invented: connected components instead of pixels.

A lesion is an 8-connected component of a slice's mask (two pixels that touch at a corner belong together: thin blood
in a sulcus runs diagonally). A true lesion is found if the prediction covers any pixel of it; a predicted component
that touches no true lesion is a false alarm. This is the rule of the ISLES'22 challenge (Hernandez Petzsche et al.
2022, Scientific Data 9:762; compute_lesion_f1_score of its evaluation code), there in 3-D. A threshold on IoU instead
would count a thin lesion as missed whose outline is one pixel off, which the distances already measure. The price:
one predicted blob over the whole head finds every lesion. Read these numbers beside Dice, never alone.

No lesion is too small to count: the paper's claim is about small ones.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.ndimage import label

from sahlib.scoring import metrics

COUNTS = ("lesion_tp", "lesion_fp", "lesion_fn")


def lesion_counts(prediction: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """Lesions of each slice of prediction and truth [k,H,W] bool.

    returns: one row per slice, int64 columns lesion_tp (true lesions found), lesion_fp (predicted components that
    touch no true lesion), lesion_fn (true lesions missed)
    raises: ValueError as `metrics.pixel_counts`

    One predicted component over two lesions finds both; two components on one lesion are one find and no false alarm.
    """
    pixels = metrics.pixel_counts(prediction, truth)
    rows = np.zeros((len(truth), 3), dtype=np.int64)
    for k in np.flatnonzero(pixels.tp + pixels.fp + pixels.fn):  # most slices are empty on both sides
        box = metrics.box_around(prediction[k] | truth[k])
        marked, true = prediction[k][box], truth[k][box]
        (lesion_numbers, lesions), (component_numbers, predicted) = components(true), components(marked)
        both = marked & true
        found, touching = (len(np.unique(numbers[both])) for numbers in (lesion_numbers, component_numbers))
        rows[k] = found, predicted - touching, lesions - found
    return pd.DataFrame(rows, columns=list(COUNTS))


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """8-connected components of a mask [H,W] bool: int32 [H,W], 0 outside and 1..n inside, and n."""
    return label(mask, structure=np.ones((3, 3), bool))


def lesion_scores(counts: pd.DataFrame) -> dict[str, float]:
    """Scores of a test set from its lesion counts, pooled over slices.

    returns: sensitivity (lesions found / lesions), f1 (2 tp / (2 tp + fp + fn)), false_positives_per_slice; NaN where
    0/0, for instance without any lesion
    raises: ValueError for a missing column or no rows
    """
    if len(metrics.checked(counts, COUNTS)) == 0:
        raise ValueError("counts has no rows, so there is nothing to score")
    tp, fp, fn = (int(counts[c].sum()) for c in COUNTS)
    pooled = pd.DataFrame({"tp": [tp], "fp": [fp], "fn": [fn], "tn": [0]})
    return {
        "sensitivity": metrics.recall(pooled).item(),
        "f1": metrics.f1(pooled).item(),
        "false_positives_per_slice": fp / len(counts),
    }
