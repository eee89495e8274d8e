"""Distances between the outlines of two masks, in mm, with the missed lesion counted.

Where a mask is empty, a distance has no natural value, and what stands in for it decides the mean: MONAI's HD95 of a
missed lesion is infinite or NaN and its default mean drops it, so that a network which finds only the easy lesions
looks precise. The rules of this module (column `case` says which one applied):

- both masks empty ("empty"): there is no outline to measure, so NSD and HD95 are NaN and stay out of a mean;
- the lesion was missed altogether ("missed"), or something was found where there is none ("false alarm"): NSD 0, and
  HD95 is the diagonal of the slice, the largest distance two points of it can have. A miss can thus never score
  better than a hit. BraTS does the same with the diagonal of its volume, 374 mm (lesion-wise scores of 2023);
- the pixel spacing is not known ("unknown spacing"): NaN. A distance in pixels is not passed off as one in mm.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.ndimage import distance_transform_edt

from sahlib.scoring import metrics

TOLERANCES_MM = (1.0, 2.0)  # an outline that far off still counts as right
# Three pixels of 1/3 mm are 1 mm, and 19 of 20 elements are 95 %, whatever the last bit of a sum says.
ROUNDING = 1e-9


def surface_scores(
    prediction: np.ndarray, truth: np.ndarray, row_mm: np.ndarray, column_mm: np.ndarray
) -> pd.DataFrame:
    """Normalized surface Dice and 95 % Hausdorff distance, slice by slice.

    prediction, truth: [k,H,W] bool; row_mm, column_mm: [k] height and width of a pixel in mm, NaN where unknown
    returns: one row per slice, columns nsd_<t>mm in [0, 1] for each of TOLERANCES_MM, hd95_mm (mm), case; the rules
    for empty masks and unknown spacing are the module's
    raises: ValueError for masks or spacings that do not fit, or a spacing that is not above 0

    The outline is made of elements at the corners between pixels, each with its length in mm; NSD is the share of both
    outlines' length that lies within the tolerance of the other, HD95 the larger of the two directed 95th percentiles
    over length. Definitions: Nikolov et al. 2018, arXiv:1809.04430, as in their package surface-distance. Distances
    are within a slice; thickness plays no part.
    """
    counts = metrics.pixel_counts(prediction, truth)
    spacing = np.stack([*checked_sides(len(truth), row_mm=row_mm, column_mm=column_mm).values()], axis=1)
    columns = [f"nsd_{tolerance:g}mm" for tolerance in TOLERANCES_MM]
    values = np.full((len(truth), len(columns) + 1), np.nan)
    predicted, lesion = (counts.tp + counts.fp > 0).to_numpy(), (counts.tp + counts.fn > 0).to_numpy()
    # The first that applies: an empty slice is empty whatever its spacing.
    cases = {
        "empty": ~predicted & ~lesion,
        "unknown spacing": ~np.isfinite(spacing).all(axis=1),
        "missed": ~predicted,
        "false alarm": ~lesion,
    }
    case_of = np.select(list(cases.values()), list(cases), "scored").astype(object)
    for k, case in enumerate(case_of):
        if case == "scored":
            values[k] = _scores(prediction[k], truth[k], spacing[k])
        elif case in ("missed", "false alarm"):
            values[k] = [*[0] * len(columns), np.hypot(*np.multiply(truth.shape[1:], spacing[k]))]
    return pd.DataFrame(values, columns=[*columns, "hd95_mm"]).assign(case=case_of)


def mean_with_lesion(scores: pd.DataFrame) -> pd.Series:
    """The mean of each column of `surface_scores` over the slices with a lesion; NaN where there is none.

    Missed lesions are included, false alarms elsewhere are not seen, slices of unknown spacing count nowhere.
    """
    return scores[scores["case"].isin(("scored", "missed"))].drop(columns="case").mean()


def _scores(prediction: np.ndarray, truth: np.ndarray, spacing: np.ndarray) -> list[float]:
    """NSD at each tolerance, then HD95, of two masks [H,W] that both have pixels."""
    # All outlines lie in the box around both masks, so a distance map of the box holds every distance asked for.
    box = metrics.box_around(prediction | truth)
    lengths = _outline_lengths(np.stack([prediction[box], truth[box]]), spacing)
    edges = lengths > 0
    to_prediction, to_truth = (distance_transform_edt(~edge, sampling=spacing) for edge in edges)
    # Of each outline: distances to the other one, and the length that each stands for.
    outlines = [(to_truth[edges[0]], lengths[0][edges[0]]), (to_prediction[edges[1]], lengths[1][edges[1]])]
    total = sum(length.sum() for _, length in outlines)
    near = [sum(length[d <= t + ROUNDING].sum() for d, length in outlines) for t in TOLERANCES_MM]
    return [*(float(n / total) for n in near), max(_percentile_95(*outline) for outline in outlines)]


def _outline_lengths(masks: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Length in mm of the outline through each corner between pixels, float [n,H+1,W+1] of masks [n,H,W].

    Marching squares over the four pixels around a corner: one or three inside, a cut across it; two side by side, a
    line of one pixel; two diagonal ones, two cuts. Codes and lengths are those of surface-distance.
    """
    height, width = spacing
    cut = np.hypot(height, width) / 2
    table = np.full(16, cut)  # bits: 8 top left, 4 top right, 2 bottom left, 1 bottom right
    table[[0b0000, 0b1111]] = 0
    table[[0b0011, 0b1100]] = width
    table[[0b0101, 0b1010]] = height
    table[[0b0110, 0b1001]] = 2 * cut
    padded = np.pad(masks, ((0, 0), (1, 1), (1, 1))).astype(np.uint8)
    codes = 8 * padded[:, :-1, :-1] + 4 * padded[:, :-1, 1:] + 2 * padded[:, 1:, :-1] + padded[:, 1:, 1:]
    return table[codes]


def _percentile_95(values: np.ndarray, weights: np.ndarray) -> float:
    """The smallest value that 95 per cent of the weight do not exceed."""
    order = np.lexsort((weights, values))
    share = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][np.searchsorted(share, 0.95 - ROUNDING)])


def checked_sides(slices: int, **sides: np.ndarray) -> dict[str, np.ndarray]:
    """Sides in mm, [slices] each, as floats; ValueError names one that has not a number per slice or is not above 0."""
    sides = {name: np.asarray(values, dtype=float) for name, values in sides.items()}
    for name, values in sides.items():
        if values.shape != (slices,):
            raise ValueError(f"{name} must hold one number per slice, [{slices}]; its shape is {values.shape}")
        if (values <= 0).any():
            raise ValueError(f"{name} must be above 0 mm, or NaN where unknown; the smallest is {np.nanmin(values)}")
    return sides
